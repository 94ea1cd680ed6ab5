"""Label rendering against filtering an impulse volume (SciPy), as the paper's text describes it, and MONAI's heatmaps.

`python -m benchmarks labels`
"""

from __future__ import annotations

import numpy as np

from benchmarks.timing import Row, interleaved
from lesionkit import gaussian_heatmap

SHAPE = (64, 192, 192)
"""The paper's volume."""


def rows(*, quick: bool = False) -> list[Row]:
    """Measure 5 lesions in the paper's volume, sigma 1."""
    from scipy.ndimage import gaussian_filter

    points = np.random.default_rng(0).uniform(8, 56, (5, 3))

    def by_filter() -> np.ndarray:
        impulses = np.zeros(SHAPE, np.float32)
        impulses[tuple(np.rint(points).astype(int).T)] = 1
        return gaussian_filter(impulses, 1.0)

    ours = lambda: gaussian_heatmap(points, SHAPE, 1.0)  # noqa: E731 (a row of functions)
    repeats = 5 if quick else 25
    seconds = interleaved({"ours": ours, "filter": by_filter}, repeats=repeats)
    ratio = seconds["filter"] / seconds["ours"]
    found = [
        Row("labels: 5 lesions, 64x192x192, against gaussian_filter", ">= 50x", f"{ratio:.0f}x", ratio >= 50),
        Row("labels: time", "", f"{1e3 * seconds['ours']:.2f} ms", None),
    ]
    try:
        import torch
        from monai.transforms import GenerateHeatmap
    except ImportError:
        return found
    render, tensor = GenerateHeatmap(sigma=1.0, spatial_shape=SHAPE), torch.from_numpy(points)
    # A turn of its own: MONAI's large temporaries change how the allocator serves everybody else.
    seconds = interleaved({"ours": ours, "monai": lambda: render(tensor)}, repeats=3)
    ratio = seconds["monai"] / seconds["ours"]
    found.append(Row("labels: against MONAI GenerateHeatmap", ">= 20x", f"{ratio:.0f}x", ratio >= 20))
    return found
