"""Points -> heatmaps, and masks -> points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionkit import FitConfig, detect, gaussian_heatmap, points_from_mask
from lesionkit.labels import points_inside
from lesionkit.volume import Volume

SIGMAS = st.floats(0.7, 2.5)


@st.composite
def scenes(draw, margin=0.0, most=6):
    """Shape and points inside it, at least `margin` voxels from the border."""
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(14, 26)) for _ in range(ndim))
    coordinates = [st.floats(-0.5 + margin, n - 0.51 - margin) for n in shape]
    points = draw(st.lists(st.tuples(*coordinates), max_size=most))
    return shape, np.array(points).reshape(-1, ndim)


@given(scenes(), SIGMAS)
def test_mass_is_the_number_of_points_inside(scene, sigma):
    shape, points = scene
    heatmap = gaussian_heatmap(points, shape, sigma)
    assert heatmap.sum(dtype=float) == pytest.approx(len(points), abs=1e-5)
    assert heatmap.dtype == np.float32
    assert (heatmap >= 0).all()


@given(st.data(), st.floats(0.9, 1.8))
def test_detecting_the_rendered_heatmap_returns_the_points(data, sigma):
    cells = data.draw(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, unique=True))
    jitter = data.draw(st.lists(st.tuples(*[st.floats(-1, 1)] * 3), min_size=len(cells), max_size=len(cells)))
    points = 12.0 + 24.0 * np.array(cells) + np.array(jitter)
    found = detect(gaussian_heatmap(points, (48, 48, 48), sigma, dtype=float), FitConfig(sigma=sigma))
    assert len(found) == len(points)
    for point in points:
        nearest = np.linalg.norm(found.mu - point, axis=1).argmin()
        assert found.mu[nearest] == pytest.approx(point, abs=1e-4)
        assert found.alpha[nearest] == pytest.approx(1, abs=1e-4)


def test_equals_the_density_away_from_the_border():
    shape, mu, sigma = (21, 23, 25), np.array([10.3, 11.0, 12.6]), np.array([1.0, 1.5, 0.8])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    density = np.exp(-0.5 * (((grid - mu) / sigma) ** 2).sum(-1)) / ((2 * np.pi) ** 1.5 * sigma.prod())
    for border in ("renormalise", "truncate"):
        heatmap = gaussian_heatmap([mu], shape, sigma, border=border, dtype=float)
        assert heatmap == pytest.approx(density, rel=1e-5, abs=1e-8)


def test_truncated_heatmap_is_a_crop_of_the_whole():
    points = np.array([[5.0, 9.5, 6.0], [12.0, 3.0, 17.2]])
    whole = gaussian_heatmap(points, (20, 20, 20), 1.4, border="truncate")
    part = gaussian_heatmap(points - [4, 4, 4], (9, 9, 14), 1.4, border="truncate")
    assert part == pytest.approx(whole[4:13, 4:13, 4:18], abs=1e-7)


def test_point_beyond_the_border_counts_only_when_truncating():
    outside = [[-2.0, 8.0, 8.0]]
    assert gaussian_heatmap(outside, (16, 16, 16), 1.5).sum() == 0
    assert 0 < gaussian_heatmap(outside, (16, 16, 16), 1.5, border="truncate").sum() < 0.5
    assert points_inside(np.array([[-0.5, 0, 15.49], [-0.51, 0, 0], [0, 0, 15.5]]), (16, 16, 16)).tolist() == [
        True,
        False,
        False,
    ]


def test_weights_scale_the_mass():
    heatmap = gaussian_heatmap([[8, 8], [4, 12]], (20, 20), 1.0, weights=[0.25, 2.0])
    assert heatmap.sum() == pytest.approx(2.25, abs=1e-6)


def test_a_very_narrow_gaussian_keeps_its_mass():
    assert gaussian_heatmap([[3.5, 3.5]], (8, 8), 0.05).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(points=[[1.0, 2.0]], shape=(8, 8, 8)), r"shape \(n, 3\)"),
        (dict(points=[[1.0, np.nan]], shape=(8, 8)), "row 0"),
        (dict(points=[], shape=(8, 0)), "positive lengths"),
        (dict(points=[], shape=(8, 8), sigma=0.0), "sigma must be positive"),
        (dict(points=[], shape=(8, 8), sigma=(1, 1, 1)), "each of the 2 axes"),
        (dict(points=[[1, 1]], shape=(8, 8), weights=[1, 2]), "weights must have shape"),
        (dict(points=[[1, 1]], shape=(8, 8), border="wrap"), "border must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_heatmap(**arguments)


def test_components_are_18_connected_with_centres_of_mass():
    mask = np.zeros((8, 8, 8), int)
    mask[1, 1, 1] = mask[1, 2, 2] = 3  # share an edge: one lesion
    mask[5, 5, 5] = mask[6, 6, 6] = 1  # share a corner: two
    found = points_from_mask(mask)
    assert found.sizes.tolist() == [2, 1, 1]
    assert found.points.tolist() == [[1, 1.5, 1.5], [5, 5, 5], [6, 6, 6]]
    assert points_from_mask(mask, connectivity=26).sizes.tolist() == [2, 2]
    assert points_from_mask(mask, connectivity=6).sizes.tolist() == [1, 1, 1, 1]


def test_small_components_are_left_out_and_the_rest_renumbered():
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = True
    mask[3:6, 3:6] = True
    found = points_from_mask(mask, min_size=3)
    assert found.sizes.tolist() == [9]
    assert found.labels.max() == 1
    assert (found.labels > 0).sum() == 9


@given(st.integers(0, 2**32 - 1))
def test_sizes_and_points_agree_with_the_label_map(seed):
    mask = np.random.default_rng(seed).random((9, 8, 7)) < 0.15
    found = points_from_mask(mask)
    assert found.sizes.sum() == mask.sum()
    for number, (point, size) in enumerate(zip(found.points, found.sizes, strict=True), start=1):
        voxels = np.argwhere(found.labels == number)
        assert len(voxels) == size
        assert point == pytest.approx(voxels.mean(axis=0))


def test_an_empty_mask_has_no_lesion():
    found = points_from_mask(np.zeros((4, 5, 6)))
    assert found.points.shape == (0, 3)
    assert found.sizes.shape == (0,)


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.zeros(4), {}, "2-D or 3-D"),
        (np.full((3, 3), np.nan), {}, "NaN"),
        (np.zeros((3, 3)), {"connectivity": 8}, "connectivity"),
        (np.zeros((3, 3)), {"min_size": 0}, "min_size"),
    ],
)
def test_wrong_masks_are_named(mask, options, message):
    with pytest.raises(ValueError, match=message):
        points_from_mask(mask, **options)


def test_each_label_is_drawn_over_the_mri_with_its_point(rng):
    from lesionkit.figures import labels_figure

    image = Volume(rng.uniform(0, 9, (12, 14, 10)), np.diag([2.0, 2, 3, 1]))
    point = np.array([[4.0, 6.0, 5.0]])
    label = image.with_data(gaussian_heatmap(point, image.shape))
    at = image.to_mm(point)
    figure = labels_figure(image, {"one": label, "two": label}, at_mm=at[0], points_mm=at)
    assert [text.text for text in figure.layout.annotations] == ["one", "two"]
    heats = [trace.z for trace in figure.data if trace.type == "heatmap"]
    assert (heats[0] == image.data[:, :, 5].T).all()
    assert (heats[1] == label.data[:, :, 5].T).all()
    dots = [trace for trace in figure.data if trace.type == "scatter"]
    assert [(dot.x[0], dot.y[0]) for dot in dots] == [(8.0, 12.0)] * 2
    with pytest.raises(ValueError, match="labels: got none"):
        labels_figure(image, {}, at_mm=at[0])
