"""Lesion detection by heatmap regression from point annotations.

The public names below load on first use, so that ``import lesionkit`` costs next to nothing.

References
----------
C. Myers-Colet, J. Schroeter, D. L. Arnold, T. Arbel: Heatmap Regression for Lesion Detection using Pointwise
Annotations. MILLanD workshop at MICCAI 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazy_loader import attach

if TYPE_CHECKING:
    from lesionkit.checkpoints import load_checkpoint
    from lesionkit.detection import Detections, FitConfig, detect, fit_steps
    from lesionkit.io import read_volume, write_volume
    from lesionkit.labels import gaussian_heatmap, points_from_mask
    from lesionkit.matching import match_points
    from lesionkit.pipeline import detect_lesions
    from lesionkit.volume import Volume
    from lesionkit.widgets import explore

__version__ = "0.1.0"

__all__ = [
    "Detections",
    "FitConfig",
    "Volume",
    "__version__",
    "detect",
    "detect_lesions",
    "explore",
    "fit_steps",
    "gaussian_heatmap",
    "load_checkpoint",
    "match_points",
    "points_from_mask",
    "read_volume",
    "write_volume",
]

__getattr__, __dir__, _ = attach(
    __name__,
    submod_attrs={
        "checkpoints": ["load_checkpoint"],
        "detection": ["Detections", "FitConfig", "detect", "fit_steps"],
        "io": ["read_volume", "write_volume"],
        "labels": ["gaussian_heatmap", "points_from_mask"],
        "matching": ["match_points"],
        "pipeline": ["detect_lesions"],
        "volume": ["Volume"],
        "widgets": ["explore"],
    },
)
