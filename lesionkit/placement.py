"""Where in a lesion the expert clicks: the centre of mass, any voxel of it, or somewhere near (paper, section 5).

In: the lesions of a mask, or exact points. Out: points as less careful annotators would have placed them, to find out
how much a detector minds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from lesionkit.labels import LesionComponents, as_points

Placement = Literal["mass", "voxel"]
"""The point that stands for a lesion: its centre of mass (the paper's), or a voxel drawn from it."""


def random_voxels(lesions: LesionComponents, *, rng: np.random.Generator) -> Float[np.ndarray, "n ndim"]:
    """Draw one voxel from each lesion, all of its voxels with the same probability.

    Parameters
    ----------
    lesions : LesionComponents
        As `points_from_mask` returns them.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    points : (n, ndim) array
        Voxel indices, in the order of the lesions; unlike a centre of mass, always inside.

    Examples
    --------
    >>> from lesionkit import points_from_mask
    >>> mask = np.zeros((9, 9), bool)
    >>> mask[2:4, 5] = True
    >>> bool(mask[tuple(random_voxels(points_from_mask(mask), rng=np.random.default_rng(0))[0].astype(int))])
    True
    """
    voxels = np.flatnonzero(lesions.labels)
    order = np.argsort(lesions.labels.ravel()[voxels], kind="stable")
    first = np.cumsum(lesions.sizes) - lesions.sizes
    picked = voxels[order][first + rng.integers(lesions.sizes)] if len(first) else voxels
    return np.stack(np.unravel_index(picked, lesions.labels.shape), axis=1).astype(float)


def jitter(
    points: Float[np.ndarray, "n ndim"], sd_mm: float, spacing: Sequence[float], *, rng: np.random.Generator
) -> Float[np.ndarray, "n ndim"]:
    """Move each point by a Gaussian error, the same in every direction of space.

    Parameters
    ----------
    points : (n, ndim) array
        Voxel indices.
    sd_mm : float
        Standard deviation of the error along each axis, mm; 0 leaves the points where they are.
    spacing : sequence of float
        Edges of a voxel, mm.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    points : (n, ndim) array
        Voxel indices; one near the border may come to lie outside the volume.

    Raises
    ------
    ValueError
        If `sd_mm` is negative or the shapes do not fit.
    """
    array = as_points(points, len(spacing))
    if not (math.isfinite(sd_mm) and sd_mm >= 0):
        raise ValueError(f"sd_mm must be 0 or more, got {sd_mm!r}")
    return np.asarray(array + rng.normal(0, sd_mm, array.shape) / np.asarray(spacing, dtype=float))
