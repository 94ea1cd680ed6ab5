"""Fit-and-subtract: known answers, odd maps, properties."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from lesionkit.detection import Detections, FailedCase, FitConfig, detect, detect_many, estimate_sigma, fit_steps
from lesionkit.detection.records import lesions_after, subtract
from lesionkit.labels import gaussian_heatmap

UNIT = (2.0 * np.pi) ** -1.5  # peak of a 3-D Gaussian of mass 1 and sigma 1


def render(points, shape, sigma=1.0, alpha=1.0, dtype=np.float64):
    points = np.asarray(points, float).reshape(-1, len(shape))
    weights = np.broadcast_to(np.asarray(alpha, float), len(points))
    return gaussian_heatmap(points, shape, sigma, weights=weights, border="truncate", dtype=dtype)


def scattered(n, shape, rng, apart=9.0, margin=5.0):
    points = np.zeros((0, len(shape)))
    while len(points) < n:
        new = rng.uniform(margin, np.array(shape) - 1 - margin)
        if not len(points) or np.linalg.norm(points - new, axis=1).min() > apart:
            points = np.vstack([points, new])
    return points


def matched(found: Detections, points, alpha, *, atol=1e-4):
    points, alpha = np.asarray(points, float), np.broadcast_to(np.asarray(alpha, float), len(points))
    assert len(found) == len(points)
    distance = np.linalg.norm(found.mu[:, None] - points, axis=2)
    nearest = distance.argmin(0)
    assert sorted(nearest) == list(range(len(points)))
    np.testing.assert_allclose(found.mu[nearest], points, atol=atol)
    np.testing.assert_allclose(found.alpha[nearest], alpha, atol=atol)


# ---------------------------------------------------------------------- known answers
@pytest.mark.parametrize("mode", ["joint", "paper"])
@pytest.mark.parametrize(
    ("shape", "sigma"), [((40, 44), 1.0), ((32, 36, 30), 1.25), ((32, 36, 30), (1.5, 1.0, 0.8)), ((50, 40), (1.5, 0.9))]
)
def test_rendered_lesions_are_returned(mode, shape, sigma):
    rng = np.random.default_rng(1)
    points = scattered(4, shape, rng, apart=11.0)
    alpha = np.array([1.0, 0.8, 0.5, 0.3])
    matched(
        detect(render(points, shape, sigma, alpha), FitConfig(sigma=sigma, mode=mode, min_alpha=0.05)), points, alpha
    )


def test_paper_mode_equals_least_squares():
    rng = np.random.default_rng(2)
    heatmap = render([(10.3, 9.6, 11.2)], (21, 22, 23), 1.0, 0.7) + 0.001 * rng.standard_normal((21, 22, 23))
    found = detect(heatmap, FitConfig(mode="paper", max_lesions=1))
    box = found.steps[0].window
    grid = np.stack(np.meshgrid(*(np.arange(s.start, s.stop, dtype=float) for s in box), indexing="ij")).reshape(3, -1)

    def model(x, alpha, *mu):
        return alpha * UNIT * np.exp(-0.5 * ((x - np.array(mu)[:, None]) ** 2).sum(0))

    best, covariance = curve_fit(
        model, grid, heatmap[box].ravel(), p0=(1.0, *found.steps[0].voxel), xtol=1e-13, ftol=1e-13, gtol=1e-13
    )
    assert np.abs(found.mu[0] - best[1:]).max() < 1e-5
    assert abs(found.alpha[0] - best[0]) < 1e-6
    np.testing.assert_allclose(found.alpha_se[0], np.sqrt(covariance[0, 0]), rtol=1e-3)
    np.testing.assert_allclose(found.mu_se[0], np.sqrt(np.diag(covariance)[1:]), rtol=1e-3)


def test_paper_mode_follows_section_3_2_to_the_letter():
    heatmap = render([(8, 8, 8), (8, 8, 16.4)], (20, 20, 26), 1.0, [1.0, 0.6])
    left = heatmap.copy()
    for step in fit_steps(heatmap, FitConfig(mode="paper", min_alpha=0.01)):
        assert step.voxel == np.unravel_index(left.argmax(), left.shape)
        assert step.value == pytest.approx(left.max(), rel=1e-6)
        assert step.alpha_window == pytest.approx(left[step.window].sum(), rel=1e-6)
        left = subtract(left, step.mu[None], np.array([step.alpha]), (1.0, 1.0, 1.0))
        assert not step.refits
        assert not step.drops


def test_a_close_pair_is_resolved_by_the_joint_refit_only():
    points, alpha = [(12.0, 12.1, 12.3), (12.2, 12.0, 14.2)], [1.0, 0.8]
    heatmap = render(points, (25, 25, 27), 1.0, alpha)
    matched(detect(heatmap), points, alpha, atol=1e-3)
    greedy = detect(heatmap, FitConfig(mode="paper", min_alpha=0.1))
    assert np.abs(np.sort(greedy.alpha)[-1] - 1.0) > 0.2


def test_lesion_at_the_border_is_found():
    points = [(-0.8, 10.0, 10.2), (10.0, 19.3, 10.0), (0.1, 0.2, 19.0)]
    heatmap = render(points, (20, 20, 20), 1.0, 0.8)
    matched(detect(heatmap), points, 0.8)
    assert all("border" in flags for flags in detect(heatmap).lesion_flags)


def test_neighbour_does_not_add_to_alpha():
    heatmap = render([(12, 12, 10), (12, 12, 14)], (25, 25, 25), 1.0, [1.0, 0.5])
    found = detect(heatmap)
    np.testing.assert_allclose(found.alpha, [1.0, 0.5], atol=1e-4)
    assert found.alpha_window[0] > 1.1


def test_one_hot_voxel_does_not_end_the_search():
    heatmap = render([(12, 12, 12)], (25, 25, 25), 1.0, 0.3)
    heatmap[3, 3, 3] = 0.03
    found = detect(heatmap)
    matched(found, [(12, 12, 12)], 0.3)
    assert found.steps[0].status == "weak"
    assert "hot" in found.steps[0].flags
    assert len(detect(heatmap, FitConfig(patience=0))) == 0


def test_peak_scaled_maps():
    heatmap = render([(12, 12, 12)], (25, 25, 25), 1.0, 0.9 / UNIT)
    matched(detect(heatmap, FitConfig(scale="peak")), [(12, 12, 12)], 0.9)
    assert "peak_scaled?" in detect(heatmap).flags
    assert detect(heatmap, FitConfig(scale="peak")).alpha_window[0] == pytest.approx(0.9, abs=0.01)


def test_standard_errors_match_the_scatter():
    rng = np.random.default_rng(3)
    clean = render([(10.2, 10.4, 9.9)], (20, 20, 20), 1.0, 0.7)
    found = [detect(clean + 0.0013 * rng.standard_normal(clean.shape), FitConfig(max_lesions=1)) for _ in range(300)]
    scatter = np.std([f.mu[0] for f in found], axis=0)
    np.testing.assert_allclose(np.mean([f.mu_se[0] for f in found], axis=0), scatter, rtol=0.15)
    np.testing.assert_allclose(np.mean([f.alpha_se[0] for f in found]), np.std([f.alpha[0] for f in found]), rtol=0.15)


# ---------------------------------------------------------------------- the records
def crowded(seed=4, shape=(36, 36, 36), n=14):
    rng = np.random.default_rng(seed)
    heatmap = render(rng.uniform(4, 31, (n, 3)), shape, 1.0, rng.uniform(0.3, 1.0, n))
    return heatmap + 0.0008 * rng.standard_normal(shape)


def test_replay_shows_every_moment():
    heatmap = crowded()
    found = detect(heatmap)
    assert any(step.refits for step in found.steps)
    for i in range(len(found.steps)):
        moment = found.replay(i)
        expected = subtract(heatmap, moment.mu, moment.alpha, found.sigma)
        np.testing.assert_array_equal(moment.residual, expected)
        part = (slice(3, 20), slice(0, 36), slice(17, 18))
        np.testing.assert_allclose(found.replay(i, region=part).residual, expected[part], atol=1e-12)
        if i + 1 < len(found.steps):  # the next maximum is that of this residual
            step = found.steps[i + 1]
            assert moment.residual[step.voxel] == pytest.approx(step.value, abs=1e-6)
    last = found.replay(-1)
    np.testing.assert_array_equal(last.mu, found.mu)
    np.testing.assert_allclose(last.alpha, found.alpha)
    assert last.found == found.found
    with pytest.raises(IndexError, match="does not exist"):
        found.replay(len(found.steps))


def test_steps_are_those_of_detect():
    heatmap = crowded(5)
    steps = list(fit_steps(heatmap))
    found = detect(heatmap)
    assert [s.voxel for s in steps] == [s.voxel for s in found.steps]
    assert tuple(lesions_after(tuple(steps))) == found.found


def test_frame_filter_and_ellipsoids():
    affine = np.diag([2.0, 1.0, 0.5, 1.0])
    affine[:3, 3] = (-10.0, 3.0, 1.0)
    found = detect(crowded())
    frame = found.to_frame(affine)
    assert list(frame.columns[:7]) == ["x", "y", "z", "i", "j", "k", "alpha"]
    np.testing.assert_allclose(frame[["x", "y", "z"]], found.mu * [2.0, 1.0, 0.5] + affine[:3, 3])
    np.testing.assert_allclose(frame[["x_se", "y_se", "z_se"]], found.mu_se * [2.0, 1.0, 0.5])
    assert (found.filter(0.5).alpha >= 0.5).all()
    assert len(found.filter(0.5)) == np.count_nonzero(found.alpha >= 0.5)
    axes, directions = found.ellipsoids_mm(affine, level=0.95)
    rebuilt = directions @ (axes[:, :, None] ** 2 / 7.8147 * directions.transpose(0, 2, 1))
    np.testing.assert_allclose(rebuilt, found.covariance_mm(affine), rtol=1e-3, atol=1e-12)
    assert list(detect(np.zeros((5, 6))).to_frame(np.eye(3)).columns[:4]) == ["x", "y", "i", "j"]


# ---------------------------------------------------------------------- odd maps
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


@pytest.mark.parametrize("mode", ["joint", "paper"])
@pytest.mark.parametrize("shape", [(48, 48, 48), (60, 60), (3, 40, 40)])
def test_constant_map_has_no_lesions(mode, shape):
    found = detect(np.full(shape, 0.2), FitConfig(mode=mode))
    assert len(found) == 0
    assert "plateau" in found.flags
    assert len(found.steps) <= 3


def test_saturated_blob_does_not_hide_lesions():
    heatmap = render([(30.0, 30.0, 10.0)], (40, 40, 40))
    heatmap[5:20, 5:20, 20:35] = 0.5
    found = detect(heatmap, FitConfig(patience=1))
    assert np.linalg.norm(found.mu - [30, 30, 10], axis=1).min() < 1e-3
    assert "saturated" in found.flags
    assert len(found) < 30


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


@pytest.mark.parametrize(
    ("heatmap", "error"),
    [(np.zeros((3, 3), complex), TypeError), (np.zeros(4), ValueError), (np.zeros((2,) * 4), ValueError)],
)
def test_wrong_maps_are_refused(heatmap, error):
    with pytest.raises(error, match="heatmap must"):
        detect(heatmap)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": 0}, {"sigma": (1, -1)}, {"sigma": "guess"}, {"sigma": np.nan}, {"window": 4}, {"window": 1},
        {"window": 7.0}, {"min_alpha": 0}, {"max_lesions": 0}, {"mode": "fast"}, {"scale": "max"}, {"patience": -1},
        {"guard": np.inf}, {"link": 0}, {"min_separation": -1}, {"max_group": 0},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitConfig(**wrong)


def test_sigma_needs_as_many_axes_as_the_map():
    with pytest.raises(ValueError, match="sigma"):
        detect(np.zeros((4, 4)), FitConfig(sigma=(1, 1, 1)))


# ---------------------------------------------------------------------- sigma
@pytest.mark.parametrize("sigma", [0.85, 1.0, 1.3, (1.8, 1.2, 0.9)])
def test_shared_sigma_is_estimated(sigma):
    rng = np.random.default_rng(7)
    heatmap = render(scattered(12, (60, 60, 60), rng), (60, 60, 60), sigma, rng.uniform(0.4, 1.0, 12))
    heatmap += 0.01 * heatmap.max() * rng.standard_normal(heatmap.shape)
    start = 1.0 if np.ndim(sigma) == 0 else (1.5, 1.0, 0.75)
    result = estimate_sigma(heatmap, start=start)
    np.testing.assert_allclose(result.sigma, np.broadcast_to(sigma, 3), rtol=0.01)
    assert result.n_peaks >= 8
    assert 0 < result.standard_error[0] < 0.02
    assert np.abs(np.array(result.sigma) - sigma).max() < 4 * max(result.standard_error)


def test_estimated_sigma_mends_alpha():
    heatmap = render(scattered(6, (50, 50, 50), np.random.default_rng(8)), (50, 50, 50), 1.3)
    assert detect(heatmap).alpha.max() < 0.8
    found = detect(heatmap, FitConfig(sigma="estimate"))
    np.testing.assert_allclose(found.alpha, 1.0, atol=0.01)
    assert estimate_sigma(np.zeros((9, 9, 9))).n_peaks == 0


# ---------------------------------------------------------------------- cohorts
def load_map():
    return render([(8, 8, 8)], (16, 16, 16))


def load_nothing():
    raise OSError("no such map")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_failing_map_does_not_stop_the_others(n_jobs, capsys):
    results = detect_many([load_map, load_nothing, load_map()], n_jobs=n_jobs, progress=n_jobs == 1)
    assert isinstance(results[0], Detections)
    assert isinstance(results[2], Detections)
    assert isinstance(results[1], FailedCase)
    assert "no such map" in results[1].error
    assert results[1].number == 1
    matched(results[0], [(8, 8, 8)], 1.0)
    np.testing.assert_allclose(results[0].replay(0).residual, 0.0, atol=1e-6)


def test_importing_the_detector_loads_nothing_heavy():
    heavy = "('torch', 'scipy', 'pandas', 'joblib', 'plotly', 'rich', 'jaxtyping')"
    code = f"import sys, lesionkit.detection; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- properties
@st.composite
def scenes(draw, ndim=st.sampled_from([2, 3])):
    n_axes = draw(ndim)
    shape = tuple(draw(st.integers(9, 28)) for _ in range(n_axes))
    n = draw(st.integers(0, 5))
    sigma = draw(st.sampled_from([0.8, 1.0, 1.5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = rng.uniform(-0.5, np.array(shape) - 0.5, (n, n_axes))
    heatmap = render(points, shape, sigma, rng.uniform(0.2, 1.2, n))
    noise = draw(st.sampled_from([0.0, 0.01]))
    return heatmap + noise * max(heatmap.max(), 1e-3) * rng.standard_normal(shape), sigma


@settings(deadline=None, max_examples=40)
@given(scenes(), st.sampled_from(["joint", "paper"]))
def test_data_less_model_is_the_residual(scene, mode):
    heatmap, sigma = scene
    found = detect(heatmap, FitConfig(sigma=sigma, mode=mode, min_alpha=0.05))
    model = heatmap - found.residual()
    rendered = render(found.mu, heatmap.shape, sigma, found.alpha)
    np.testing.assert_allclose(model, rendered, atol=1e-7 * max(1.0, np.abs(rendered).max()))
    np.testing.assert_allclose(found.replay(-1).residual, found.residual(), atol=1e-12) if found.steps else None


@settings(deadline=None, max_examples=40)
@given(scenes(), st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_translation_moves_the_result_by_the_same(scene, shift):
    heatmap, sigma = scene
    shift = np.array(shift[: heatmap.ndim])
    around = [(9 + s, 9) for s in shift]
    config = FitConfig(sigma=sigma)
    a, b = detect(np.pad(heatmap, 9), config), detect(np.pad(heatmap, around), config)
    np.testing.assert_allclose(b.mu, a.mu + shift, atol=1e-6)
    np.testing.assert_allclose(b.alpha, a.alpha, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(scenes(st.just(3)), st.permutations(range(3)))
def test_order_of_axes_does_not_matter(scene, order):
    heatmap, sigma = scene
    config = FitConfig(sigma=sigma)
    a, b = detect(heatmap, config), detect(np.ascontiguousarray(heatmap.transpose(order)), config)
    np.testing.assert_allclose(b.mu, a.mu[:, order], atol=1e-4)
    np.testing.assert_allclose(b.alpha, a.alpha, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(scenes(), st.floats(0.2, 1.0))
def test_a_far_lesion_does_not_change_the_others(scene, alpha):
    heatmap, sigma = scene
    config = FitConfig(sigma=sigma, patience=20)  # a kept lesion in between resets the patience
    wide = np.pad(heatmap, [(9, 40), *[(9, 9)] * (heatmap.ndim - 1)])
    far = np.array([wide.shape[0] - 12.3, *[s / 2 for s in wide.shape[1:]]])
    a, b = detect(wide, config), detect(wide + render([far], wide.shape, sigma, alpha), config)
    assert len(b) == len(a) + 1
    others = np.linalg.norm(b.mu - far, axis=1) > 1.0
    order_a, order_b = np.lexsort(a.mu.round(3).T), np.lexsort(b.mu[others].round(3).T)
    np.testing.assert_allclose(b.mu[others][order_b], a.mu[order_a], atol=1e-5)
    np.testing.assert_allclose(b.alpha[others][order_b], a.alpha[order_a], atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(scenes(), st.sampled_from([0.5, 2.0, 100.0]))
def test_alpha_scales_with_the_map(scene, factor):
    heatmap, sigma = scene
    a = detect(heatmap, FitConfig(sigma=sigma, min_alpha=0.1))
    b = detect(heatmap * factor, FitConfig(sigma=sigma, min_alpha=0.1 * factor))
    np.testing.assert_allclose(b.mu, a.mu, atol=1e-6)
    np.testing.assert_allclose(b.alpha, a.alpha * factor, rtol=1e-5)


@pytest.mark.parametrize("mode", ["joint", "paper"])
def test_fits_made_ahead_do_not_change_the_steps(monkeypatch, mode):
    config = FitConfig(mode=mode, min_alpha=0.03, patience=3)
    for seed, n in ((1, 5), (2, 14), (3, 40), (4, 60), (5, 20)):
        heatmap = crowded(seed, (40, 44, 36), n)
        together = detect(heatmap, config)
        with monkeypatch.context() as patch:
            patch.setattr("lesionkit.detection.search.PREFETCH", 1)
            patch.setattr("lesionkit.detection.search.LEVELS", 1)
            one_by_one = detect(heatmap, config)
        assert [s.voxel for s in together.steps] == [s.voxel for s in one_by_one.steps]
        assert [s.status for s in together.steps] == [s.status for s in one_by_one.steps]
        np.testing.assert_allclose(together.mu, one_by_one.mu, atol=1e-6)
        np.testing.assert_allclose(together.alpha, one_by_one.alpha, atol=1e-6)


# ---------------------------------------------------------------------- fuzzing
def adversarial(rng):
    """One small map of a random kind: plateaus, rings, extremes, denormals, hot voxels, noise, crowds, not finite."""
    n_axes = int(rng.integers(2, 4))
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 7, 8, 11, 14], n_axes))
    grid = np.indices(shape)
    centre = rng.uniform(0, shape)
    radius = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
    size = rng.uniform(0.5, 8.0)
    heatmap = [
        lambda: np.full(shape, rng.choice([0.0, -1.0, 1e-3, 0.2, 7.0])),
        lambda: (radius < size) * 0.1,
        lambda: (np.abs(radius - size) < 0.7) * 0.1,
        lambda: np.exp(-0.5 * (radius - size) ** 2),
        lambda: rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 3),
        lambda: rng.random(shape),
        lambda: np.exp(3.0 * rng.standard_normal(shape)),
        lambda: (rng.random(shape) < 0.05) * rng.choice([0.05, 1.0, -1.0]),
        lambda: grid.sum(0) % 2 * 0.1,
        lambda: grid[0] * 0.01,
        lambda: render(rng.uniform(-1, shape, (int(rng.integers(1, 9)), n_axes)), shape, rng.uniform(0.6, 2.0)),
        lambda: np.minimum(render(rng.uniform(0, shape, (4, n_axes)), shape, 1.5, 4.0), 0.05),
        lambda: render(rng.uniform(0, shape, (3, n_axes)), shape) * 10.0 ** rng.choice([-310, -40, 38, 300]),
        lambda: np.round(render(rng.uniform(0, shape, (3, n_axes)), shape) * 50) / 50,
    ][rng.integers(14)]()
    heatmap = heatmap + rng.choice([0.0, 0.0, 1e-3, 0.1]) * rng.standard_normal(shape)
    if rng.random() < 0.05:
        heatmap.flat[rng.integers(heatmap.size)] = rng.choice([np.nan, np.inf, -np.inf])
    elif rng.random() < 0.3:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            heatmap = np.clip(heatmap, -6e4, 6e4).astype(
                rng.choice([np.float16, np.float32, np.int16, np.int64, np.bool_])
            )
    if rng.random() < 0.3:
        heatmap = np.asfortranarray(heatmap)
    if rng.random() < 0.3:
        heatmap = np.flip(heatmap, int(rng.integers(n_axes)))
    return heatmap


def test_no_map_breaks_the_search():
    # LESIONKIT_FUZZ_N asks for more maps than the 10,000 that every run makes
    for seed in range(int(os.environ.get("LESIONKIT_FUZZ_N", "10000"))):
        rng = np.random.default_rng(seed)
        heatmap = adversarial(rng)
        config = FitConfig(
            sigma=float(rng.choice([0.7, 1.0, 1.6])),
            mode=str(rng.choice(["joint", "paper"])),
            min_alpha=float(rng.choice([0.01, 0.1])),
            window=int(rng.choice([3, 5, 7])),
            max_lesions=int(rng.choice([1, 8, 30])),
            scale=str(rng.choice(["mass", "peak"])),
        )
        if not np.isfinite(heatmap).all():
            with pytest.raises(ValueError, match="must be finite"):
                detect(heatmap, config)
            continue
        found = detect(heatmap, config)
        assert len(found) <= config.max_lesions, seed
        assert len(found.steps) <= 2 * config.max_lesions + 74, seed
        assert np.isfinite(found.mu).all(), seed
        assert np.isfinite(found.alpha).all(), seed
        assert not np.isnan(found.covariance).any(), seed
        assert (found.alpha >= config.min_alpha * (1 - 1e-9)).all(), seed
        assert tuple(lesions_after(found.steps)) == found.found, seed
