"""One-to-one matching of predicted and true lesions.

In: two sets of points (and the largest distance, in mm, at which they may still be the same lesion), or points and a
label map of the true lesions. Out: a :class:`Matching`, from which every detection metric follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Real

Gate = Literal["before", "after"]


def rates(
    tp: Int[np.ndarray, "*n"] | int, fp: Int[np.ndarray, "*n"] | int, fn: Int[np.ndarray, "*n"] | int
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """Compute precision, recall and F1 from counts.

    Parameters
    ----------
    tp, fp, fn
        Numbers of true positives, false positives and false negatives; numbers or arrays of one shape.

    Returns
    -------
    precision, recall, f1
        In [0, 1]; NaN where the ratio is 0/0: precision where nothing was predicted, recall where there is nothing to
        find, F1 where both hold.
    """
    hits = np.asarray(tp, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return hits / (hits + fp), hits / (hits + fn), 2 * hits / (2 * hits + fp + fn)


class Counted(Protocol):
    """What has the three counts from which every rate follows."""

    @property
    def tp(self) -> int:
        """Number of true positives."""

    @property
    def fp(self) -> int:
        """Number of false positives."""

    @property
    def fn(self) -> int:
        """Number of false negatives."""


class Rated:
    """Precision, recall and F1 of anything that is `Counted`; NaN where a rate is 0/0."""

    @property
    def precision(self: Counted) -> float:
        """Share of the predictions that are true lesions; NaN where nothing was predicted."""
        return float(rates(self.tp, self.fp, self.fn)[0])

    @property
    def recall(self: Counted) -> float:
        """Share of the true lesions that are found; NaN where there is nothing to find."""
        return float(rates(self.tp, self.fp, self.fn)[1])

    @property
    def f1(self: Counted) -> float:
        """Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn); NaN where both sets are empty."""
        return float(rates(self.tp, self.fp, self.fn)[2])


@dataclass(frozen=True, eq=False)
class Matching(Rated):
    """Which predicted point was matched with which true one."""

    pairs: Int[np.ndarray, "k 2"]
    """(index of the predicted point, index of the true point), by rising predicted index; none occurs twice."""
    distances: Float[np.ndarray, " k"]
    """Distance of each pair, in mm."""
    n_predicted: int
    """Number of predicted points."""
    n_true: int
    """Number of true points."""

    @property
    def tp(self) -> int:
        """Number of true positives: matched pairs."""
        return len(self.pairs)

    @property
    def fp(self) -> int:
        """Number of false positives: predicted points without a partner."""
        return self.n_predicted - self.tp

    @property
    def fn(self) -> int:
        """Number of false negatives: true points without a partner."""
        return self.n_true - self.tp

    @cached_property
    def matched_predicted(self) -> Bool[np.ndarray, " n_predicted"]:
        """For each predicted point, whether it has a partner."""
        return np.isin(np.arange(self.n_predicted), self.pairs[:, 0])

    @cached_property
    def matched_true(self) -> Bool[np.ndarray, " n_true"]:
        """For each true point, whether it has a partner."""
        return np.isin(np.arange(self.n_true), self.pairs[:, 1])

    @property
    def unmatched_predicted(self) -> Int[np.ndarray, " fp"]:
        """Indices of the false positives."""
        return np.flatnonzero(~self.matched_predicted)

    @property
    def unmatched_true(self) -> Int[np.ndarray, " fn"]:
        """Indices of the false negatives."""
        return np.flatnonzero(~self.matched_true)


def match_points(
    predicted: Real[np.ndarray, "n ndim"],
    true: Real[np.ndarray, "m ndim"],
    *,
    max_distance: float = 6.0,
    spacing: float | Sequence[float] = 1.0,
    gate: Gate = "before",
) -> Matching:
    """Match predicted and true points one to one by Euclidean distance.

    Parameters
    ----------
    predicted, true
        Points in voxels (with `spacing`) or in mm (without), one row a point; either may be empty.
    max_distance
        Largest distance, in mm, of a pair that counts as a hit (itself included).
    spacing
        Edge lengths of a voxel in mm, one for all axes or one an axis.
    gate
        ``"before"``: pairs beyond `max_distance` are not allowed; as many allowed pairs as possible are made, and
        among those the ones of the smallest total distance. ``"after"``: everything is assigned by the smallest total
        distance, then the far pairs are dropped, and each leaves a false positive and a false negative (paper).

    Returns
    -------
    Matching
        Pairs, distances in mm and counts.

    Raises
    ------
    ValueError
        If the points are not finite, their numbers of axes or the spacing do not fit, or an option is out of range.

    Notes
    -----
    Gating afterwards lets far points spoil a near pair: with predictions at (0, 5) and (-12, 0), lesions at (0, 0) and
    (12, 5) and a gate of 6 mm, the cheapest full assignment is two pairs of 12 mm, and no hit is left; gated before,
    the pair of 5 mm is one. Gated before, there are never fewer hits than gated after.

    References
    ----------
    Paper, section 4 (evaluation): Hungarian algorithm on Euclidean distance; "assignments with large distances are
    considered both a false positive and a false negative".

    Examples
    --------
    >>> import numpy as np
    >>> matching = match_points(np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[0.0, 3.0]]))
    >>> matching.tp, matching.fp, matching.fn, matching.distances
    (1, 1, 0, array([3.]))
    """
    if math.isnan(max_distance) or max_distance < 0:
        raise ValueError(f"max_distance: got {max_distance!r}, wanted 0 mm or more")
    if gate not in ("before", "after"):
        raise ValueError(f"gate: got {gate!r}, wanted 'before' or 'after'")
    distance = distances_mm(predicted, true, spacing=spacing)
    n_predicted, n_true = distance.shape
    if not distance.size:
        return Matching(np.empty((0, 2), dtype=np.intp), np.empty(0), n_predicted, n_true)

    allowed = distance <= max_distance
    cost = distance
    if gate == "before" and not allowed.all():
        # One forbidden pair costs more than all allowed ones together, so the assignment avoids it at any price.
        nearest = distance[allowed]
        forbidden = (min(n_predicted, n_true) + 1) * (float(nearest.max()) if nearest.size else 0.0)
        cost = np.where(allowed, distance, forbidden or 1.0)

    from scipy.optimize import linear_sum_assignment  # slow to load: only where it is used

    rows, columns = linear_sum_assignment(cost)
    near = allowed[rows, columns]
    pairs = np.stack([rows[near], columns[near]], axis=-1)
    return Matching(pairs, distance[rows[near], columns[near]], n_predicted, n_true)


def distances_mm(
    predicted: Real[np.ndarray, "n ndim"], true: Real[np.ndarray, "m ndim"], *, spacing: float | Sequence[float] = 1.0
) -> Float[np.ndarray, "n m"]:
    """Compute all Euclidean distances between two sets of points.

    Parameters
    ----------
    predicted, true
        Points, one row a point, of the same number of axes; either may be empty.
    spacing
        Edge lengths of a voxel in mm, one for all axes or one an axis.

    Returns
    -------
    Float[np.ndarray, "n m"]
        Distances in mm.

    Raises
    ------
    ValueError
        If the points are not finite, or their numbers of axes or the spacing do not fit.
    """
    left, right = _as_points("predicted", predicted), _as_points("true", true)
    if len(left) and len(right) and left.shape[1] != right.shape[1]:
        raise ValueError(f"predicted and true: got {left.shape[1]} and {right.shape[1]} axes, wanted the same number")
    scale = np.asarray(spacing, dtype=np.float64)
    ndim = left.shape[1] if len(left) else right.shape[1]
    if scale.shape not in ((), (ndim,)) and (len(left) or len(right)):
        raise ValueError(f"spacing: got shape {scale.shape}, wanted one number or one for each of {ndim} axes")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"spacing: got {spacing!r}, wanted lengths above 0 mm")
    if not (len(left) and len(right)):
        return np.empty((len(left), len(right)))
    # Axis by axis: no (n, m, ndim) array.
    gaps = [np.subtract.outer(a, b) for a, b in zip((left * scale).T, (right * scale).T, strict=True)]
    total: Float[np.ndarray, "n m"] = np.abs(gaps[0])
    for gap in gaps[1:]:
        total = np.hypot(total, gap)
    return total


@dataclass(frozen=True, eq=False)
class MaskHits:
    """Which predicted point falls inside which true lesion."""

    matching: Matching
    """The hits, one a lesion; the true index counts `labels`, and the distance of a point inside a lesion is 0 mm."""
    labels: Int[np.ndarray, " m"]
    """Label of each true lesion, rising."""
    label_of: Int[np.ndarray, " n"]
    """Label of the lesion that each predicted point falls into; 0: none."""
    duplicates: Int[np.ndarray, " d"]
    """Indices of the predicted points inside a lesion that an earlier point had already hit; `matching` counts them
    as false positives."""

    @property
    def outside(self) -> Int[np.ndarray, " o"]:
        """Indices of the predicted points that fall into no lesion."""
        return np.flatnonzero(self.label_of == 0)


def match_in_mask(points: Real[np.ndarray, "n ndim"], labels: Int[np.ndarray, "*shape"]) -> MaskHits:
    """Match points with the lesions in whose mask they fall.

    Parameters
    ----------
    points
        Predicted points, float voxel index in the axis order of `labels`, the most probable first: the first point in
        a lesion is its hit. A point counts for the voxel whose centre is nearest; outside the array it hits nothing.
    labels
        Label map of the true lesions: 0 background, one positive label a lesion.

    Returns
    -------
    MaskHits
        Hits, duplicates and points outside every lesion.

    Raises
    ------
    ValueError
        If `labels` is not an array of non-negative integers, or the points are not finite or have other axes.

    Notes
    -----
    Kinder to large lesions than a distance to their centre, which may lie outside the lesion; harder on small ones.

    Examples
    --------
    >>> import numpy as np
    >>> hits = match_in_mask(np.array([[0.2, 0.0], [1.0, 0.0], [3.0, 3.0]]), np.array([[7, 0], [7, 0]]))
    >>> hits.matching.tp, hits.duplicates, hits.outside
    (1, array([1]), array([2]))
    """
    lesions = np.asarray(labels)
    if lesions.dtype.kind not in "bui" or not lesions.ndim:
        raise ValueError(f"labels: got {lesions.ndim}-D {lesions.dtype}, wanted an array of integer labels")
    if lesions.size and lesions.min() < 0:
        raise ValueError(f"labels: got the label {lesions.min()}, wanted 0 or more")
    where = _as_points("points", points)
    if len(where) and where.shape[1] != lesions.ndim:
        raise ValueError(f"points: got {where.shape[1]} axes, wanted {lesions.ndim} as in labels")
    where = where.reshape(len(where), lesions.ndim)

    nearest = np.floor(where + 0.5)  # not rint, which sends 0.5 to 0 but 1.5 to 2
    inside = ((nearest >= 0) & (nearest < lesions.shape)).all(axis=1)
    label_of = np.zeros(len(where), dtype=np.intp)
    label_of[inside] = lesions[tuple(nearest[inside].astype(np.intp).T)]
    present = np.unique(lesions)
    present = present[present > 0].astype(np.intp)

    candidates = np.flatnonzero(label_of)
    hit_labels, first = np.unique(label_of[candidates], return_index=True)
    pairs = np.stack([candidates[first], np.searchsorted(present, hit_labels)], axis=-1)
    pairs = pairs[np.argsort(pairs[:, 0])]
    matching = Matching(pairs, np.zeros(len(pairs)), len(where), len(present))
    return MaskHits(matching, present, label_of, np.setdiff1d(candidates, pairs[:, 0]))


def _as_points(name: str, points: Real[np.ndarray, "*shape"]) -> Float[np.ndarray, "n ndim"]:
    array = np.asarray(points, dtype=np.float64)
    if not array.size:  # an empty list has lost its second axis; (0, 3) has not
        return array.reshape(0, array.shape[1] if array.ndim == 2 else 0)
    if array.ndim != 2:
        raise ValueError(f"{name}: got shape {array.shape}, wanted (number of points, number of axes)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: got NaN or infinite coordinates, wanted finite ones")
    return array
