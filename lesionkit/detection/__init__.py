"""Fit and subtract: a predicted heatmap in, lesions with existence probabilities out (paper, section 3.2). NumPy only.

`search` holds the loop, `records` what it is told and what it leaves behind, `maxima` where to look next, `candidates`
the windows and their fits, `fitting`, `single` and `groups` the least squares, `kept` the joint refit, `width` an
unknown sigma, `parallel` whole cohorts.
"""

from __future__ import annotations

from lesionkit.detection.parallel import FailedCase, detect_many
from lesionkit.detection.records import Detections, FitConfig, FitStep, Refit, Replay, fit_config
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
