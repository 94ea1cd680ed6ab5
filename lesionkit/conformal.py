"""A threshold with a guarantee: conformal risk control on the validation set.

In: validation patients. Out: a threshold of which the expected share of missed lesions, or the expected number of false
positives a patient, is at most what was asked for, whatever the network and the distribution of the patients, if only
the new patients are exchangeable with those of validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lesionkit.metrics import CasePoints, check_validation

Risk = Literal["missed", "false_positives"]


@dataclass(frozen=True, kw_only=True)
class RiskControl:
    """A threshold that keeps a promise."""

    risk: Risk
    """``"missed"``: the share of a patient's lesions that are missed (0 where there is none); ``"false_positives"``:
    the number of false positives of a patient, counted up to `cap`."""
    target: float
    """Largest expected risk of a new patient."""
    threshold: float
    """Smallest score of a detection. Infinity: report nothing. Minus infinity: no threshold keeps the promise, not even
    that of reporting every candidate, so that a reader must look at the whole image (risk 0)."""
    bound: float
    """What the guarantee is at this threshold; at most `target`."""
    empirical: float
    """Mean risk of the validation patients at this threshold."""
    n_patients: int
    """Number of validation patients; the guarantee costs about 1 / n_patients of the risk's range."""
    cap: float
    """Largest risk that a single patient can have: 1 for missed lesions."""


def control_risk(
    validation: Sequence[CasePoints],
    target: float,
    *,
    risk: Risk = "missed",
    cap: float = 10.0,
    max_distance: float = 6.0,
) -> RiskControl:
    """Choose the threshold whose expected risk for a new patient is at most `target`.

    Parameters
    ----------
    validation
        Patients of the validation set, with all candidates; exchangeable with the patients to come.
    target
        Largest expected risk: a share between 0 and 1 (``"missed"``), or false positives a patient.
    risk
        What is bounded. Of all thresholds that keep the promise, the highest is taken for ``"missed"`` (fewest false
        positives), the lowest for ``"false_positives"`` (fewest misses).
    cap
        False positives of one patient beyond this number are not counted: a bound on a mean needs a bounded risk.
    max_distance
        Largest distance of a hit, mm; far pairs are excluded before the assignment, without which misses would not
        fall steadily with the threshold.

    Returns
    -------
    RiskControl
        The threshold, and what is known of it.

    Raises
    ------
    ValueError
        If a case is of a split other than validation, there is no patient, or `target` or `cap` is out of range.

    Notes
    -----
    With n validation patients and a risk in [0, cap] that is monotone in the threshold, the largest threshold with
    ``(n mean_risk + cap) / (n + 1) <= target`` has expected risk at most `target`: over validation sets and new
    patients together, not for each validation set. Below ``cap / (n + 1)`` no promise can be made of misses.

    References
    ----------
    A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster: Conformal risk control, ICLR 2024.
    """
    check_validation(validation, what="a threshold")
    return _control(_risks(validation, risk, cap, max_distance), target, risk, cap)


