"""The U-Net, augmentation and inference: shapes, geometry, determinism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesionkit import gaussian_heatmap
from lesionkit.augment import AugmentConfig, alter_image, apply_to_mask, apply_transform, draw_transform
from lesionkit.inference import predict_array, slide_window
from lesionkit.model import ModelConfig, UNet, fold, unfold
from lesionkit.preprocessing import normalise, prepare
from lesionkit.volume import Volume

TINY = ModelConfig(channels=2, levels=3, filters=4, max_filters=8)


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 13, 9), (5, 20, 6)])
@pytest.mark.parametrize("activation", ["exp", "softplus", "linear", "sigmoid"])
def test_any_size_comes_out_as_it_went_in(size, activation):
    torch.manual_seed(0)
    model = UNet(ModelConfig(channels=2, levels=3, filters=4, activation=activation)).eval()
    with torch.inference_mode():
        out = model(torch.randn(2, 2, *size))
    assert out.shape == (2, 1, *size)
    assert (out >= 0).all()


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 13, 9)])
def test_a_stem_keeps_the_grid_and_halves_that_of_the_network(size):
    torch.manual_seed(0)
    config = ModelConfig(channels=2, levels=2, filters=4, stem=2)
    model = UNet(config).eval()
    seen = []
    model.encoder[0].register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    with torch.inference_mode():
        assert model(torch.randn(1, 2, *size)).shape == (1, 1, *size)
    assert seen == [(1, 16, *(2 * int(np.ceil(n / 4)) for n in size))]


def test_what_a_stem_folds_it_unfolds():
    values = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 3, 4, 6, 8)
    folded = fold(values, 2)
    assert folded.shape == (2, 24, 2, 3, 4)
    assert folded[0, :8, 0, 0, 0].tolist() == values[0, 0, :2, :2, :2].flatten().tolist()  # the block of a voxel
    assert torch.equal(unfold(folded, 2), values)


def test_the_paper_s_network_predicts_almost_nothing_before_training():
    torch.manual_seed(0)
    model = UNet(ModelConfig())
    assert model.config.widths == (32, 64, 128, 256, 512)
    assert model.activate(torch.zeros(1)).item() == pytest.approx(np.exp(-4))
    with torch.inference_mode():
        assert UNet(TINY)(torch.randn(1, 2, 16, 16, 16)).mean() < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"levels": 0}, "levels"), ({"dropout": 1.0}, "dropout"), ({"activation": "relu"}, "activation")],
)
def test_wrong_model_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)


CHANGES = {
    "gamma": AugmentConfig(gamma=0.3),
    "bias": AugmentConfig(bias=0.2),
    "noise": AugmentConfig(noise=0.5),
    "thick": AugmentConfig(thick_share=1.0, thick=(4.0, 4.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_scanner_changes_the_image_but_not_its_background(name):
    rng = np.random.default_rng(0)
    patch = torch.from_numpy(rng.standard_normal((2, 16, 16, 16), dtype=np.float32))
    patch[:, :8] = 0
    one, two = (alter_image(patch, CHANGES[name], rng=np.random.default_rng(seed)) for seed in (3, 3))
    assert torch.equal(one, two)
    assert (one[:, 8:] != patch[:, 8:]).float().mean() > 0.9
    assert (one[:, :4] == 0).all()
    assert torch.equal(alter_image(patch, AugmentConfig(), rng=np.random.default_rng(3)), patch)


def test_thick_slices_are_averages_along_one_axis():
    ramp = torch.arange(16.0)[None, :, None, None].expand(1, 16, 16, 16) + 1
    config = AugmentConfig(thick_share=1.0, thick=(4.0, 4.0))
    seen = [alter_image(ramp, config, rng=np.random.default_rng(seed)) for seed in range(12)]
    for patch in seen:
        assert patch.mean() == pytest.approx(8.5, abs=0.01)  # nothing is lost
    ends = sorted({round(patch[0, 0, 8, 8].item(), 3) for patch in seen})
    assert ends == [1.0, 2.5]  # the mean of 1 to 4 where slices lie along the ramp; elsewhere nothing happens


@given(st.integers(0, 2**32 - 1))
def test_image_and_points_move_together(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(14, 26, (3, 3))
    image = torch.from_numpy(gaussian_heatmap(points, (40, 40, 40), 4.0) * 1000)[None]
    config = AugmentConfig(rotation=15, shear=5, scale=(0.85, 1.2), flip=(True, True, True), intensity=0)
    transform = draw_transform(config, 1, rng=rng)
    patch, moved = apply_transform(image, points, transform, np.array([20.0, 20.0, 20.0]), (32, 34, 36))
    assert patch.shape == (1, 32, 34, 36)
    for target, source in zip(moved, points, strict=True):  # the image's value travels with its point
        inside = (target > 2).all() and (target < np.array(patch.shape[1:]) - 3).all()
        if inside:
            assert _sample(patch[0].numpy(), target) == pytest.approx(_sample(image[0].numpy(), source), rel=0.08)


def _sample(array, point):
    from scipy.ndimage import map_coordinates

    return map_coordinates(array, point[:, None], order=1)[0]


@given(st.integers(0, 2**32 - 1))
def test_a_mask_moves_with_its_image(seed):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), axis=-1)
    ball = torch.from_numpy(((grid - rng.uniform(15, 25, 3)) ** 2).sum(-1) < 6**2)
    config = AugmentConfig(rotation=15, shear=5, scale=(0.85, 1.2), flip=(True, True, True), intensity=0)
    where = draw_transform(config, 1, rng=rng), np.array([20.0, 20.0, 20.0]), (32, 34, 36)
    image, _ = apply_transform(ball[None], np.zeros((0, 3)), *where)
    moved = apply_to_mask(ball, *where)
    assert moved.dtype == torch.bool
    assert moved.sum() > 200
    assert bool((moved[image[0] > 0.999]).all())
    assert not bool(moved[image[0] < 0.001].any())


def test_no_transform_is_a_plain_crop():
    image = torch.arange(20.0**3).reshape(1, 20, 20, 20)
    still = AugmentConfig(rotation=0, shear=0, scale=(1, 1), flip=(False, False, False), intensity=0)
    transform = draw_transform(still, 1, rng=np.random.default_rng(0))
    patch, points = apply_transform(image, np.array([[6.0, 7.0, 8.0]]), transform, np.array([7.5, 8.5, 9.5]), (8, 8, 8))
    assert patch[0].numpy() == pytest.approx(image[0, 4:12, 5:13, 6:14].numpy(), rel=1e-4)
    assert points.tolist() == [[2.0, 2.0, 2.0]]


def test_a_patch_outside_the_image_is_refused():
    transform = draw_transform(AugmentConfig(), 1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="outside the image"):
        apply_transform(torch.zeros(1, 9, 9, 9), np.zeros((0, 3)), transform, np.array([90.0, 4, 4]), (4, 4, 4))


def test_windows_cover_the_brain_and_agree_with_one_pass():
    model = UNet(ModelConfig(channels=1, levels=1, filters=2, dropout=0)).eval()
    for module in model.modules():  # without statistics over the window, windows cannot matter
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.forward = lambda x: x
    torch.manual_seed(0)
    image = torch.randn(1, 30, 44, 25)
    mask = np.zeros((30, 44, 25), bool)
    mask[3:28, 2:42, 4:22] = True
    with torch.inference_mode():
        whole = model(image[None])[0, 0].numpy()
    seen = []
    tiled = predict_array(model, image, mask, window=20, progress=seen.append)
    inner = np.zeros_like(mask)
    inner[6:25, 5:39, 7:19] = True
    assert (tiled[~mask] == 0).all()
    assert np.corrcoef(tiled[inner], whole[inner])[0, 1] > 0.99
    assert seen[-1] == 1.0
    assert len(seen) > 4


def test_small_windows_together_give_what_they_give_one_by_one():
    model = UNet(ModelConfig(channels=2, levels=2, filters=4, dropout=0)).eval()
    torch.manual_seed(0)
    image, mask = torch.randn(2, 30, 22, 25), np.ones((30, 22, 25), bool)
    sizes = []

    def outputs(parts):
        sizes.append(len(parts))
        return model(parts)

    several = slide_window(outputs, image, mask, batch=7, window=8)
    assert max(sizes) == 7
    assert min(sizes) < 7  # the last ones
    alone = slide_window(model, image, mask, batch=1, window=8)
    np.testing.assert_allclose(several, alone, rtol=0.02, atol=0.02 * alone.max())  # bfloat16


def test_normalised_images_ignore_gain_and_offset_free_units(rng):
    data = np.where(rng.random((12, 12, 12)) < 0.6, rng.normal(300, 30, (12, 12, 12)), 0)
    mask = data != 0
    one, two = normalise(data, mask), normalise(data * 7.5, mask)
    assert one == pytest.approx(two, abs=1e-4)
    assert np.median(one[mask]) == pytest.approx(0, abs=1e-6)
    assert (one[~mask] == 0).all()


def test_images_on_different_grids_are_refused():
    a = Volume(np.random.default_rng(0).random((8, 8, 8)), np.eye(4))
    b = Volume(np.random.default_rng(0).random((8, 8, 9)), np.eye(4))
    with pytest.raises(ValueError, match="image 2 is not on the grid"):
        prepare([a, b])
    with pytest.raises(ValueError, match="constant"):
        prepare([Volume(np.ones((8, 8, 8)), np.eye(4))])
