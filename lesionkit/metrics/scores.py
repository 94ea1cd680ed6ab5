"""Precision, recall and F1 at one threshold: pooled, by patient, by lesion size, with confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from jaxtyping import Int, Real

from lesionkit.matching import Gate, Matching, Rated, rates
from lesionkit.metrics.cases import SIZE_CLASSES, CasePoints, SizeClass


@dataclass(frozen=True, kw_only=True)
class Score(Rated):
    """Counts of hits and errors, and the rates that follow from them (NaN where a rate is 0/0)."""

    tp: int
    """True positives."""
    fp: int
    """False positives."""
    fn: int
    """False negatives."""


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
    sizes: tuple[str, ...]
    """Names of the size classes."""
    true_of_size: Int[np.ndarray, "cases sizes"]
    """True lesions of each class, by patient."""
    found_of_size: Int[np.ndarray, "cases sizes"]
    """Those of them with a partner."""

    @property
    def by_size(self) -> Mapping[str, SizeScore]:
        """Size class -> number of true lesions and of those found, over all patients."""
        counts = zip(self.sizes, self.true_of_size.sum(axis=0), self.found_of_size.sum(axis=0), strict=True)
        return MappingProxyType({name: SizeScore(n_true=int(n), n_found=int(hits)) for name, n, hits in counts})

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

    def intervals(self, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 2000) -> pd.DataFrame:
        """Bootstrap confidence intervals of the rates.

        Patients are drawn with replacement, since the lesions of one patient are not independent.

        Parameters
        ----------
        rng
            Source of the draws.
        level
            Share of the resampled cohorts that an interval holds (percentiles).
        resamples
            Number of resampled cohorts.

        Returns
        -------
        pandas.DataFrame
            Rows as in :meth:`to_frame`; columns precision_low, precision_high, recall_low, recall_high, f1_low,
            f1_high; NaN where a rate is not defined.

        Raises
        ------
        ValueError
            If there is no patient, or an option is out of range.
        """
        n = len(self.subjects)
        if not n:
            raise ValueError("intervals: got no patient, wanted at least one")
        if not (0 < level < 1 and resamples >= 1):
            raise ValueError(
                f"level and resamples: got {level!r} and {resamples!r}, wanted 0 < level < 1 and 1 or more"
            )
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)  # how often each patient is in each resample
        rows = {"all": rates(drawn @ self.tp, drawn @ self.fp, drawn @ self.fn)}
        unknown = np.full(resamples, np.nan)
        for name, true, hits in zip(self.sizes, self.true_of_size.T, self.found_of_size.T, strict=True):
            rows[name] = (unknown, rates(drawn @ hits, 0, drawn @ (true - hits))[1], unknown)
        by_patient = (self.patients()[name].to_numpy() for name in ("precision", "recall", "f1"))
        with np.errstate(invalid="ignore"):
            means = [drawn @ np.nan_to_num(rate) / (drawn @ np.isfinite(rate)) for rate in by_patient]
        rows["patient mean"] = (means[0], means[1], means[2])
        ends: dict[str, list[float]] = {}
        for row, samples in rows.items():
            tails = ((1 - level) / 2, (1 + level) / 2)
            quantiles = [
                np.nanquantile(s, tails).tolist() if np.isfinite(s).any() else [np.nan, np.nan] for s in samples
            ]
            ends[row] = [end for pair in quantiles for end in pair]
        columns = [f"{rate}_{end}" for rate in ("precision", "recall", "f1") for end in ("low", "high")]
        return pd.DataFrame.from_dict(ends, orient="index", columns=columns).rename_axis("lesions")


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
    classes = {name: SizeClass(*limits) for name, limits in size_classes.items()}
    true_of_size = [[c.contains(sizes).sum() for c in classes.values()] for _, sizes in listed]
    found_of_size = [[c.contains(sizes[m.pairs[:, 1]]).sum() for c in classes.values()] for m, sizes in listed]
    shape = (len(listed), len(classes))
    return ScoreTable(
        subjects=names,
        tp=tp,
        fp=fp,
        fn=fn,
        sizes=tuple(classes),
        true_of_size=np.array(true_of_size, dtype=np.int64).reshape(shape),
        found_of_size=np.array(found_of_size, dtype=np.int64).reshape(shape),
    )


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
