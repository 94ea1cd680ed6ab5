"""Whether uncertainty tells right detections from wrong ones (paper, section 4.2 (2) and figure 2b).

In: detections with a measure of uncertainty and whether each is right. Out: the accuracy of the least uncertain
fraction, and the area under that curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Real

from lesionkit.matching import Gate
from lesionkit.metrics import CasePoints


def entropy(probability: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Compute the entropy of a yes-or-no event, in bits: 0 where it is certain, 1 where it is even.

    Parameters
    ----------
    probability
        Probability of yes; values outside [0, 1] count as its ends.

    Examples
    --------
    >>> import numpy as np
    >>> entropy(np.array([0.0, 0.5, 1.2]))
    array([0., 1., 0.])
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), 0.0, 1.0)
    parts = np.zeros((2, *p.shape))
    for part, q in zip(parts, (p, 1 - p), strict=True):
        np.log2(q, out=part, where=q > 0)
        part *= -q
    return np.asarray(np.abs(parts.sum(axis=0)))  # no negative zero


@dataclass(frozen=True, kw_only=True, eq=False)
class RetentionCurve:
    """Accuracy of the detections that are left when the most uncertain ones are set aside."""

    fraction: Float[np.ndarray, " n"]
    """Fraction of the detections that is kept, rising to 1."""
    accuracy: Float[np.ndarray, " n"]
    """Share of right ones among them."""

    @property
    def area(self) -> float:
        """Area under the curve: mean accuracy over all fractions, 1 at best."""
        return float(self.accuracy.mean()) if len(self.accuracy) else float("nan")

    def at(self, fraction: float) -> float:
        """Return the accuracy of the least uncertain `fraction` (of one detection, if it is smaller than that)."""
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction: got {fraction!r}, wanted more than 0 and at most 1")
        return float(np.interp(fraction, self.fraction, self.accuracy)) if len(self.fraction) else float("nan")

    def rises(self, fractions: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0)) -> bool:
        """Tell whether accuracy never falls, from the largest to the smallest of `fractions`."""
        values = [self.at(fraction) for fraction in sorted(fractions, reverse=True)]
        return all(later >= earlier - 1e-12 for earlier, later in pairwise(values))


def retention(uncertainty: Real[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> RetentionCurve:
    """Compute the accuracy of the least uncertain fraction, for every fraction.

    Parameters
    ----------
    uncertainty
        Of each detection, in any unit.
    right
        Whether the detection is right.

    Returns
    -------
    RetentionCurve
        One point a detection. Equally uncertain ones come in random order, of which this is the mean.

    Raises
    ------
    ValueError
        If the arrays differ in length, or an uncertainty is NaN.
    """
    level, correct = np.asarray(uncertainty, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if level.shape != correct.shape or level.ndim != 1:
        raise ValueError(f"uncertainty and right: got shapes {level.shape} and {correct.shape}, wanted the same (n,)")
    if np.isnan(level).any():
        raise ValueError("uncertainty: got NaN, wanted numbers")
    _, group, size = np.unique(level, return_inverse=True, return_counts=True)
    share = np.bincount(group, correct) / size if len(level) else np.empty(0)
    kept = np.arange(1, len(level) + 1)
    return RetentionCurve(fraction=kept / max(len(level), 1), accuracy=np.cumsum(np.repeat(share, size)) / kept)


def judged(
    cases: Sequence[CasePoints],
    threshold: float,
    *,
    max_distance: float = 6.0,
    gate: Gate = "before",
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Compute the uncertainty of each detection's alpha, and whether the detection is right.

    Parameters
    ----------
    cases
        One entry a patient.
    threshold
        Smallest score of a detection, chosen beforehand.
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    uncertainty, right
        Entropy of alpha in bits, and whether the detection is matched; patient after patient.
    """
    levels, rights = [np.empty(0)], [np.empty(0, dtype=bool)]
    for case in cases:
        levels.append(entropy(case.score[case.score >= threshold]))
        rights.append(case.match(threshold, max_distance=max_distance, gate=gate).matched_predicted)
    return np.concatenate(levels), np.concatenate(rights)
