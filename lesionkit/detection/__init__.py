"""Fit and subtract: a predicted heatmap in, lesions with existence probabilities out (paper, section 3.2). NumPy only.

`search` holds the loop, `config` what it is told and `records` what it leaves behind, `residual` where to look next,
`window` the fit of one Gaussian, `group` that of several, `lesions` what is kept and the joint refit, `width` an
unknown sigma, `parallel` whole cohorts.
"""

from __future__ import annotations

from lesionkit.detection.config import FitConfig, fit_config
from lesionkit.detection.parallel import FailedCase, detect_many
from lesionkit.detection.records import Detections, FitStep, Refit, Replay
from lesionkit.detection.search import detect, fit_steps
from lesionkit.detection.width import SigmaEstimate, estimate_sigma

__all__ = [
    "Detections",
    "FailedCase",
    "FitConfig",
    "FitStep",
    "Refit",
    "Replay",
    "SigmaEstimate",
    "detect",
    "detect_many",
    "estimate_sigma",
    "fit_config",
    "fit_steps",
]
