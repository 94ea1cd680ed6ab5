"""Two visits that are no pair are refused, with the measure; what is a pair goes on, whatever its intensities."""

from __future__ import annotations

import numpy as np
import pytest

from lesionkit.longitudinal import change_map, read_two_visits
from lesionkit.simulate import SimulationConfig, simulate_case
from lesionkit.visits import check_visits
from lesionkit.volume import Volume


@pytest.fixture(scope="module")
def brain() -> Volume:
    return _brain(3)


def _brain(seed: int) -> Volume:
    config = SimulationConfig(kind="flair", lesions=(3.0, 0.1), spacing=2.0)
    return simulate_case(config, rng=np.random.default_rng(seed)).images[0]


def _again(image: Volume, seed: int = 0) -> Volume:
    """A second visit: the same brain, measured anew, with a bias and another unit."""
    noise = np.random.default_rng(seed).normal(0, 0.05 * np.median(image.data[image.data > 0]), image.shape)
    bias = np.linspace(0.9, 1.1, image.shape[0])[:, None, None]
    return image.with_data(np.where(image.data > 0, 1.7 * bias * image.data + noise, 0).astype(np.float32))


def _shifted(image: Volume, millimetres: tuple[float, float, float]) -> Volume:
    affine = image.affine.copy()
    affine[:3, 3] += millimetres
    return Volume(image.data, affine)


def _turned(image: Volume, degrees: float) -> Volume:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return Volume(image.data, turn @ image.affine)


def test_two_visits_of_a_patient_are_a_pair(brain: Volume):
    check_visits(brain, _again(brain))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2)])
def test_a_mirrored_visit_is_named(brain: Volume, axes: tuple[int, ...]):
    mirrored = brain.with_data(np.ascontiguousarray(np.flip(brain.data, axes)))
    with pytest.raises(ValueError, match="mirrored"):
        check_visits(mirrored, _again(brain))


@pytest.mark.parametrize("millimetres", [(8, 0, 0), (0, -8, 0), (0, 0, 8), (4, 4, 0), (0, 0, 25)])
def test_a_shifted_visit_is_named_with_its_distance(brain: Volume, millimetres: tuple[float, float, float]):
    distance = np.linalg.norm(millimetres)
    with pytest.raises(ValueError, match=r"about (\d+) mm aside") as caught:
        check_visits(_shifted(brain, millimetres), _again(brain))
    assert float(str(caught.value).partition("about ")[2].partition(" mm")[0]) == pytest.approx(distance, abs=2.1)


def test_another_patient_another_contrast_and_a_turned_head_are_refused(brain: Volume):
    dark = brain.with_data(np.where(brain.data > 0, brain.data.max() + 1 - brain.data, 0))
    for first in (_brain(4), dark, _turned(brain, 10)):
        with pytest.raises(ValueError, match="correlates by"):
            check_visits(first, _again(brain))


def test_the_unit_of_the_intensities_changes_nothing(brain: Volume):
    second = _again(brain)
    plain = change_map(brain, second)
    for change in (lambda d: (d - d.mean()) / d.std(), lambda d: d * 1e-3, lambda d: d + 500.0):
        moved = [v.with_data(change(v.data.astype(np.float64))) for v in (brain, second)]
        assert change_map(*moved).data == pytest.approx(plain.data, abs=1e-2)


def test_force_goes_on_with_a_warning(brain: Volume):
    with pytest.warns(UserWarning, match="8 mm aside"):
        read_two_visits(_shifted(brain, (8, 0, 0)), _again(brain), force=True)
