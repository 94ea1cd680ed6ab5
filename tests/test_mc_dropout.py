"""MC dropout: samples are one network each, and lesions are as uncertain as their voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lesionkit.inference import predict_array
from lesionkit.mc_dropout import McConfig, lesions_of_samples, sample_maps
from lesionkit.model import ModelConfig, UNet
from lesionkit.uncertainty import entropy

SHAPE = (20, 18, 16)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(ModelConfig(channels=1, levels=2, filters=4, dropout=0.3, activation="softplus", bias=0.0)).eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(1))


def test_samples_differ_and_repeat_and_leave_the_network_as_it_was(network: UNet, image: torch.Tensor) -> None:
    mask = np.ones(SHAPE, bool)
    state = torch.random.get_rng_state()
    maps = sample_maps(network, image, mask, McConfig(samples=5, batch=2), window=32)
    assert torch.equal(state, torch.random.get_rng_state())
    assert maps.shape == (5, *SHAPE)
    assert all(np.abs(maps[a] - maps[b]).max() > 1e-3 for a in range(5) for b in range(a))
    np.testing.assert_array_equal(maps, sample_maps(network, image, mask, McConfig(samples=5, batch=2), window=32))
    assert not any(module.training for module in network.modules())
    plain = predict_array(network, image, mask, window=32)
    np.testing.assert_array_equal(plain, predict_array(network, image, mask, window=32))


def test_a_sample_is_the_same_network_in_every_window(network: UNet, image: torch.Tensor) -> None:
    """Where every window holds the same image, every window of a sample must give the same map."""
    tile = image[:, :8, :8, :8]
    repeated = torch.cat([tile] * 3, dim=1)
    maps = sample_maps(network, repeated, np.ones((24, 8, 8), bool), McConfig(samples=4, batch=2), window=8)
    # The first window alone covers 0 to 4 and the last one, which starts at 16, alone covers 19 to 23.
    np.testing.assert_allclose(maps[:, 19:21], maps[:, 3:5], rtol=1e-3, atol=1e-4)
    assert np.abs(maps[0, 3:5] - maps[1, 3:5]).max() > 1e-3


def test_lesions_are_as_uncertain_as_their_voxels() -> None:
    mean = np.zeros((12, 12, 12))
    mean[1:4, 1:4, 1:4] = 0.95
    mean[7:9, 7:9, 7:9] = 0.6
    mean[7, 7, 7] = 0.7
    mean[11, 0, 0] = 0.9  # one voxel is no lesion
    spread = np.where(mean > 0, 0.04, 0)
    maps = np.stack([mean - spread, mean + spread])
    found = lesions_of_samples(maps, McConfig(aggregate="mean"))
    np.testing.assert_allclose(found.points, [[2, 2, 2], [7.5, 7.5, 7.5]])
    np.testing.assert_allclose(found.score, [0.95, 0.7])
    assert found.size.tolist() == [27, 8]
    expected = [entropy(np.array([0.95]))[0], (7 * entropy(np.array([0.6]))[0] + entropy(np.array([0.7]))[0]) / 8]
    np.testing.assert_allclose(found.uncertainty, expected)
    summed = lesions_of_samples(maps, McConfig(aggregate="log_sum")).uncertainty
    assert summed[0] == pytest.approx(27 * np.log(expected[0]))
    assert summed[0] < summed[1]
    assert len(lesions_of_samples(np.zeros((2, 4, 4, 4)), McConfig()).points) == 0


def test_a_network_without_dropout_has_no_samples(image: torch.Tensor) -> None:
    network = UNet(ModelConfig(channels=1, levels=2, filters=4, dropout=0.0)).eval()
    with pytest.raises(ValueError, match="without dropout"):
        sample_maps(network, image, np.ones(SHAPE, bool), McConfig(), window=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"samples": 0}, "samples"), ({"threshold": 1.0}, "threshold"), ({"aggregate": "max"}, "aggregate")],
)
def test_wrong_settings_are_named(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        McConfig(**change)
