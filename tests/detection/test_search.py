"""Known answers: lesions, pairs, borders, hot voxels, plateaus, shells."""

from __future__ import annotations

import numpy as np
import pytest
from rendered import UNIT, crowded, matched, render, scattered
from scipy.optimize import curve_fit

from lesionkit.detection import FitConfig, detect, fit_config, fit_steps
from lesionkit.detection.records import lesions_after, subtract
from lesionkit.simulate import crowded_field


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


def test_steps_are_those_of_detect():
    heatmap = crowded(5)
    steps = list(fit_steps(heatmap))
    found = detect(heatmap)
    assert [s.voxel for s in steps] == [s.voxel for s in found.steps]
    assert tuple(lesions_after(tuple(steps))) == found.found


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


@pytest.mark.parametrize("shape", [(64, 64, 64), (110, 110)])
def test_a_thin_shell_is_not_a_hundred_lesions(shape):
    radius = np.sqrt(sum((g - (n - 1) / 2) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    found = detect(0.15 * np.exp(-0.5 * (radius - 0.3 * shape[0]) ** 2))
    assert found.stopped == "misfit"
    assert "misfit" in found.flags
    assert len(found) < 30


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_a_crowd_is_no_misfit(noise):
    scene = crowded_field(60, (40, 40, 40), noise=noise, rng=np.random.default_rng(0))
    found = detect(scene.heatmap)
    assert "misfit" not in found.flags
    assert len(found) > 55


def test_a_broad_peak_is_one_lesion_whose_shell_neither_ends_the_search_nor_is_tried_voxel_by_voxel():
    """As networks predict a large lesion whose centre is uncertain: what is left around it is merged into it."""
    broad = 3 * render([(16.2, 15.7, 16.4)], (32, 32, 32), 2.0)
    faint = render([(26.0, 26.4, 5.8)], (32, 32, 32), 1.25, 0.2)
    found = detect(broad + faint, fit_config(1.25))
    np.testing.assert_allclose(found.mu, [(16.2, 15.7, 16.4), (26.0, 26.4, 5.8)], atol=0.1)
    assert found.found[0] == 0
    merged = [step for step in found.steps if step.status == "merged"]
    assert all(step.drops == () for step in found.steps)
    assert 1 < len(merged) < 0.15 * np.count_nonzero(broad > 0.1 * UNIT / 1.25**3)
