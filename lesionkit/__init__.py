"""Lesion detection by heatmap regression from point annotations.

The public names below load on first use, so that ``import lesionkit`` costs next to nothing.

References
----------
C. Myers-Colet, J. Schroeter, D. L. Arnold, T. Arbel: Heatmap Regression for Lesion Detection using Pointwise
Annotations. MILLanD workshop at MICCAI 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesionkit._lazy import load_on_use

if TYPE_CHECKING:
    from lesionkit.detection import Detections, FitConfig, detect, fit_steps
    from lesionkit.io import read_volume, write_volume
    from lesionkit.labels import gaussian_heatmap, points_from_mask
    from lesionkit.matching import match_points
    from lesionkit.volume import Volume

__version__ = "0.1.0"

__all__ = [
    "Detections",
    "FitConfig",
    "Volume",
    "__version__",
    "detect",
    "fit_steps",
    "gaussian_heatmap",
    "match_points",
    "points_from_mask",
    "read_volume",
    "write_volume",
]

_HOME = {
    "Detections": "detection",
    "FitConfig": "detection",
    "Volume": "volume",
    "detect": "detection",
    "fit_steps": "detection",
    "gaussian_heatmap": "labels",
    "match_points": "matching",
    "points_from_mask": "labels",
    "read_volume": "io",
    "write_volume": "io",
}

__getattr__, __dir__ = load_on_use(__name__, _HOME)
