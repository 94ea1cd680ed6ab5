"""Maps with known lesions, and what is expected of them."""

from __future__ import annotations

import numpy as np

from lesionkit.detection import Detections
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


def crowded(seed=4, shape=(36, 36, 36), n=14):
    rng = np.random.default_rng(seed)
    heatmap = render(rng.uniform(4, 31, (n, 3)), shape, 1.0, rng.uniform(0.3, 1.0, n))
    return heatmap + 0.0008 * rng.standard_normal(shape)


def matched(found: Detections, points, alpha, *, atol=1e-4):
    points, alpha = np.asarray(points, float), np.broadcast_to(np.asarray(alpha, float), len(points))
    assert len(found) == len(points)
    distance = np.linalg.norm(found.mu[:, None] - points, axis=2)
    nearest = distance.argmin(0)
    assert sorted(nearest) == list(range(len(points)))
    np.testing.assert_allclose(found.mu[nearest], points, atol=atol)
    np.testing.assert_allclose(found.alpha[nearest], alpha, atol=atol)
