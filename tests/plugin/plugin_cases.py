"""Maps with a known answer, and how they come into a viewer."""

from __future__ import annotations

import numpy as np

from lesionkit.labels import gaussian_heatmap
from lesionkit.volume import Volume
from napari_lesionkit.placement import volume_layer
from napari_lesionkit.reader import heat_options

POINTS = np.array([(9.2, 20.1, 24.7), (9.4, 20.0, 28.4), (12.0, 33.2, 12.3)])
ALPHA = np.array([1.0, 0.7, 0.45])
SPACING = (3.0, 1.0, 2.0)
SIGMA = 1.25
TRUTH = np.array([(9.2, 20.1, 24.7), (4.0, 8.0, 30.0)])
"""One of the lesions, and one that the map does not show."""


def volume_of(points=POINTS, alpha=ALPHA, shape=(18, 44, 40), spacing=SPACING, sigma=SIGMA) -> Volume:
    heatmap = gaussian_heatmap(points, shape, sigma, weights=alpha, dtype=np.float32)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20.0, -30.0, 15.0)
    return Volume(heatmap, affine)


def add_heatmap(viewer, volume, **known):
    known = {"sigma": SIGMA, "threshold": 0.2, "truth_mm": volume.to_mm(TRUTH), "exact": True, **known}
    data, options, _ = volume_layer(volume, "heatmap", metadata=known, **heat_options(volume.data))
    return viewer.add_image(data, **options)
