"""Detection metrics over a cohort: precision, recall and F1, pooled, by patient and by lesion size.

In: one :class:`CasePoints` a patient (or ready :class:`~lesionkit.matching.Matching` objects). Out: a
:class:`ScoreTable` at one threshold, a table over all thresholds, or the threshold that is best on validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Real

from lesionkit.matching import Gate, Matching, distances_mm, match_points, rates


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
    """Part of the cohort that the patient belongs to, such as train, val or test."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        for name, values, points in (("score", self.score, self.predicted), ("sizes", self.sizes, self.true)):
            if np.shape(values) != (len(points),):
                raise ValueError(
                    f"{name} of {self.subject or 'a case'}: got shape {np.shape(values)}, wanted ({len(points)},)"
                )
        if np.isnan(self.score).any():
            raise ValueError(f"score of {self.subject or 'a case'}: got NaN, wanted numbers")

    def match(self, threshold: float, *, max_distance: float = 6.0, gate: Gate = "before") -> Matching:
        """Match the candidates whose score reaches `threshold` with the true lesions.

        The predicted indices of the result count the kept candidates, in the order of `predicted`.
        """
        return match_points(self.predicted[self.score >= threshold], self.true, max_distance=max_distance, gate=gate)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Counts of hits and errors, and the rates that follow from them (NaN where a rate is 0/0)."""

    tp: int
    """True positives."""
    fp: int
    """False positives."""
    fn: int
    """False negatives."""

    @property
    def precision(self) -> float:
        """Share of the detections that are lesions."""
        return float(rates(self.tp, self.fp, self.fn)[0])

    @property
    def recall(self) -> float:
        """Share of the lesions that are detected."""
        return float(rates(self.tp, self.fp, self.fn)[1])

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(rates(self.tp, self.fp, self.fn)[2])


@dataclass(frozen=True, kw_only=True)
class SizeScore:
    """How many lesions of one size class there are, and how many of them were found."""

    n_true: int
    """Number of true lesions of the class."""
    n_found: int
    """Number of them with a partner."""

    @property
    def recall(self) -> float:
        """Share of the class that is found; NaN where the class is empty."""
        return float(rates(self.n_found, 0, self.n_true - self.n_found)[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """Scores of a cohort at one threshold."""

    subjects: tuple[str, ...]
    """Names of the patients."""
    tp: Int[np.ndarray, " cases"]
    """True positives of each patient."""
    fp: Int[np.ndarray, " cases"]
    """False positives of each patient."""
    fn: Int[np.ndarray, " cases"]
    """False negatives of each patient."""
    by_size: Mapping[str, SizeScore]
    """Size class -> number of true lesions and of those found, over all patients."""

    @property
    def pooled(self) -> Score:
        """All lesions of all patients as one set (the paper's tables)."""
        return Score(tp=int(self.tp.sum()), fp=int(self.fp.sum()), fn=int(self.fn.sum()))

    def patients(self) -> pd.DataFrame:
        """Return one row a patient: subject, tp, fp, fn, precision, recall, f1."""
        precision, recall, f1 = rates(self.tp, self.fp, self.fn)
        columns = {"tp": self.tp, "fp": self.fp, "fn": self.fn, "precision": precision, "recall": recall, "f1": f1}
        return pd.DataFrame({"subject": list(self.subjects)} | columns)

    def to_frame(self) -> pd.DataFrame:
        """Return the cohort's table.

        Returns
        -------
        pandas.DataFrame
            Rows: ``all`` (pooled), one for each size class, ``patient mean`` (mean over the patients for whom the rate
            is defined). Columns: n_true, tp, fp, fn, precision, recall, f1; a false positive has no size, so fp,
            precision and f1 of a size class are NaN.
        """
        pooled = self.pooled
        rows: dict[str, dict[str, float]] = {
            "all": {"n_true": pooled.tp + pooled.fn, "tp": pooled.tp, "fp": pooled.fp, "fn": pooled.fn}
            | {"precision": pooled.precision, "recall": pooled.recall, "f1": pooled.f1}
        }
        for name, score in self.by_size.items():
            rows[name] = {"n_true": score.n_true, "tp": score.n_found, "fn": score.n_true - score.n_found}
            rows[name]["recall"] = score.recall
        means = self.patients().drop(columns="subject").mean()
        rows["patient mean"] = {"n_true": means["tp"] + means["fn"], **{str(name): means[name] for name in means.index}}
        columns = ["n_true", "tp", "fp", "fn", "precision", "recall", "f1"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float).rename_axis("lesions")


def score_cohort(
    cases: Iterable[tuple[Matching, Real[np.ndarray, " m"]]],
    *,
    subjects: Sequence[str] | None = None,
    size_classes: Mapping[str, tuple[float, float]] = SIZE_CLASSES,
) -> ScoreTable:
    """Score a cohort from its matchings.

    Parameters
    ----------
    cases
        For each patient the matching and the sizes of the true lesions, in voxels (NaN: unknown).
    subjects
        Names of the patients; numbered from 1 where missing.
    size_classes
        Name -> (smallest, largest) size in voxels, both included.

    Returns
    -------
    ScoreTable
        Counts by patient, and by size class over all patients.

    Raises
    ------
    ValueError
        If a case has another number of sizes than true lesions, or there are more or fewer subjects than cases.

    References
    ----------
    Paper, tables 1 and 3.
    """
    listed = [(matching, np.asarray(sizes, dtype=np.float64)) for matching, sizes in cases]
    names = tuple(str(n + 1) for n in range(len(listed))) if subjects is None else tuple(subjects)
    if len(names) != len(listed):
        raise ValueError(f"subjects: got {len(names)} names for {len(listed)} cases")
    for name, (matching, sizes) in zip(names, listed, strict=True):
        if sizes.shape != (matching.n_true,):
            raise ValueError(f"sizes of {name}: got shape {sizes.shape}, wanted ({matching.n_true},)")
    tp, fp, fn = (np.array([getattr(m, n) for m, _ in listed], dtype=np.int64) for n in ("tp", "fp", "fn"))
    every_size = np.concatenate([np.empty(0), *(sizes for _, sizes in listed)])
    found_size = np.concatenate([np.empty(0), *(sizes[matching.pairs[:, 1]] for matching, sizes in listed)])
    classes = {name: SizeClass(*limits) for name, limits in size_classes.items()}
    by_size = {
        name: SizeScore(n_true=int(c.contains(every_size).sum()), n_found=int(c.contains(found_size).sum()))
        for name, c in classes.items()
    }
    return ScoreTable(subjects=names, tp=tp, fp=fp, fn=fn, by_size=MappingProxyType(by_size))


def score_points(
    cases: Sequence[CasePoints],
    threshold: float,
    *,
    max_distance: float = 6.0,
    gate: Gate = "before",
    size_classes: Mapping[str, tuple[float, float]] = SIZE_CLASSES,
) -> ScoreTable:
    """Keep the candidates whose score reaches `threshold`, match them and score the cohort.

    Parameters
    ----------
    cases
        One entry a patient.
    threshold
        Smallest score of a detection, chosen beforehand (:func:`choose_threshold`).
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.
    size_classes
        Name -> (smallest, largest) size in voxels, both included.

    Returns
    -------
    ScoreTable
        Counts by patient and by size class.
    """
    matchings = [case.match(threshold, max_distance=max_distance, gate=gate) for case in cases]
    names = [case.subject or str(n + 1) for n, case in enumerate(cases)]
    sized = zip(matchings, (case.sizes for case in cases), strict=True)
    return score_cohort(sized, subjects=names, size_classes=size_classes)


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
        Thresholds to evaluate; None: every score that occurs, which is every distinct operating point (with
        ``gate="after"``: 200 quantiles of them at most, because each needs an assignment of its own).
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    pandas.DataFrame
        One row a threshold, falling: threshold, tp, fp, fn, precision, recall, f1.

    Notes
    -----
    Gated before the assignment, the number of hits is the size of a maximum matching, which candidates join one by one
    through augmenting paths: one pass gives the counts at every threshold.
    """
    scores = np.concatenate([np.empty(0), *(case.score for case in cases)])
    levels = np.unique(scores if thresholds is None else np.asarray(thresholds, dtype=np.float64))[::-1]
    n_predicted = len(scores) - np.searchsorted(np.sort(scores), levels, side="left")
    n_true = sum(len(case.true) for case in cases)
    if gate == "before":
        gains = [_gains(case, max_distance) for case in cases]
        hits = (case.score[gain] for case, gain in zip(cases, gains, strict=True))
        hit_scores = np.sort(np.concatenate([np.empty(0), *hits]))
        tp = len(hit_scores) - np.searchsorted(hit_scores, levels, side="left")
    else:
        if thresholds is None and len(levels) > 200:
            picked = np.unique(np.linspace(0, len(levels) - 1, 200).astype(int))
            levels, n_predicted = levels[picked], n_predicted[picked]
        matched = ([case.match(level, max_distance=max_distance, gate=gate).tp for case in cases] for level in levels)
        tp = np.array([sum(hits) for hits in matched], dtype=np.int64)
    fp, fn = n_predicted - tp, n_true - tp
    precision, recall, f1 = rates(tp, fp, fn)
    columns = {"tp": tp, "fp": fp, "fn": fn, "precision": precision, "recall": recall, "f1": f1}
    return pd.DataFrame({"threshold": levels} | columns)


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
        If a case belongs to the test split, or the cases hold no lesion or no candidate near one: then no threshold is
        better than another.

    References
    ----------
    Paper, section 3.2, step 5: "threshold optimized on the validation set".
    """
    tested = [case.subject or "?" for case in validation if case.split == "test"]
    if tested:
        raise ValueError(
            f"validation: got {len(tested)} case(s) of the test split ({tested[0]}...), wanted validation cases only: "
            "a threshold chosen on the test set flatters its result"
        )
    table = precision_recall(validation, max_distance=max_distance, gate=gate)
    if not table["tp"].any():
        raise ValueError(
            f"validation: got {sum(len(c.predicted) for c in validation)} candidates and "
            f"{sum(len(c.true) for c in validation)} lesions without one hit, wanted at least one to choose a threshold"
        )
    best = int(np.nanargmax(table["f1"].to_numpy()))
    kept = float(table["threshold"].iloc[best])
    dropped = float(table["threshold"].iloc[best + 1]) if best + 1 < len(table) else kept
    halfway = (kept + dropped) / 2
    return halfway if halfway > dropped else kept  # neighbouring floats have nothing between them


def _gains(case: CasePoints, max_distance: float) -> Bool[np.ndarray, " n"]:
    """Tell for each candidate, joining by falling score, whether it raises the size of the maximum matching."""
    allowed = distances_mm(case.predicted, case.true) <= max_distance
    gains = np.zeros(len(case.score), dtype=bool)
    near = [np.flatnonzero(row).tolist() for row in allowed]
    owner: dict[int, int] = {}
    for candidate in np.argsort(-case.score, kind="stable").tolist():
        gains[candidate] = bool(near[candidate]) and _augment(candidate, near, owner)
    return gains


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