def check_risk(
    cases: Sequence[CasePoints],
    target: float,
    *,
    rng: np.random.Generator,
    risk: Risk = "missed",
    cap: float = 10.0,
    splits: int = 1000,
    calibration_share: float = 0.5,
    max_distance: float = 6.0,
) -> pd.DataFrame:
    """Check the guarantee: split the patients again and again, choose the threshold on one part, look at the other.

    Parameters
    ----------
    cases
        Patients on whom nothing was trained; of any split, since each threshold of the result is judged on other
        patients.
    target, risk, cap, max_distance
        As in :func:`control_risk`.
    rng
        Source of the splits.
    splits
        Number of splits.
    calibration_share
        Share of the patients on which the threshold is chosen, each time as :func:`control_risk` would.

    Returns
    -------
    pandas.DataFrame
        One row a split: threshold, risk (mean over the patients left out), missed (share of their lesions, by patient)
        and false_positives (a patient). The mean of `risk` is at most `target`, up to the error of that mean.

    Raises
    ------
    ValueError
        If there are fewer than two patients, or an option is out of range.
    """
    n = len(cases)
    n_calibration = round(n * calibration_share)
    if not 0 < n_calibration < n:
        raise ValueError(
            f"cases and calibration_share: got {n} and {calibration_share!r}, wanted patients in both parts"
        )
    curves = {name: _risks(cases, name, cap, max_distance) for name in ("missed", "false_positives")}
    own = curves[risk]
    rows = []
    for _ in range(splits):
        order = rng.permutation(n)
        fitted, held_out = order[:n_calibration], order[n_calibration:]
        chosen = _control(own.of(fitted), target, risk, cap)
        at = {name: float(curve.at(chosen.threshold)[held_out].mean()) for name, curve in curves.items()}
        rows.append({"threshold": chosen.threshold, "risk": at[risk], **at})
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Risks:
    """Risk of each patient at every threshold: row 0 keeps nothing, row k the candidates of the k highest scores."""

    levels: Float[np.ndarray, " t"]
    """Distinct scores, falling."""
    values: Float[np.ndarray, "t+1 n"]
    scored: Bool[np.ndarray, "t+1 n"]
    """Whether a candidate of the patient has the score; true of row 0."""
    rises: bool
    """Whether risk rises as the threshold falls (false positives) or falls (misses)."""

    def of(self, patients: np.ndarray) -> _Risks:
        values, scored = (np.take(array, patients, axis=1) for array in (self.values, self.scored))
        return _Risks(self.levels, values, scored, self.rises)

    def at(self, threshold: float) -> Float[np.ndarray, " n"]:
        if threshold == -math.inf and not self.rises:
            return np.zeros(self.values.shape[1])  # a reader looks at the whole image
        return np.asarray(self.values[int((self.levels >= threshold).sum())])


def _risks(cases: Sequence[CasePoints], risk: str, cap: float, max_distance: float) -> _Risks:
    if risk not in ("missed", "false_positives"):
        raise ValueError(f"risk: got {risk!r}, wanted 'missed' or 'false_positives'")
    if not cases:
        raise ValueError("validation: got no patient, wanted at least one")
    levels = np.unique(np.concatenate([case.score for case in cases]))[::-1]
    values = np.zeros((len(levels) + 1, len(cases)))
    scored = np.ones((len(levels) + 1, len(cases)), dtype=bool)
    for n, case in enumerate(cases):
        gains = case.gains(max_distance=max_distance)
        chosen = np.sort(case.score[gains] if risk == "missed" else case.score[~gains])
        count = np.concatenate([[0], len(chosen) - np.searchsorted(chosen, levels, side="left")])
        if risk == "missed":
            values[:, n] = 1 - count / len(case.true) if len(case.true) else 0.0
        else:
            values[:, n] = np.minimum(count, cap)
        scored[1:, n] = np.isin(levels, case.score)
    return _Risks(levels, values, scored, risk == "false_positives")


def _control(risks: _Risks, target: float, risk: Risk, cap: float) -> RiskControl:
    largest = 1.0 if risk == "missed" else cap
    if not (math.isfinite(largest) and largest > 0):
        raise ValueError(f"cap: got {cap!r}, wanted a finite number above 0")
    if not 0 < target < largest:
        raise ValueError(f"target: got {target!r}, wanted a risk above 0 and below {largest:g}")
    n = risks.values.shape[1]
    mean = risks.values.mean(axis=1)
    bound = (n * mean + largest) / (n + 1)
    own = risks.scored.any(axis=1)  # scores of other patients are no thresholds of these
    good = np.flatnonzero((bound <= target) & own)
    if not len(good):  # of false positives, none at all keep any promise; of misses, a reader makes none
        threshold = math.inf if risks.rises else -math.inf
        return RiskControl(
            risk=risk, target=target, threshold=threshold, bound=0.0, empirical=0.0, n_patients=n, cap=largest
        )
    row = int(good[-1] if risks.rises else good[0])
    edge = np.concatenate([[math.inf], risks.levels])  # row k keeps what reaches edge[k]
    return RiskControl(
        risk=risk, target=target, threshold=float(edge[row]), bound=float(bound[row]), empirical=float(mean[row]),
        n_patients=n, cap=largest,
    )  # fmt: skip
