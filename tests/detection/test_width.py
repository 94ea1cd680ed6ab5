"""The shared sigma."""

from __future__ import annotations

import numpy as np
import pytest
from rendered import render, scattered

from lesionkit.detection import FitConfig, detect, estimate_sigma


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
