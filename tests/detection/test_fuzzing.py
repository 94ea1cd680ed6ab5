"""A thousand odd maps."""

from __future__ import annotations

import os

import numpy as np
import pytest
from rendered import render

from lesionkit.detection import FitConfig, detect
from lesionkit.detection.records import lesions_after


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
    # LESIONKIT_FUZZ_N asks for more maps than the 1,000 that every run makes
    for seed in range(int(os.environ.get("LESIONKIT_FUZZ_N", "1000"))):
        rng = np.random.default_rng(seed)
        heatmap = adversarial(rng)
        config = FitConfig(
            sigma=float(rng.choice([0.7, 1.0, 1.6])),
            mode=str(rng.choice(["joint", "paper"])),
            min_alpha=float(rng.choice([0.01, 0.1])),
            window=int(rng.choice([3, 5, 7])),
            max_lesions=int(rng.choice([1, 8, 30])),
            scale=str(rng.choice(["mass", "peak"])),
            width=str(rng.choice(["fixed", "free"])),
        )
        if not np.isfinite(heatmap).all():
            with pytest.raises(ValueError, match="must be finite"):
                detect(heatmap, config)
            continue
        found = detect(heatmap, config)
        assert len(found) <= config.max_lesions, seed
        assert len(found.steps) <= 2 * config.max_lesions + 10, seed
        assert np.isfinite(found.mu).all(), seed
        assert np.isfinite(found.alpha).all(), seed
        assert not np.isnan(found.covariance).any(), seed
        assert (found.alpha >= config.min_alpha * (1 - 1e-9)).all(), seed
        assert tuple(lesions_after(found.steps)) == found.found, seed
