"""Points -> distance maps, the labels that the paper compares heatmaps with (sections 2 and 4, table 1).

In: points as float voxel indices and, for geodesic maps, an image. Out: a map that is 1 at each point, falls with the
distance from it and is exactly 0 beyond `radius`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from lesionkit.labels import as_points, per_axis


def euclidean_map(
    points: Any, shape: Sequence[int], *, radius: float | Sequence[float] = 6.0, decay: float = 3.0
) -> Float[np.ndarray, "..."]:
    """Render a Euclidean distance map: `(1 - distance / radius) ** decay` to the nearest point, 0 beyond `radius`.

    Parameters
    ----------
    points : (n, ndim) array of float
        Voxel indices in the order of the array's axes; those outside the volume still reach in.
    shape : sequence of int
        Shape of the map, 2-D or 3-D.
    radius : float or one float an axis
        Distance at which the map reaches 0, voxels.
    decay : float
        The paper's `p`; the larger, the narrower the peak. With 3 and a radius of 6 the map is as wide at half its
        height as a Gaussian of sigma 1.05 voxels.

    Returns
    -------
    map : array of `shape`, float32
        Between 0 and 1; where maps of two points meet, the larger value.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or is not positive.

    Examples
    --------
    >>> euclidean_map([[2.0, 2.0]], (5, 5), radius=2.0, decay=1.0)[2].tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    shape = tuple(int(n) for n in shape)
    result, reach = _start(points, shape, radius, decay)
    for point, box in _boxes(as_points(points, len(shape)), shape, reach):
        squared = np.zeros(())
        for x, r, part in zip(point, reach, box, strict=True):
            squared = squared[..., None] + ((np.arange(part.start, part.stop) - x) / r) ** 2
        result[box] = np.maximum(result[box], _fall(np.sqrt(squared), decay))
    return result


def geodesic_map(
    points: Any,
    image: Num[np.ndarray, "..."],
    *,
    radius: float | Sequence[float] = 6.0,
    decay: float = 3.0,
    contrast: float = 1.0,
) -> Float[np.ndarray, "..."]:
    """Render a geodesic distance map: as `euclidean_map`, but the way across an edge of the image is longer.

    A step between neighbouring voxels of intensities `a` and `b` costs `sqrt(length**2 + (contrast * (a - b))**2)`, and
    the distance is that of the cheapest path. It is never less than the Euclidean one, so that the support stays within
    `radius`, and equal to it where the image is constant.

    Parameters
    ----------
    points : (n, ndim) array of float
        Voxel indices in the order of the array's axes.
    image : array, 2-D or 3-D
        Intensities, normalised so that `contrast` has a meaning; beyond its border they go on as at the border.
    radius, decay
        As for `euclidean_map`.
    contrast : float
        Voxels of way that a difference of 1 in intensity is worth; 0 gives the Euclidean map.

    Returns
    -------
    map : array of the shape of `image`, float32

    Raises
    ------
    ValueError
        If an argument has the wrong shape or range, or the image holds NaN or infinite voxels.

    Notes
    -----
    Dijkstra's algorithm (SciPy) on the graph of 26 neighbours (8 in 2-D), in the box around each point alone. Paths on
    that graph zigzag and are up to 13 % too long; what the same graph adds to the Euclidean distance in a constant
    image is known and taken off again. docs/labels.md compares this with fast marching and with other libraries.
    """
    values = np.asarray(image)
    if values.dtype.kind not in "buif" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        raise ValueError("image must hold finite numbers; NaN or infinite voxels have no geodesic distance")
    if not (math.isfinite(contrast) and contrast >= 0):
        raise ValueError(f"contrast must be 0 or more, got {contrast!r}")
    shape = values.shape
    result, reach = _start(points, shape, radius, decay)
    graph = _graph(tuple(math.ceil(r) + 1 for r in reach), tuple(reach.tolist()))
    for point, _ in _boxes(as_points(points, len(shape)), shape, reach):
        corner = np.rint(point).astype(int) - graph.middle
        index = [c + np.arange(n) for c, n in zip(corner, graph.shape, strict=True)]
        inside = [np.clip(i, 0, n - 1) for i, n in zip(index, shape, strict=True)]
        patch = values[np.ix_(*inside)].astype(np.float64)
        squared = np.zeros(())
        for i, x, r in zip(index, point, reach, strict=True):
            squared = squared[..., None] + ((i - x) / r) ** 2
        distance = np.sqrt(squared) + graph.detour(patch, contrast)
        kept = tuple(slice(int(np.argmax(i >= 0)), int(np.sum(i < n))) for i, n in zip(index, shape, strict=True))
        box = tuple(slice(max(int(i[0]), 0), min(int(i[-1]) + 1, n)) for i, n in zip(index, shape, strict=True))
        result[box] = np.maximum(result[box], _fall(distance[kept], decay))
    return result


