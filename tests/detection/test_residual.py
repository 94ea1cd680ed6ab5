"""What maps are read: types, layouts, sizes, NaN and infinities, and how much memory it takes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rendered import UNIT, crowded, matched, render, scattered

from lesionkit.detection import FitConfig, detect
from lesionkit.simulate import crowded_field


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F", "view"])
def test_not_finite_voxels_are_named(bad, dtype, order):
    heatmap = render([(10, 10, 10)], (20, 30, 24)).astype(dtype)
    heatmap[11, 3, 7] = heatmap[4, 5, 6] = bad
    heatmap = {"C": heatmap, "F": np.asfortranarray(heatmap), "view": np.repeat(heatmap, 2, 2)[..., ::2]}[order]
    with pytest.raises(ValueError, match=r"voxel \(4, 5, 6\)"):
        detect(heatmap)


@pytest.mark.parametrize("shape", [(0, 5, 5), (5, 0), (4, 4, 4), (1, 1, 1), (1, 1), (2, 2, 2), (1, 9), (7, 1, 1)])
def test_empty_maps_give_an_empty_result(shape):
    for value in (0.0, -1.0):
        found = detect(np.full(shape, value))
        assert found.mu.shape == (0, len(shape))
        assert found.covariance.shape == (0, len(shape), len(shape))
        assert found.alpha.shape == found.alpha_window.shape == found.alpha_se.shape == (0,)
        assert len(found.to_frame()) == 0
        assert found.steps == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_voxel_thick_volume_is_its_slice(axis):
    flat = render([(10.2, 12.4), (22.0, 8.5)], (30, 26), 1.2, [1.0, 0.6])
    plane, thick = detect(flat, FitConfig(sigma=1.2)), detect(np.expand_dims(flat, axis), FitConfig(sigma=1.2))
    np.testing.assert_allclose(np.delete(thick.mu, axis, 1), plane.mu)
    np.testing.assert_allclose(thick.alpha, plane.alpha)
    assert (thick.mu[:, axis] == 0).all()
    np.testing.assert_allclose(thick.mu_se[:, axis], 12**-0.5)
    np.testing.assert_allclose(np.abs(thick.residual()).max(), np.abs(plane.residual()).max())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
def test_float_types(dtype):
    points = [(10.2, 11.0, 9.7)]
    heatmap = render(points, (20, 22, 24)).astype(dtype)
    matched(detect(heatmap), points, 1.0, atol=2e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_integer_maps(dtype):
    points = [(10.2, 11.0, 9.7)]
    heatmap = np.rint(render(points, (20, 22, 24), alpha=200 / UNIT)).astype(dtype)
    matched(detect(heatmap, FitConfig(scale="peak", min_alpha=10.0)), points, 200, atol=1.0)


def test_boolean_map():
    heatmap = np.zeros((9, 9, 9), bool)
    heatmap[4, 4, 4] = True
    assert len(detect(heatmap)) <= 1


def test_layout_does_not_matter_and_input_is_not_changed(tmp_path: Path):
    heatmap = crowded()
    expected = detect(heatmap)
    padded = np.zeros((40, 80, 40))
    padded[2:38, 3:75:2, 1:37] = heatmap
    mapped = np.memmap(tmp_path / "map.raw", heatmap.dtype, "w+", shape=heatmap.shape, order="F")
    mapped[:] = heatmap
    reverse = np.ascontiguousarray(heatmap[::-1])[::-1]
    for view in (np.asfortranarray(heatmap), padded[2:38, 3:75:2, 1:37], mapped, reverse):
        before = np.array(view)
        view.flags.writeable = False
        found = detect(view)
        np.testing.assert_allclose(found.mu, expected.mu, atol=1e-7)
        np.testing.assert_allclose(found.alpha, expected.alpha, atol=1e-7)
        np.testing.assert_array_equal(view, before)


@pytest.mark.parametrize("kind", ["lesions", "noise", "constant"])
def test_at_most_one_copy_of_the_map_is_made(kind):
    rng = np.random.default_rng(11)
    heatmap = render(scattered(20, (64, 96, 96), rng), (64, 96, 96), dtype=np.float32)
    heatmap = {"lesions": heatmap, "noise": rng.random(heatmap.shape, np.float32), "constant": np.ones_like(heatmap)}[
        kind
    ]
    tracemalloc.start()
    try:
        detect(heatmap)
        assert tracemalloc.get_traced_memory()[1] < heatmap.nbytes
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_in_a_crowd():
    heatmap = crowded_field(300, (64, 96, 96), noise=0.01, rng=np.random.default_rng(0)).heatmap
    tracemalloc.start()
    try:
        assert len(detect(heatmap, FitConfig(min_alpha=0.01, max_lesions=400))) > 200
        assert tracemalloc.get_traced_memory()[1] < heatmap.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("heatmap", "error"),
    [(np.zeros((3, 3), complex), TypeError), (np.zeros(4), ValueError), (np.zeros((2,) * 4), ValueError)],
)
def test_wrong_maps_are_refused(heatmap, error):
    with pytest.raises(error, match="heatmap must"):
        detect(heatmap)
