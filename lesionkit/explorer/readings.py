"""What charts and lists show: arrays in, small tables out; nothing is drawn here.

The F1-against-threshold curve, alpha against the distance to the truth, paper against joint mode, and the profile
through a peak.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lesionkit.detection import Detections
from lesionkit.matching import Gate, distances_mm, match_points, rates

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from lesionkit.explorer.trajectory import Trajectory

SAME_WITHIN = 2.0
"""Lesions of two modes closer than this, in sigma, are the same lesion."""
MOVED_BY = 0.1
"""From this distance on, in sigma, the same lesion has moved."""
CHANGED_BY = 0.05
"""From this difference of alpha on, the same lesion has changed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """Scores of one map against the threshold: one entry a distinct alpha, falling."""

    threshold: Float[np.ndarray, " t"]
    """Lesions with ``alpha >= threshold`` are kept."""
    tp: Int[np.ndarray, " t"]
    """Hits at each threshold."""
    fp: Int[np.ndarray, " t"]
    """Detections without a true point."""
    fn: Int[np.ndarray, " t"]
    """True points without a detection."""
    precision: Float[np.ndarray, " t"]
    recall: Float[np.ndarray, " t"]
    """NaN where there is nothing to find."""
    f1: Float[np.ndarray, " t"]


def score_curve(
    mu: Float[np.ndarray, "n ndim"],
    alpha: Float[np.ndarray, " n"],
    true: Float[np.ndarray, "m ndim"],
    *,
    max_distance: float = 6.0,
    spacing: Sequence[float],
    gate: Gate = "before",
) -> Curve:
    """Score every distinct operating point of one map.

    The numbers are those of :func:`lesionkit.metrics.precision_recall` for this one case, without pandas.

    Parameters
    ----------
    mu, alpha : (n, ndim), (n,) float
        The candidates, voxel index.
    true : (m, ndim) float
        True points, voxel index.
    max_distance, spacing, gate
        As in :func:`~lesionkit.matching.match_points`.
    """
    levels = np.unique(alpha)[::-1]
    hits = [
        match_points(mu[alpha >= t], true, max_distance=max_distance, spacing=spacing, gate=gate).tp for t in levels
    ]
    tp = np.array(hits, dtype=np.int64)
    fp = (alpha >= levels[:, None]).sum(1) - tp
    fn = len(true) - tp
    precision, recall, f1 = rates(tp, fp, fn)
    return Curve(threshold=levels, tp=tp, fp=fp, fn=fn, precision=precision, recall=recall, f1=f1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """Every candidate's alpha against its distance to the truth, whatever the threshold."""

    alpha: Float[np.ndarray, " n"]
    distance_mm: Float[np.ndarray, " n"]
    """To the nearest true point; infinite if there is none."""
    nearest: Int[np.ndarray, " n"]
    """Row of that point; -1 if there is none."""
    found: tuple[int, ...]
    """For each candidate, the step that found it."""


def spread(detections: Detections, true: Float[np.ndarray, "m ndim"], *, spacing: Sequence[float]) -> Spread:
    """Measure the distance of every candidate to the nearest true point, in mm."""
    n = len(detections)
    distance, nearest = np.full(n, np.inf), np.full(n, -1)
    if n and len(true):
        every = distances_mm(detections.mu, true, spacing=spacing)
        nearest = every.argmin(axis=1)
        distance = every[np.arange(n), nearest]
    return Spread(alpha=detections.alpha, distance_mm=distance, nearest=nearest, found=detections.found)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A lesion about which the two modes disagree."""

    kind: Literal["only joint", "only paper", "moved", "alpha"]
    """``moved``: by more than `MOVED_BY` sigma; ``alpha``: in place, but alpha differs by more than `CHANGED_BY`."""
    joint: int | None
    """Row among the joint detections; None if there is none."""
    paper: int | None
    """Row among the paper's detections; None if there is none."""
    point: tuple[float, ...]
    """Where it is, float voxel index (joint mode's centre if there is one)."""
    alpha_joint: float
    """NaN if there is none."""
    alpha_paper: float
    """NaN if there is none."""
    shift_mm: float
    """Distance of the two centres; NaN for a lesion of one mode only."""

    def __str__(self) -> str:
        """One line for a list."""
        where = ", ".join(f"{x:.1f}" for x in self.point)
        if self.kind == "only joint":
            return f"({where}): only joint mode finds it, alpha {self.alpha_joint:.2f}"
        if self.kind == "only paper":
            return f"({where}): only paper mode finds it, alpha {self.alpha_paper:.2f}"
        alphas = f"alpha {self.alpha_joint:.2f} in joint mode, {self.alpha_paper:.2f} in paper mode"
        return f"({where}): {self.shift_mm:.2f} mm apart, {alphas}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What both modes keep of one map at one threshold."""

    joint: Detections
    paper: Detections
    pairs: Int[np.ndarray, "k 2"]
    """(row in `joint`, row in `paper`) of the lesions that both keep."""
    differences: tuple[Difference, ...]
    """Where they disagree, the highest alpha first."""


def compare(joint: Detections, paper: Detections, *, spacing: Sequence[float]) -> Comparison:
    """List where two sets of detections disagree.

    Lesions are paired one to one within `SAME_WITHIN` sigma.
    """
    width = np.asarray(joint.sigma)
    per_sigma = tuple((1.0 / width).tolist())
    matching = match_points(joint.mu, paper.mu, max_distance=SAME_WITHIN, spacing=per_sigma)
    found: list[Difference] = []

    def note(kind: Literal["only joint", "only paper", "moved", "alpha"], i: int | None, j: int | None) -> None:
        a, b = None if i is None else joint.mu[i], None if j is None else paper.mu[j]
        point = a if a is not None else b
        shift = math.nan if a is None or b is None else float(np.linalg.norm((a - b) * spacing))
        found.append(
            Difference(
                kind=kind,
                joint=i,
                paper=j,
                point=() if point is None else tuple(point.tolist()),
                alpha_joint=math.nan if i is None else float(joint.alpha[i]),
                alpha_paper=math.nan if j is None else float(paper.alpha[j]),
                shift_mm=shift,
            )
        )

    for i, j in matching.pairs.tolist():
        if float(np.linalg.norm((joint.mu[i] - paper.mu[j]) / width)) > MOVED_BY:
            note("moved", i, j)
        elif abs(float(joint.alpha[i] - paper.alpha[j])) > CHANGED_BY:
            note("alpha", i, j)
    for i in matching.unmatched_predicted.tolist():
        note("only joint", i, None)
    for j in matching.unmatched_true.tolist():
        note("only paper", None, j)
    found.sort(key=lambda one: -float(np.nanmax([one.alpha_joint, one.alpha_paper])))
    return Comparison(joint=joint, paper=paper, pairs=matching.pairs, differences=tuple(found))


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """A line of voxels through a step's maximum."""

    axis: int
    """Along which axis of the map."""
    index: Int[np.ndarray, " n"]
    """Voxel indices along it."""
    offset_mm: Float[np.ndarray, " n"]
    """Distance from the maximum, signed."""
    residual: Float[np.ndarray, " n"]
    """The residual before the step."""
    fit: Float[np.ndarray, " n"]
    """The Gaussian as it was fitted, on the same voxels; NaN if no Gaussian fits."""
    after: Float[np.ndarray, " n"]
    """The residual after the step."""
    window: Bool[np.ndarray, " n"]
    """Which of the voxels the fit looked at."""


def profile(
    trajectory: Trajectory,
    i: int,
    axis: int,
    *,
    residual: Float[np.ndarray, " ..."],
    subtracted: bool,
    spacing: Sequence[float],
    reach: int | None = None,
) -> Profile:
    """Read a line through the maximum of step `i`.

    Parameters
    ----------
    trajectory : Trajectory
        The steps.
    i : int
        Number of the step.
    axis : int
        Along which axis; negative ones count from the end.
    residual : array of the map's shape
        The residual just before or just after the step.
    subtracted : bool
        Which of the two it is.
    spacing : one float an axis
        Edge lengths of a voxel, in mm.
    reach : int, optional
        Voxels to either side; by default 5 sigma, and at least the window.

    Raises
    ------
    ValueError
        If there is no such axis.
    """
    step, ndim = trajectory.steps[i], residual.ndim
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis must lie between {-ndim} and {ndim - 1}, got {axis!r}")
    axis %= ndim
    sigma, config = trajectory.sigma, trajectory.detections.config
    if reach is None:
        reach = max(math.ceil(5.0 * float(sigma[axis])), config.window // 2 + 1)
    peak = step.voxel
    start, stop = max(peak[axis] - reach, 0), min(peak[axis] + reach + 1, residual.shape[axis])
    index = np.arange(start, stop)
    line = tuple(slice(start, stop) if a == axis else peak[a] for a in range(ndim))
    before, after = residual[line].copy(), residual[line].copy()
    patch = trajectory.patch(i)
    if patch is not None and all(patch.box[a].start <= peak[a] < patch.box[a].stop for a in range(ndim) if a != axis):
        first, last = max(start, patch.box[axis].start), min(stop, patch.box[axis].stop)
        if first < last:
            inner = tuple(
                slice(first - part.start, last - part.start) if a == axis else peak[a] - part.start
                for a, part in enumerate(patch.box)
            )
            target, source = (before, patch.before) if subtracted else (after, patch.after)
            target[first - start : last - start] = source[inner]
    placed = np.array(residual.shape) > 1  # an axis of length 1 has no position
    with np.errstate(all="ignore"):  # a fit that failed may lie anywhere
        offset = np.where(placed, (np.array(peak) - step.mu) / sigma, 0.0)
        across = np.delete(offset, axis) @ np.delete(offset, axis)
        along = (index - step.mu[axis]) / sigma[axis] if placed[axis] else np.zeros(len(index))
        fit = step.alpha * trajectory.peak_of_unit_alpha * np.exp(-0.5 * (across + along * along))
    seen = step.window[axis]
    return Profile(
        axis=axis,
        index=index,
        offset_mm=(index - peak[axis]) * float(spacing[axis]),
        residual=before,
        fit=fit,
        after=after,
        window=(index >= seen.start) & (index < seen.stop),
    )
