"""Detection metrics over a cohort.

In: one :class:`CasePoints` a patient (or ready :class:`~lesionkit.matching.Matching` objects). Out: scores at one
threshold, curves over all of them, the threshold that is best on validation, and what is said of a whole patient.

`cases` holds what is scored, `scores` the rates at one threshold with their confidence intervals, `curves` the rates
over thresholds and the choice of one, `patients` activity and lesion counts.
"""

from __future__ import annotations

from lesionkit.metrics.cases import SIZE_CLASSES, CasePoints, SizeClass, check_validation
from lesionkit.metrics.curves import choose_threshold, froc, froc_score, operating_points, precision_recall
from lesionkit.metrics.patients import (
    Activity,
    activity,
    activity_probability,
    count_distribution,
    lesion_counts,
)
from lesionkit.metrics.scores import Score, ScoreTable, SizeScore, score_cohort, score_points

__all__ = [
    "SIZE_CLASSES",
    "Activity",
    "CasePoints",
    "Score",
    "ScoreTable",
    "SizeClass",
    "SizeScore",
    "activity",
    "activity_probability",
    "check_validation",
    "choose_threshold",
    "count_distribution",
    "froc",
    "froc_score",
    "lesion_counts",
    "operating_points",
    "precision_recall",
    "score_cohort",
    "score_points",
]
