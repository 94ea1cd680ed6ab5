"""Rates over thresholds, FROC, and the threshold that is best on validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Real

from lesionkit.matching import Gate, rates
from lesionkit.metrics.cases import CasePoints, check_validation

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a patient at which sensitivities are averaged into one FROC score."""


def operating_points(
    scores: Real[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    *,
    n_true: int,
    thresholds: Real[np.ndarray, " t"] | None = None,
) -> pd.DataFrame:
    """Count hits and errors over thresholds, where it is known for each candidate whether it adds a hit.

    Parameters
    ----------
    scores
        Score of each candidate, of all patients.
    hits
        Whether it adds a hit: :meth:`CasePoints.gains`, or the pairs of :func:`~lesionkit.matching.match_in_mask`.
    n_true
        Number of true lesions.
    thresholds
        Thresholds to evaluate; None: every score that occurs, which is every distinct operating point.

    Returns
    -------
    pandas.DataFrame
        One row a threshold, falling: threshold, tp, fp, fn, precision, recall, f1.
    """
    levels = np.unique(scores if thresholds is None else np.asarray(thresholds, dtype=np.float64))[::-1]
    kept, found = (len(s) - np.searchsorted(np.sort(s), levels, side="left") for s in (scores, scores[hits]))
    return _counts_frame(levels, found, kept - found, n_true - found)


def precision_recall(
    cases: Sequence[CasePoints],
    *,
    thresholds: Real[np.ndarray, " t"] | None = None,
    max_distance: float = 6.0,
    gate: Gate = "before",
) -> pd.DataFrame:
    """Compute pooled counts and rates over thresholds.

    Parameters
    ----------
    cases
        One entry a patient.
    thresholds
        Thresholds to evaluate; None: every score that occurs, which is every distinct operating point.
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    pandas.DataFrame
        One row a threshold, falling: threshold, tp, fp, fn, precision, recall, f1.
    """
    scores = np.concatenate([np.empty(0), *(case.score for case in cases)])
    n_true = sum(len(case.true) for case in cases)
    if gate == "before":  # one pass gives the counts at every threshold
        gains = [case.gains(max_distance=max_distance) for case in cases]
        hits = np.concatenate([np.empty(0, dtype=bool), *gains])
        return operating_points(scores, hits, n_true=n_true, thresholds=thresholds)
    levels = np.unique(scores if thresholds is None else np.asarray(thresholds, dtype=np.float64))[::-1]
    kept = len(scores) - np.searchsorted(np.sort(scores), levels, side="left")
    tp = np.zeros(len(levels), dtype=np.int64)
    for case in cases:  # its assignment changes only where it gains a candidate
        n_kept = len(case.score) - np.searchsorted(np.sort(case.score), levels, side="left")
        changes = np.flatnonzero(np.diff(n_kept, prepend=0))
        found = [case.match(levels[place], max_distance=max_distance, gate=gate).tp for place in changes]
        tp += np.repeat([0, *found], np.diff([0, *changes, len(levels)]))
    return _counts_frame(levels, tp, kept - tp, n_true - tp)


def froc(cases: Sequence[CasePoints], *, max_distance: float = 6.0) -> pd.DataFrame:
    """Compute the free-response ROC: sensitivity against false positives a patient.

    Parameters
    ----------
    cases
        One entry a patient, those without lesions included.
    max_distance
        Largest distance of a hit, mm; far pairs are excluded before the assignment.

    Returns
    -------
    pandas.DataFrame
        One row a threshold, falling: threshold, fp_per_patient, sensitivity; the first row keeps nothing (threshold
        infinity).

    Raises
    ------
    ValueError
        If there is no patient.
    """
    if not cases:
        raise ValueError("cases: got none, wanted at least one patient")
    table = precision_recall(cases, max_distance=max_distance)
    columns = {
        "threshold": table["threshold"],
        "fp_per_patient": table["fp"] / len(cases),
        "sensitivity": table["recall"],
    }
    start = {"threshold": [np.inf], "fp_per_patient": [0.0], "sensitivity": [0.0]}
    return pd.concat([pd.DataFrame(start), pd.DataFrame(columns)], ignore_index=True)


def froc_score(table: pd.DataFrame, at: Sequence[float] = FROC_RATES) -> float:
    """Average the sensitivity over given numbers of false positives a patient.

    Parameters
    ----------
    table
        As :func:`froc` returns it.
    at
        Numbers of false positives a patient; between operating points sensitivity is interpolated, beyond the last
        one it stays as it is.

    Returns
    -------
    float
        In [0, 1].
    """
    return float(np.interp(at, table["fp_per_patient"].to_numpy(), table["sensitivity"].to_numpy()).mean())


def choose_threshold(validation: Sequence[CasePoints], *, max_distance: float = 6.0, gate: Gate = "before") -> float:
    """Choose the threshold of the best pooled F1.

    Parameters
    ----------
    validation
        Patients of the validation set.
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    float
        Threshold halfway between the last score kept and the next one, so that it leaves both the same margin; of
        equally good thresholds the highest.

    Raises
    ------
    ValueError
        If a case is of a split other than validation, or the cases hold no lesion or no candidate near one: then no
        threshold is better than another.

    References
    ----------
    Paper, section 3.2, step 5: "threshold optimized on the validation set".
    """
    check_validation(validation, what="a threshold")
    table = precision_recall(validation, max_distance=max_distance, gate=gate)
    if not table["tp"].any():
        raise ValueError(
            f"validation: got {sum(len(c.predicted) for c in validation)} candidates and "
            f"{sum(len(c.true) for c in validation)} lesions without one hit, wanted at least one to choose a threshold"
        )
    best = int(np.nanargmax(table["f1"].to_numpy()))
    kept = float(table["threshold"].iloc[best])
    dropped = float(table["threshold"].iloc[best + 1]) if best + 1 < len(table) else kept
    return between(kept, dropped)


def between(kept: float, dropped: float) -> float:
    """Return the threshold halfway between a score that is kept and the next lower one, which is not."""
    halfway = (kept + dropped) / 2
    return halfway if halfway > dropped else kept  # neighbouring floats have nothing between them


def _counts_frame(
    levels: Real[np.ndarray, " t"], tp: Real[np.ndarray, " t"], fp: Real[np.ndarray, " t"], fn: Real[np.ndarray, " t"]
) -> pd.DataFrame:
    precision, recall, f1 = rates(tp, fp, fn)
    columns = {"tp": tp, "fp": fp, "fn": fn, "precision": precision, "recall": recall, "f1": f1}
    return pd.DataFrame({"threshold": levels} | columns)
