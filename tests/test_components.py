"""Connected components: known scenes, options, odd input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesionkit.components import ComponentConfig, detect_components


def scene() -> np.ndarray:
    """Two lesions of 3 and 2 voxels and a lone one."""
    heatmap = np.zeros((6, 7, 8))
    heatmap[1, 1, 1:4] = 0.2, 0.5, 0.3
    heatmap[4, 4, 4:6] = 0.9, 0.1
    heatmap[0, 6, 7] = 0.7
    return heatmap


def test_each_component_gives_its_maximum_highest_first() -> None:
    found = detect_components(scene(), ComponentConfig(threshold=0.1))
    np.testing.assert_array_equal(found.points, [[4, 4, 4], [0, 6, 7], [1, 1, 2]])
    np.testing.assert_allclose(found.score, [0.9, 0.7, 0.5])
    np.testing.assert_array_equal(found.size, [2, 1, 3])
    assert len(found) == 3


def test_centre_of_mass_is_weighted_by_the_map() -> None:
    found = detect_components(scene(), ComponentConfig(threshold=0.1, centre="mass"))
    np.testing.assert_allclose(found.points, [[4, 4, 4.1], [0, 6, 7], [1, 1, (0.2 + 1.0 + 0.9)]])


def test_small_components_are_dropped() -> None:
    found = detect_components(scene(), ComponentConfig(threshold=0.1, min_size=3))
    np.testing.assert_array_equal(found.points, [[1, 1, 2]])


def test_a_voxel_at_the_threshold_counts() -> None:
    assert detect_components(scene(), ComponentConfig(threshold=0.5)).size.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("connectivity", "n"), [(None, 2), (6, 3), (18, 2), (26, 1)])
def test_connectivity_in_three_dimensions(connectivity: int | None, n: int) -> None:
    heatmap = np.zeros((4, 4, 4))
    heatmap[0, 0, 0] = heatmap[0, 1, 1] = heatmap[1, 2, 2] = 1.0  # an edge apart, then a corner apart
    assert len(detect_components(heatmap, ComponentConfig(threshold=0.5, connectivity=connectivity))) == n


@pytest.mark.parametrize(("connectivity", "n"), [(None, 1), (4, 2), (8, 1)])
def test_connectivity_in_two_dimensions(connectivity: int | None, n: int) -> None:
    assert len(detect_components(np.eye(2), ComponentConfig(threshold=0.5, connectivity=connectivity))) == n


@pytest.mark.parametrize("shape", [(5,), (5, 5), (5, 5, 5), (0, 4, 4), (1, 1, 1)])
def test_nothing_above_the_threshold_gives_empty_arrays(shape: tuple[int, ...]) -> None:
    found = detect_components(np.zeros(shape, np.float32), ComponentConfig(threshold=0.1))
    assert found.points.shape == (0, len(shape))
    assert found.score.shape == found.size.shape == (0,)


def test_a_constant_map_is_one_component() -> None:
    found = detect_components(np.ones((3, 3, 3), np.float32), ComponentConfig(threshold=0.1, centre="mass"))
    np.testing.assert_allclose(found.points, [[1, 1, 1]])
    assert found.size.tolist() == [27]


def test_a_binary_mask_is_a_map_too() -> None:
    found = detect_components(scene() > 0, ComponentConfig(threshold=0.5, centre="mass"))
    np.testing.assert_allclose(found.points[found.size == 3], [[1, 1, 2]])


@settings(deadline=None)
@given(hnp.arrays(np.float32, (4, 5, 6), elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])), st.booleans())
def test_components_partition_the_foreground(heatmap: np.ndarray, mass: bool) -> None:
    before = heatmap.copy()
    heatmap.setflags(write=False)
    found = detect_components(heatmap, ComponentConfig(threshold=0.25, centre="mass" if mass else "maximum"))
    np.testing.assert_array_equal(heatmap, before)
    assert found.size.sum() == (heatmap >= 0.25).sum()
    assert np.all(np.diff(found.score) <= 0)
    assert np.all((found.points >= -1e-9) & (found.points <= np.array(heatmap.shape) - 1 + 1e-9))
    if not mass:
        np.testing.assert_array_equal(heatmap[tuple(found.points.astype(int).T)], found.score)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    heatmap = scene()
    heatmap[0, 0, 0] = bad
    with pytest.raises(ValueError, match="heatmap: got NaN or infinite"):
        detect_components(heatmap, ComponentConfig(threshold=0.1))


def test_maps_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="4 dimensions"):
        detect_components(np.zeros((2, 2, 2, 2)), ComponentConfig(threshold=0.1))
    with pytest.raises(ValueError, match="complex"):
        detect_components(np.zeros((2, 2), complex), ComponentConfig(threshold=0.1))
    with pytest.raises(ValueError, match=r"connectivity: got 18 for a 2-D map"):
        detect_components(np.zeros((2, 2)), ComponentConfig(threshold=0.1, connectivity=18))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": np.nan}, "threshold"),
        ({"threshold": 0.1, "min_size": 0}, "min_size"),
        ({"threshold": 0.1, "centre": "middle"}, "centre"),
        ({"threshold": 0.1, "connectivity": 7}, "connectivity"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ComponentConfig(**options)  # type: ignore[arg-type]  # the point of the test
