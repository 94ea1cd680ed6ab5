"""Point annotations -> target heatmaps, and lesion masks -> points (paper, section 3.1).

In: points as float voxel indices, or a binary lesion mask. Out: the heatmap a network learns to predict, or one
point and size a lesion. NumPy only, but for the connected components of a mask (SciPy, loaded when asked for).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

REACH = 6.0
"""Half-width, in sigma, of the box in which a Gaussian is evaluated; beyond, the density is below 2e-8 of its peak."""

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel in 3-D -> the number of axes along which they may differ."""


def per_axis(sigma: float | Sequence[float], ndim: int) -> Float[np.ndarray, " ndim"]:
    """Return `sigma` as one positive standard deviation an axis, in voxels.

    Raises
    ------
    ValueError
        If `sigma` is neither a scalar nor of length `ndim`, or holds anything but positive finite numbers.
    """
    values = np.asarray(sigma, dtype=float)
    if values.shape not in ((), (ndim,)):
        raise ValueError(f"sigma must be a number or one number for each of the {ndim} axes, got shape {values.shape}")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"sigma must be positive and finite (standard deviation in voxels), got {sigma!r}")
    return np.broadcast_to(values, (ndim,)).copy()


def as_points(points: Any, ndim: int, name: str = "points") -> Float[np.ndarray, "n {ndim}"]:
    """Return `points` as a float array `(n, ndim)`; an empty sequence gives `(0, ndim)`.

    Raises
    ------
    ValueError
        If the shape is not `(n, ndim)` or a coordinate is NaN or infinite.
    """
    try:
        array = np.asarray(points, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must have shape (n, {ndim}) and hold numbers, one row a lesion") from None
    if array.size == 0:
        return np.zeros((0, ndim))
    if array.ndim != 2 or array.shape[1] != ndim:
        raise ValueError(f"{name} must have shape (n, {ndim}), one row a lesion, got {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"{name} must be finite, but row {row} is {array[row].tolist()}")
    return array


def gaussian_heatmap(
    points: Any,
    shape: Sequence[int],
    sigma: float | Sequence[float] = 1.0,
    *,
    weights: Any = None,
    border: Literal["renormalise", "truncate"] = "renormalise",
    dtype: Any = np.float32,
) -> Float[np.ndarray, "..."]:
    """Render the target heatmap: a sum of Gaussians of mass 1, one a lesion (paper, section 3.1 and equation 1).

    Each Gaussian is evaluated only within `REACH` standard deviations of its point, as the product of one vector an
    axis; the volume is never filtered. Points need not lie on voxel centres.

    Parameters
    ----------
    points : (n, ndim) array of float
        Voxel indices in the order of the array's axes; the centre of the first voxel is 0.0.
    shape : sequence of int
        Shape of the heatmap, 2-D or 3-D (any dimension works).
    sigma : float or one float an axis
        Standard deviation in voxels (paper: 1.0, 1.25 and 1.5).
    weights : (n,) array of float, optional
        Mass of each Gaussian, 1 by default.
    border : {"renormalise", "truncate"}
        What becomes of a Gaussian that the border cuts. "renormalise" scales the part inside to the full mass and
        leaves out points outside the volume (beyond half a voxel from the outermost centres), so that the sum of the
        heatmap is the number of points inside. "truncate" evaluates the density as it is, tails of points outside
        included: a crop of a larger heatmap, as training on patches needs it.
    dtype : dtype
        Of the result.

    Returns
    -------
    heatmap : array of `shape`
        Mass for each voxel.

    Raises
    ------
    ValueError
        If `points`, `shape`, `sigma` or `weights` do not fit together.

    Notes
    -----
    The paper filters an impulse volume. A filter rounds each point to a voxel and touches every voxel of the volume;
    this does neither.

    Examples
    --------
    >>> heatmap = gaussian_heatmap([[10.0, 10.5, 9.2], [20.0, 3.0, 0.0]], (24, 24, 24), sigma=1.25)
    >>> round(float(heatmap.sum()), 4)
    2.0
    """
    shape = tuple(int(n) for n in shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"shape must hold positive lengths, got {shape}")
    ndim = len(shape)
    array = as_points(points, ndim)
    width = per_axis(sigma, ndim)
    mass = np.ones(len(array)) if weights is None else np.asarray(weights, dtype=float)
    if mass.shape != (len(array),):
        raise ValueError(f"weights must have shape ({len(array)},), one a point, got {mass.shape}")
    if border not in ("renormalise", "truncate"):
        raise ValueError(f"border must be 'renormalise' or 'truncate', got {border!r}")

    heatmap = _zeros(shape, np.dtype(dtype))
    if border == "renormalise":
        inside = points_inside(array, shape)
        array, mass = array[inside], mass[inside]
    if len(array) == 0:
        return heatmap
    factors, lows, highs = [], [], []
    for x, s, n in zip(array.T, width, shape, strict=True):  # all points at once: small calls cost more than their sums
        low = np.maximum(np.ceil(x - REACH * s), 0).astype(int)
        high = np.clip(np.floor(x + REACH * s) + 1, 0, n).astype(int)
        if border == "renormalise":  # a very narrow Gaussian between two voxels still reaches the nearest one
            nearest = np.clip(np.rint(x), 0, n - 1).astype(int)
            low, high = np.minimum(low, nearest), np.maximum(high, nearest + 1)
        index = low[:, None] + np.arange(max(int((high - low).max()), 0))
        squared = ((index - x[:, None]) / s) ** 2
        squared[index >= high[:, None]] = np.inf
        if border == "renormalise":
            factor = np.exp(-0.5 * (squared - squared.min(axis=1, keepdims=True)))
            factor /= factor.sum(axis=1, keepdims=True)
        else:
            factor = np.exp(-0.5 * squared) / (np.sqrt(2 * np.pi) * s)
        factors.append(factor)
        lows.append(low.tolist())
        highs.append(high.tolist())
    factors[0] *= mass[:, None]
    boxes = [
        tuple(slice(*ends) for ends in zip(low, high, strict=True))
        for low, high in zip(zip(*lows, strict=True), zip(*highs, strict=True), strict=True)
    ]
    for box in boxes:
        heatmap[box] = 0  # a page that is written before it is read costs one fault instead of two
    for number, box in enumerate(boxes):
        if any(part.start >= part.stop for part in box):
            continue
        parts = [factor[number, : part.stop - part.start] for factor, part in zip(factors, box, strict=True)]
        patch = parts[0]
        for part in parts[1:]:
            patch = patch[..., None] * part
        heatmap[box] += patch
    return heatmap


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Float[np.ndarray, "..."]:
    """Return zeros in pages fresh from the system, which are zero until somebody writes to them.

    `numpy.zeros` clears memory that malloc recycles; for a volume of 9 MB that takes longer than the Gaussians.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < 1 << 20 or not hasattr(mmap, "MAP_PRIVATE"):
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(shape)


def points_inside(points: Float[np.ndarray, "n ndim"], shape: Sequence[int]) -> Bool[np.ndarray, " n"]:
    """Tell which points lie in the volume, that is, within half a voxel of a voxel centre."""
    return np.asarray(((points >= -0.5) & (points < np.asarray(shape) - 0.5)).all(axis=1))


class LesionComponents(NamedTuple):
    """The lesions of a mask, one row each, in raster order of their first voxel."""

    points: Float[np.ndarray, "n ndim"]
    """Centres of mass, voxel indices."""
    sizes: Int[np.ndarray, " n"]
    """Voxels of each lesion."""
    labels: Int[np.ndarray, "..."]
    """The mask with voxels numbered 1 to n by lesion, 0 outside."""


def points_from_mask(
    mask: Num[np.ndarray, "..."] | Any, *, connectivity: int = 18, min_size: int = 1
) -> LesionComponents:
    """Turn a lesion mask into one point a lesion: the centre of mass of each connected component (paper, section 4.1).

    Parameters
    ----------
    mask : array, 2-D or 3-D
        Lesion voxels are those greater than 0.
    connectivity : {6, 18, 26}
        Neighbourhood in 3-D; 18 is the one of the paper's code. In 2-D, 6 stands for edges only, the others for edges
        and corners.
    min_size : int
        Components of fewer voxels are left out (3 in the paper's size classes).

    Returns
    -------
    LesionComponents
        Empty if the mask is.

    Raises
    ------
    ValueError
        If the mask has NaN, too few or too many dimensions, or an argument is out of range.
    """
    from scipy import ndimage

    array = np.asarray(mask)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"mask must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in (2, 3):
        raise ValueError(f"mask must be 2-D or 3-D, got {array.ndim}-D of shape {array.shape}")
    if connectivity not in CONNECTIVITIES:
        raise ValueError(f"connectivity must be one of {sorted(CONNECTIVITIES)}, got {connectivity!r}")
    if min_size < 1:
        raise ValueError(f"min_size must be at least 1 voxel, got {min_size}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError("mask must not hold NaN")
    structure = ndimage.generate_binary_structure(array.ndim, min(CONNECTIVITIES[connectivity], array.ndim))
    labels, _ = ndimage.label(array > 0, structure=structure)
    voxels = np.nonzero(labels)
    component = labels[voxels]
    sizes = np.bincount(component)[1:]
    keep = sizes >= min_size
    if not keep.all():
        renumber = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)]).astype(labels.dtype)
        labels = renumber[labels]
    sums = [np.bincount(component, weights=axis)[1:] for axis in voxels]
    if len(sizes) == 0:
        return LesionComponents(np.zeros((0, array.ndim)), np.zeros(0, dtype=np.int64), labels)
    return LesionComponents((np.stack(sums, axis=1) / sizes[:, None])[keep], sizes[keep].astype(np.int64), labels)
