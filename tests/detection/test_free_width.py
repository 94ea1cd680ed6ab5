"""Peaks wider than their label: one lesion each, with all of its mass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import matched, render, scattered

from lesionkit.detection import FitConfig, detect, fit_config

FREE = FitConfig(width="free")


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([(44, 40, 42), (44, 42)]), st.floats(1.0, 2.9), st.floats(0.3, 1.2), st.integers(0, 99))
def test_a_broad_peak_is_one_lesion_with_all_of_its_mass(shape, width, alpha, seed):
    centre = np.array(shape) / 2 + np.random.default_rng(seed).uniform(-1, 1, len(shape))
    found = detect(render([centre], shape, width, alpha), FREE)
    matched(found, [centre], alpha, atol=0.02 * alpha)
    np.testing.assert_allclose(found.width, width, rtol=0.01)
    assert len(found.steps) == 1


def test_a_broad_peak_with_noise_keeps_its_mass_where_a_fixed_width_loses_it():
    heatmap = render([(20.3, 19.8, 21.0)], (42, 42, 42), 2.0)
    heatmap += 0.01 * heatmap.max() * np.random.default_rng(0).standard_normal(heatmap.shape)
    matched(detect(heatmap, FREE), [(20.3, 19.8, 21.0)], 1.0, atol=0.02)
    assert detect(heatmap, fit_config(1.0)).alpha.max() < 0.3


@pytest.mark.parametrize("apart", [3.0, 4.0, 6.0])
def test_neighbours_of_different_width_are_both_found(apart):
    points = [(20.0, 20.0, 20.0), (20.0, 20.4, 20.0 + apart)]
    heatmap = render(points[:1], (42, 42, 50)) + render(points[1:], (42, 42, 50), 2.0, 0.8)
    found = detect(heatmap, FREE)
    matched(found, points, [1.0, 0.8], atol=1e-3)
    np.testing.assert_allclose(np.sort(found.width), [1.0, 2.0], atol=1e-3)
    np.testing.assert_allclose(found.residual(), 0.0, atol=1e-6)
    np.testing.assert_array_equal(found.replay(-1).residual, found.residual())


@pytest.mark.parametrize("sigma", [1.25, (1.5, 1.0, 0.8)])
def test_on_peaks_as_wide_as_the_label_free_and_fixed_agree(sigma):
    rng = np.random.default_rng(1)
    heatmap = render(scattered(8, (60, 60, 60), rng, apart=6), (60, 60, 60), sigma, rng.uniform(0.3, 1.0, 8))
    fixed, free = detect(heatmap, FitConfig(sigma=sigma)), detect(heatmap, FitConfig(sigma=sigma, width="free"))
    np.testing.assert_allclose(free.mu, fixed.mu, atol=1e-5)
    np.testing.assert_allclose(free.alpha, fixed.alpha, atol=1e-5)
    np.testing.assert_allclose(free.to_frame()["width"], 1.0, atol=1e-5)
    assert (fixed.width == 1.0).all()


def test_the_standard_error_of_a_free_alpha_matches_the_scatter():
    rng = np.random.default_rng(2)
    clean = render([(16.2, 16.4, 15.9)], (32, 32, 32), 1.6)
    config = FitConfig(width="free", max_lesions=1)
    found = [detect(clean + 0.0005 * rng.standard_normal(clean.shape), config) for _ in range(100)]
    np.testing.assert_allclose(np.mean([f.alpha_se[0] for f in found]), np.std([f.alpha[0] for f in found]), rtol=0.25)
