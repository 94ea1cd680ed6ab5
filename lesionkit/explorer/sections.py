"""Rings: what a plane cuts out of the k-sigma ellipsoids of Gaussians, exactly.

In: centres, sigma, a plane. Out: the ellipses, as :class:`Sections`. Everything is in voxels; an affine maps the
outlines to mm exactly, since it maps ellipses to ellipses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lesionkit.labels import as_points, per_axis

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Sections:
    """Ellipses, one a lesion that the plane meets."""

    rows: Int[np.ndarray, " m"]
    """Which of the lesions they belong to."""
    centres: Float[np.ndarray, "m ndim"]
    """Their centres, float voxel index; in the plane."""
    semi_axes: Float[np.ndarray, "m 2 ndim"]
    """From the centre to the ends of the longer and the shorter axis, in voxels."""

    def __len__(self) -> int:
        return len(self.rows)

    def outlines(self, n_points: int = 64) -> Float[np.ndarray, "m n_points ndim"]:
        """Points on the ellipses, in order around them; the last is beside the first."""
        points: Float[np.ndarray, "m n_points ndim"] = self.centres[:, None] + _circle(n_points) @ self.semi_axes
        return points


def ellipsoid_sections(
    mu: Float[np.ndarray, "n ndim"],
    sigma: float | Sequence[float] | Float[np.ndarray, " ndim"],
    *,
    origin: Sequence[float] | Float[np.ndarray, " ndim"] = (0.0, 0.0, 0.0),
    normal: Sequence[float] | Float[np.ndarray, " ndim"] = (1.0, 0.0, 0.0),
    k: float = 2.0,
) -> Sections:
    """Cut the ellipsoids ``sum(((x - mu) / sigma) ** 2) == k ** 2`` with a plane.

    Parameters
    ----------
    mu : (n, ndim) float
        Centres, float voxel index, 2-D or 3-D; rows that are not finite are met by no plane.
    sigma : float or one float an axis
        Standard deviation, in voxels.
    origin : (3,) float
        A point of the plane, float voxel index.
    normal : (3,) float
        The plane's normal in voxel coordinates, of any length: ``(1, 0, 0)`` is a slice along the first axis. In 2-D,
        where the picture is the plane, origin and normal do not matter.
    k : float
        Radius, in sigma.

    Returns
    -------
    Sections
        Empty where the plane meets nothing; a plane that only touches meets nothing.

    Raises
    ------
    ValueError
        If the arguments do not fit together, `k` is not positive or `normal` is zero.

    Examples
    --------
    >>> rings = ellipsoid_sections(np.array([[5.0, 4.0, 3.0]]), 1.0, origin=(6.0, 0.0, 0.0), k=2.0)
    >>> rings.centres.tolist(), np.linalg.norm(rings.semi_axes, axis=2).round(4).tolist()
    ([[6.0, 4.0, 3.0]], [[1.7321, 1.7321]])
    """
    centres = np.asarray(mu, dtype=float)
    if centres.ndim != 2 or centres.shape[1] not in (2, 3):
        raise ValueError(f"mu must have shape (n, 2) or (n, 3), got {centres.shape}")
    if not (math.isfinite(k) and k > 0):
        raise ValueError(f"k must be positive and finite, in sigma, got {k!r}")
    ndim = centres.shape[1]
    width = per_axis(sigma if isinstance(sigma, float | int) else list(sigma), ndim)
    if ndim == 2:
        rows = np.flatnonzero(np.isfinite(centres).all(axis=1))
        offset, radius = np.zeros((len(rows), 2)), np.full(len(rows), k)
        _, axes = _cut(tuple(width.tolist()), (0.0, 0.0))
    else:
        point = as_points([origin], 3, "origin")[0]
        direction, axes = _cut(tuple(width.tolist()), tuple(as_points([normal], 3, "normal")[0].tolist()))
        with np.errstate(invalid="ignore"):  # centres that are not finite
            distance = ((point - centres) / width) @ direction
        rows = np.flatnonzero(np.abs(distance) < k)
        distance = distance[rows]
        offset = distance[:, None] * direction
        radius = np.sqrt(k * k - distance * distance)
    semi_axes = radius[:, None, None] * axes
    return Sections(rows=rows, centres=centres[rows] + offset * width, semi_axes=semi_axes)


@lru_cache(maxsize=64)  # a view draws many sections along the same few planes
def _cut(
    width: tuple[float, ...], normal: tuple[float, ...]
) -> tuple[Float[np.ndarray, " ndim"], Float[np.ndarray, "2 ndim"]]:
    """Return a plane's unit normal in units of sigma, and the semi-axes in voxels of what it cuts at 1 sigma.

    In units of sigma the ellipsoids are balls and planes stay planes. A circle stretched by sigma is an ellipse; its
    axes are those of the stretched basis of the plane.
    """
    direction = np.array(normal) * width
    if len(width) == 2:
        basis = np.eye(2)
    else:
        length = float(np.linalg.norm(direction))
        if length == 0.0:
            raise ValueError("normal must not be zero")
        direction /= length
        basis = np.linalg.svd(direction[None])[2][1:]
    _, stretch, axes = np.linalg.svd(basis * width)
    semi_axes: Float[np.ndarray, "2 ndim"] = stretch[:, None] * axes[:2]
    for array in (direction, semi_axes):
        array.setflags(write=False)
    return direction, semi_axes


@lru_cache(maxsize=4)
def _circle(n_points: int) -> Float[np.ndarray, "n_points 2"]:
    angle = np.linspace(0.0, 2.0 * math.pi, n_points, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    circle.setflags(write=False)
    return circle
