"""What the candidates say of a whole patient: is there any lesion at all, and how many are there.

In: candidates with existence probabilities. Out: the probability of activity, the distribution of the lesion count,
and how both compare with the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Real

from lesionkit.metrics.cases import CasePoints


def count_distribution(alpha: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n+1"]:
    """Compute the distribution of the number of lesions, each of which exists with its own probability.

    Parameters
    ----------
    alpha
        Existence probabilities; values outside [0, 1] are moved to its ends.

    Returns
    -------
    Float[np.ndarray, " n+1"]
        Probability of 0, 1, ..., n lesions (the Poisson-binomial distribution: existence is taken as independent).

    Examples
    --------
    >>> import numpy as np
    >>> count_distribution(np.array([0.5, 0.5]))
    array([0.25, 0.5 , 0.25])
    """
    distribution = np.ones(1)
    for p in np.clip(np.asarray(alpha, dtype=np.float64), 0.0, 1.0).tolist():
        distribution = np.append(distribution * (1 - p), 0.0) + np.append(0.0, distribution * p)
    return distribution


def activity_probability(alpha: Real[np.ndarray, " n"]) -> float:
    """Compute the probability that at least one of the candidates is a lesion, 1 - (1 - alpha_1) (1 - alpha_2) ..."""
    return float(1 - np.prod(1 - np.clip(np.asarray(alpha, dtype=np.float64), 0.0, 1.0)))


@dataclass(frozen=True, kw_only=True)
class Activity:
    """How well patients with any lesion are told from those without ("just one new lesion indicates new activity")."""

    tp: int
    """Active patients with a detection."""
    fp: int
    """Inactive patients with a detection."""
    fn: int
    """Active patients without a detection."""
    tn: int
    """Inactive patients without a detection."""
    auc: float
    """Area under the ROC curve of the activity probability; NaN where all patients are of one kind."""

    @property
    def sensitivity(self) -> float:
        """Share of the active patients that are called so; NaN where there is none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def specificity(self) -> float:
        """Share of the inactive patients that are called so; NaN where there is none."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of the patients called rightly."""
        return (self.tp + self.tn) / (self.tp + self.fp + self.fn + self.tn)


def activity(cases: Sequence[CasePoints], threshold: float) -> Activity:
    """Call each patient with a detection active, and compare with whether there is a true lesion.

    Parameters
    ----------
    cases
        One entry a patient; scores are existence probabilities. Where the lesions are plays no part.
    threshold
        Smallest score of a detection, chosen beforehand (:func:`~lesionkit.metrics.choose_threshold`).

    Returns
    -------
    Activity
        Counts of patients, and the area under the ROC curve.

    Raises
    ------
    ValueError
        If there is no patient.
    """
    if not cases:
        raise ValueError("cases: got none, wanted at least one patient")
    active = np.array([len(case.true) > 0 for case in cases])
    called = np.array([bool((case.score >= threshold).any()) for case in cases])
    probability = np.array([activity_probability(case.score) for case in cases])
    return Activity(
        tp=int((active & called).sum()),
        fp=int((~active & called).sum()),
        fn=int((active & ~called).sum()),
        tn=int((~active & ~called).sum()),
        auc=_auc(probability[active], probability[~active]),
    )


def lesion_counts(cases: Sequence[CasePoints], *, level: float = 0.9) -> pd.DataFrame:
    """Compare the distribution of each patient's lesion count with the true count.

    Parameters
    ----------
    cases
        One entry a patient; scores are existence probabilities, of all candidates (no threshold).
    level
        Probability that the interval is to hold.

    Returns
    -------
    pandas.DataFrame
        One row a patient: subject, true, expected, sd, low and high (central interval), p_true (probability of the true
        count), covered (whether the interval holds it), crps (continuous ranked probability score, in lesions; 0 is
        perfect).

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: got {level!r}, wanted a probability between 0 and 1")
    rows = []
    for number, case in enumerate(cases, start=1):
        p = np.clip(case.score.astype(np.float64), 0.0, 1.0)
        distribution, true = count_distribution(p), len(case.true)
        cumulative = np.cumsum(distribution)
        tail = (1 - level) / 2
        # The sums end a rounding error below 1: without a margin the interval would start or end one count late.
        low, high = (int(np.searchsorted(cumulative, q - 1e-12)) for q in (tail, 1 - tail))
        beyond = max(true - len(p), 0)  # counts that the candidates cannot reach, each at distance 1 from the truth
        crps = float(((cumulative[:-1] - (np.arange(len(p)) >= true)) ** 2).sum()) + beyond
        rows.append(
            {
                "subject": case.subject or str(number),
                "true": true,
                "expected": float(p.sum()),
                "sd": float(np.sqrt((p * (1 - p)).sum())),
                "low": low,
                "high": high,
                "p_true": float(distribution[true]) if true <= len(p) else 0.0,
                "covered": low <= true <= high,
                "crps": crps,
            }
        )
    columns = ["subject", "true", "expected", "sd", "low", "high", "p_true", "covered", "crps"]
    return pd.DataFrame(rows, columns=columns)


def _auc(positive: Float[np.ndarray, " n"], negative: Float[np.ndarray, " m"]) -> float:
    """Probability that a positive outranks a negative, ties counting one half."""
    if not (len(positive) and len(negative)):
        return float("nan")
    gap = np.subtract.outer(positive, negative)
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())