def _start(
    points: Any, shape: tuple[int, ...], radius: float | Sequence[float], decay: float
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, " ndim"]]:
    """Check the arguments; return an empty map and the radius of each axis."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape must be that of a 2-D or 3-D array, got {shape}")
    if not (math.isfinite(decay) and decay > 0):
        raise ValueError(f"decay must be positive, got {decay!r}")
    as_points(points, len(shape))
    try:
        reach = per_axis(radius, len(shape))
    except ValueError as error:
        raise ValueError(
            f"radius must be positive, a number or one for each of the {len(shape)} axes, got {radius!r}"
        ) from error
    return np.zeros(shape, np.float32), reach


def _boxes(
    points: Float[np.ndarray, "n ndim"], shape: tuple[int, ...], reach: Float[np.ndarray, " ndim"]
) -> Iterator[tuple[Float[np.ndarray, " ndim"], tuple[slice, ...]]]:
    """Each point that reaches the volume, and the box that it can reach."""
    for point in points:
        low = np.maximum(np.ceil(point - reach), 0).astype(int)
        high = np.minimum(np.floor(point + reach) + 1, shape).astype(int)
        if (low < high).all():
            yield point, tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _fall(distance: Float[np.ndarray, "..."], decay: float) -> Float[np.ndarray, "..."]:
    """Value at a distance in units of the radius."""
    return np.asarray(np.maximum(1 - distance, 0) ** decay)


class _Graph(NamedTuple):
    """Neighbours in a small box, and the length of the shortest path from its middle where the image is constant."""

    shape: tuple[int, ...]
    middle: Int[np.ndarray, " ndim"]
    start: Int[np.ndarray, " edges"]
    end: Int[np.ndarray, " edges"]
    length: Float[np.ndarray, " edges"]
    plain: Float[np.ndarray, "..."]
    reach: float

    def detour(self, patch: Float[np.ndarray, "..."], contrast: float) -> Float[np.ndarray, "..."]:
        """How much longer the way from the middle is than in a constant image, in units of the radius."""
        flat = patch.ravel() * (contrast / self.reach)
        cost = np.hypot(self.length, flat[self.start] - flat[self.end])
        return np.asarray(np.maximum(self.paths(cost, limit=1.5).reshape(self.shape) - self.plain, 0))

    def paths(self, cost: Float[np.ndarray, " edges"], *, limit: float = np.inf) -> Float[np.ndarray, " voxels"]:
        """Cost of the cheapest path from the middle; infinite where it is more than `limit`."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        n = math.prod(self.shape)
        middle = np.ravel_multi_index(tuple(self.middle), self.shape)
        graph: Any = csr_array((cost, (self.start, self.end)), shape=(n, n))
        return np.asarray(dijkstra(graph, directed=False, indices=middle, limit=limit))


@lru_cache(maxsize=8)
def _graph(half: tuple[int, ...], reach: tuple[float, ...]) -> _Graph:
    shape = tuple(2 * h + 1 for h in half)
    number = np.arange(math.prod(shape)).reshape(shape)
    start, end, length = [], [], []
    for step in product((-1, 0, 1), repeat=len(half)):
        if step <= (0,) * len(half):  # each pair of neighbours once
            continue
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, shape, strict=True))
        start.append(number[here].ravel())
        end.append(number[there].ravel())
        length.append(np.full(start[-1].size, math.hypot(*(s / r for s, r in zip(step, reach, strict=True)))))
    parts = (np.concatenate(start), np.concatenate(end), np.concatenate(length))
    mean = math.prod(reach) ** (1 / len(reach))  # what a difference in intensity is measured against
    empty = _Graph(shape, np.array(half), *parts, np.zeros(shape), mean)
    return empty._replace(plain=empty.paths(parts[2]).reshape(shape))
