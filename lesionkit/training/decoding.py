"""From a predicted map to candidates, as the label that was learned wants it, and the threshold that is best.

In: predicted maps of validation cases. Out: candidates by case, and the operating point with the best F1 (paper,
section 4: heatmaps by fit and subtract, all other labels by connected components of the map above tau).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lesionkit.components import ComponentConfig, detect_components
from lesionkit.detection import detect, fit_config
from lesionkit.inference import predict_array
from lesionkit.metrics import (
    CasePoints,
    ScoreTable,
    check_validation,
    choose_threshold,
    precision_recall,
    score_points,
)
from lesionkit.model import UNet
from lesionkit.training.config import TrainConfig
from lesionkit.training.data import LoadedCase

TAUS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Binarisation thresholds that are tried, in units of the label's peak; 0.5 stands where no lesion is found at any."""


def case_points(
    case: LoadedCase,
    voxels: Float[np.ndarray, "n 3"],
    score: Float[np.ndarray, " n"],
    unfitted: Float[np.ndarray, " n"] | None = None,
) -> CasePoints:
    """Put candidates, in mm, beside the truth of their case."""
    return CasePoints(
        predicted=voxels @ case.affine[:3, :3].T + case.affine[:3, 3],
        score=score,
        true=case.points_mm,
        sizes=case.sizes,
        subject=case.subject,
        split=case.split,
        unfitted=unfitted,
    )


def decode_case(
    prediction: Float[np.ndarray, "i j k"], case: LoadedCase, config: TrainConfig
) -> tuple[CasePoints, ...]:
    """Return all candidates of a case: one table for a heatmap, which alpha orders; for other labels one a tau."""
    if config.label == "heatmap":
        found = detect(prediction * np.float32(config.peak), fit_config(config.sigma))
        return (case_points(case, found.mu, found.alpha, found.alpha_window),)
    parts = (detect_components(prediction, ComponentConfig.for_label(config.label, tau)) for tau in TAUS)
    return tuple(case_points(case, part.points, part.score) for part in parts)


def detect_case(model: UNet, case: LoadedCase, config: TrainConfig, *, device: str = "cpu") -> tuple[CasePoints, ...]:
    """Predict and decode: what `operating_point` starts from."""
    prediction = predict_array(model, case.image, case.mask, window=config.window, device=device)
    return decode_case(prediction, case, config)


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """The threshold with the best F1 on some cases, and what it gives there."""

    threshold: float
    """Smallest alpha of a heatmap's lesion, or tau for connected components."""
    scores: ScoreTable

    @property
    def rates(self) -> dict[str, float]:
        """F1, precision and recall over all lesions; 0 where one is undefined."""
        pooled = self.scores.pooled
        values = {"f1": pooled.f1, "precision": pooled.precision, "recall": pooled.recall}
        return {name: float(np.nan_to_num(value)) for name, value in values.items()}


def operating_point(found: Sequence[tuple[CasePoints, ...]], config: TrainConfig) -> OperatingPoint:
    """Choose the threshold on validation cases: of alpha, or of the map for what has no alpha."""
    gate = config.max_distance_mm
    if config.label == "heatmap":
        cases = [one for (one,) in found]
        threshold = alpha_threshold(cases, gate)
        return OperatingPoint(threshold, score_points(cases, threshold, max_distance=gate))
    return best_tau([[case[n] for case in found] for n in range(len(TAUS))], gate)


def alpha_threshold(validation: Sequence[CasePoints], gate: float) -> float:
    """Choose the alpha with the best F1; 1/2 for a network that has not found a single lesion yet."""
    check_validation(validation, what="a threshold")
    hits = precision_recall(validation, max_distance=gate)["tp"].any()
    return choose_threshold(validation, max_distance=gate) if hits else 0.5


def best_tau(groups: Sequence[Sequence[CasePoints]], gate: float) -> OperatingPoint:
    """Choose among `TAUS`, each with its group of validation cases; of equally good ones the nearest to 1/2."""
    check_validation([case for group in groups for case in group], what="a threshold")
    tried = [
        OperatingPoint(tau, score_points(group, 0.0, max_distance=gate))
        for tau, group in zip(TAUS, groups, strict=True)
    ]
    return max(tried, key=lambda point: (point.rates["f1"], -abs(point.threshold - 0.5)))
