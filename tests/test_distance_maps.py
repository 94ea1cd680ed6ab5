"""Distance maps: their values, their support, and what the image does to the geodesic one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionkit.distance_maps import euclidean_map, geodesic_map

RADII = st.floats(1.5, 5)


@st.composite
def scenes(draw):
    """Shape, points in and around it, and a noisy image."""
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(6, 14)) for _ in range(ndim))
    points = draw(st.lists(st.tuples(*[st.floats(-3, n + 2) for n in shape]), max_size=3))
    image = np.random.default_rng(draw(st.integers(0, 999))).normal(size=shape)
    return shape, np.array(points).reshape(-1, ndim), image


@given(scenes(), RADII, st.floats(0.5, 4))
def test_euclidean_map_is_the_formula_at_every_voxel(scene, radius, decay):
    shape, points, _ = scene
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    wanted = np.zeros(shape)
    for point in points:
        distance = np.linalg.norm(grid - point, axis=-1)
        wanted = np.maximum(wanted, np.maximum(1 - distance / radius, 0) ** decay)
    assert euclidean_map(points, shape, radius=radius, decay=decay) == pytest.approx(wanted, abs=1e-6)


@given(scenes(), RADII)
def test_geodesic_map_of_a_constant_image_is_the_euclidean_one(scene, radius):
    shape, points, _ = scene
    flat = geodesic_map(points, np.full(shape, 7.0), radius=radius)
    assert flat == pytest.approx(euclidean_map(points, shape, radius=radius), abs=1e-6)


@given(scenes(), RADII, st.floats(0, 3))
def test_edges_only_make_the_way_longer(scene, radius, contrast):
    shape, points, image = scene
    near, far = (geodesic_map(points, image, radius=radius, contrast=c) for c in (contrast, contrast + 1))
    assert (near <= euclidean_map(points, shape, radius=radius) + 1e-6).all()
    assert (far <= near + 1e-6).all()


def test_both_are_one_at_a_point_on_a_voxel_and_zero_beyond_the_radius(rng):
    image = rng.normal(size=(15, 15, 15))
    for label in (euclidean_map([[7, 7, 7]], (15, 15, 15), radius=4), geodesic_map([[7, 7, 7]], image, radius=4)):
        assert label[7, 7, 7] == 1
        assert label[7, 7, 11] == 0
        assert label.dtype == np.float32


def test_a_geodesic_map_stays_within_a_bright_lesion():
    image = np.zeros((21, 21, 21))
    image[8:13, 5:16, 8:13] = 10.0
    label = geodesic_map([[10, 10, 10]], image, radius=6, decay=1)
    assert label[10, 13, 10] == pytest.approx(0.5)  # along the lesion nothing is in the way
    assert label[13, 10, 10] == 0  # as near, but across its edge


def test_a_radius_for_each_axis_makes_an_ellipsoid():
    label = euclidean_map([[8, 8]], (17, 17), radius=(2, 6), decay=1)
    assert label[9, 8] == pytest.approx(label[8, 11]) == pytest.approx(0.5)
    along = geodesic_map([[8, 8]], np.zeros((17, 17)), radius=(2, 6), decay=1)
    assert along == pytest.approx(label, abs=1e-6)


def test_no_points_give_an_empty_map():
    assert not euclidean_map([], (5, 6, 7)).any()
    assert not geodesic_map([], np.zeros((5, 6))).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0}, "radius must be positive"),
        ({"radius": (1, 2, 3)}, "radius must be positive, a number or one for each of the 2 axes"),
        ({"decay": -1}, "decay must be positive"),
        ({"contrast": -1}, "contrast must be 0 or more"),
        ({"image": np.full((4, 4), np.nan)}, "image must hold finite"),
        ({"image": np.zeros(4)}, "2-D or 3-D"),
        ({"points": [[1, 2, 3]]}, r"points must have shape \(n, 2\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        geodesic_map(**{"points": [[1, 1]], "image": np.zeros((4, 4))} | change)
