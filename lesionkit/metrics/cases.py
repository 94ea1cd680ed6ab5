"""What is scored: one patient's candidates and true lesions, and the paper's classes of lesion size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real

from lesionkit.matching import Gate, Matching, distances_mm, match_points


class SizeClass(NamedTuple):
    """A range of lesion sizes, in voxels, both ends included."""

    smallest: float
    largest: float

    def contains(self, sizes: Real[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Tell which sizes (voxels) fall into the class; NaN, an unknown size, falls into none."""
        return (sizes >= self.smallest) & (sizes <= self.largest)


SIZE_CLASSES: Mapping[str, SizeClass] = MappingProxyType(
    {"small": SizeClass(3, 10), "medium": SizeClass(11, 50), "large": SizeClass(51, math.inf)}
)
"""The paper's lesion sizes, in voxels (tables 1 and 3); lesions of 1 or 2 voxels belong to none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CasePoints:
    """One patient's candidates and true lesions, in mm."""

    predicted: Float[np.ndarray, "n ndim"]
    """Candidate points, mm; any order."""
    score: Float[np.ndarray, " n"]
    """What the threshold acts on: alpha of the fit, or the maximum of a component."""
    true: Float[np.ndarray, "m ndim"]
    """True lesions, mm."""
    sizes: Real[np.ndarray, " m"]
    """Sizes of the true lesions, voxels; NaN where unknown."""
    subject: str = ""
    """Name of the patient."""
    split: str = ""
    """Part of the cohort that the patient belongs to: train, validation or test; empty where there are no parts."""
    unfitted: Float[np.ndarray, " n"] | None = None
    """Alpha before the fit: the sum over the candidate's window (paper, section 3.2, step 2); None where there is no
    fit."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        name_of_case = self.subject or "a case"
        columns = [("score", self.score, self.predicted), ("sizes", self.sizes, self.true)]
        if self.unfitted is not None:
            columns.append(("unfitted", self.unfitted, self.predicted))
        for name, values, points in columns:
            if np.shape(values) != (len(points),):
                raise ValueError(f"{name} of {name_of_case}: got shape {np.shape(values)}, wanted ({len(points)},)")
            if name != "sizes" and np.isnan(values).any():
                raise ValueError(f"{name} of {name_of_case}: got NaN, wanted numbers")

    def match(self, threshold: float, *, max_distance: float = 6.0, gate: Gate = "before") -> Matching:
        """Match the candidates whose score reaches `threshold` with the true lesions.

        The predicted indices of the result count the kept candidates, in the order of `predicted`.
        """
        return match_points(self.predicted[self.score >= threshold], self.true, max_distance=max_distance, gate=gate)

    def gains(self, *, max_distance: float = 6.0) -> Bool[np.ndarray, " n"]:
        """Tell for each candidate, joining by falling score, whether it adds a hit.

        Gated before the assignment, the number of hits is the size of a maximum matching, which candidates join one by
        one through augmenting paths. So a candidate is a hit or a false positive for good when it joins, whatever comes
        below it: hits and false positives both grow as the threshold falls.
        """
        allowed = distances_mm(self.predicted, self.true) <= max_distance
        gains = np.zeros(len(self.score), dtype=bool)
        near = [np.flatnonzero(row).tolist() for row in allowed]
        owner: dict[int, int] = {}
        for candidate in np.argsort(-self.score, kind="stable").tolist():
            gains[candidate] = bool(near[candidate]) and _augment(candidate, near, owner)
        return gains


def check_validation(cases: Sequence[CasePoints], *, what: str) -> None:
    """Refuse to tune anything on cases of a split other than validation.

    Parameters
    ----------
    cases
        Patients on which something is about to be chosen or fitted.
    what
        What is chosen, for the message.

    Raises
    ------
    ValueError
        If a case belongs to another split; cases of no split are taken at the caller's word.
    """
    wrong = [case for case in cases if case.split not in ("validation", "")]
    if wrong:
        raise ValueError(
            f"validation: got {len(wrong)} case(s) of the {wrong[0].split} split ({wrong[0].subject or '?'}...), "
            f"wanted validation cases only: {what} chosen on others flatters the result"
        )


def _augment(candidate: int, near: list[list[int]], owner: dict[int, int]) -> bool:
    """Give `candidate` a lesion, moving owners along an augmenting path where needed; breadth first."""
    came_from: dict[int, int] = {}  # lesion -> candidate from which the path reached it
    came_over: dict[int, int] = {}  # candidate -> lesion it owns, over which the path reached it
    queue = [candidate]
    for current in queue:
        for lesion in near[current]:
            if lesion in came_from:
                continue
            came_from[lesion] = current
            if lesion in owner:
                came_over[owner[lesion]] = lesion
                queue.append(owner[lesion])
                continue
            while (taker := came_from[lesion]) != candidate:
                owner[lesion], lesion = taker, came_over[taker]
            owner[lesion] = candidate
            return True
    return False
