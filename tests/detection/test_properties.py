"""What holds for every map."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered import render

from lesionkit.detection import FitConfig, detect


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
