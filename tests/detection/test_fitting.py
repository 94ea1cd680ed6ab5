"""Least squares in windows."""

from __future__ import annotations

import numpy as np
import pytest

from lesionkit.detection.fitting import FEW, fit_windows


@pytest.mark.parametrize("shape", [(7, 7, 7), (7, 5, 4), (1, 7, 7), (3, 7, 2), (1, 1, 7)])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_one_window_is_fitted_like_many(shape, noise):
    rng = np.random.default_rng(sum(shape))
    sigma = np.where(np.array(shape) == 1, np.inf, rng.uniform(0.7, 1.6, 3))
    start = np.array(shape) // 2
    mu = start + rng.uniform(-0.5, 0.5, (4 * FEW, 3))
    offsets = (np.indices(shape) - mu[:, :, None, None, None]) / sigma[:, None, None, None]
    windows = 0.4 * np.exp(-0.5 * (offsets**2).sum(1)) + noise * rng.standard_normal((len(mu), *shape))
    starts = np.repeat(start[None], len(mu), 0)
    together = fit_windows(windows, starts, sigma)
    alone = [fit_windows(windows[i : i + 1], starts[:1], sigma) for i in range(len(mu))]
    good = together.converged
    assert good.any()
    for name in ("mu", "amplitude", "covariance", "sse", "energy", "iterations", "converged"):
        values = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(values[good], getattr(together, name)[good], rtol=1e-6, atol=1e-9)
