"""The maxima of a heatmap under subtraction: one streaming read, then only the voxels that can still be a maximum.

What is subtracted is never negative, so a residual never exceeds the map: a voxel at or below the level that ends the
search can be forgotten at once. The few that remain are kept as a list with their residual values; the map itself is
neither copied nor changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

Array = np.ndarray
CHUNK = 4096
"""Voxels a maximum is taken over: long enough for one vector loop, short enough to skip most of the map afterwards."""
PART = 640 * CHUNK
"""Voxels read at a time, so that a second look at signed maps does not read a file twice."""
_BITS = {4: (np.uint32, np.int32, 0xFF << 23), 8: (np.uint64, np.int64, 0x7FF << 52)}
"""Floats of so many bytes as integers, and the bit pattern of infinity."""
BYTES = 256
"""Pairs of voxel and Gaussian taken at once are fewer than the bytes of the map over this: half its size in memory."""
DIRECT = 8000
"""Up to this many pairs of voxel and Gaussian it is quicker to take them all than to find the close ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A 2-D or 3-D map seen as three axes in the order of its memory; axes of length 1 carry no position."""

    view: Num[Array, "a b c"]
    """The map without a copy; missing axes have length 1."""
    sigma: Float[Array, " 3"]
    """Standard deviation along the view's axes; ``inf`` where there is no position."""
    axes: tuple[int, ...]
    """Axis of the map behind each of the view's axes, -1 for a missing one."""
    shape: tuple[int, ...]
    """Shape of the map."""

    @classmethod
    def of(cls, heatmap: Num[Array, " ..."], sigma: Float[Array, " ndim"]) -> Layout:
        """Order the axes by stride, so that a Fortran-ordered map (as nibabel gives) is read in its own order."""
        free = [a for a in range(heatmap.ndim) if heatmap.shape[a] != 1]
        free.sort(key=lambda a: -abs(heatmap.strides[a]))
        axes = {0: [-1, -1, -1], 1: [*free, -1, -1], 2: [*free[:1], -1, *free[1:]], 3: free}[len(free)]
        flat = heatmap.transpose([a for a in range(heatmap.ndim) if heatmap.shape[a] == 1] + free)
        view = flat.reshape([1 if a < 0 else heatmap.shape[a] for a in axes])
        widths = np.array([np.inf if a < 0 else sigma[a] for a in axes])
        return cls(view=view, sigma=widths, axes=tuple(axes), shape=heatmap.shape)

    def point(self, mu: Float[Array, "... 3"]) -> Float[Array, "... ndim"]:
        """Points in the map's axis order; 0 along axes of length 1."""
        if self.axes == (0, 1, 2):
            return mu
        out = np.zeros((*mu.shape[:-1], len(self.shape)))
        for i, axis in enumerate(self.axes):
            if axis >= 0:
                out[..., axis] = mu[..., i]
        return out

    def voxels(self, indices: Int[Array, "k 3"]) -> list[tuple[int, ...]]:
        """Return indices of the view in the map's axis order."""
        if self.axes == (0, 1, 2):
            return list(zip(*indices.T.tolist(), strict=True))
        out = np.zeros((len(indices), len(self.shape)), int)
        for i, axis in enumerate(self.axes):
            if axis >= 0:
                out[:, axis] = indices[:, i]
        return list(map(tuple, out.tolist()))

    def boxes(self, lower: Int[Array, "k 3"], upper: Int[Array, "k 3"]) -> list[tuple[slice, ...]]:
        """Return boxes of the view as slices in the map's axis order."""
        sides: list[Iterable[slice]] = [[slice(0, 1)] * len(lower)] * len(self.shape)
        for i, axis in enumerate(self.axes):
            if axis >= 0:
                sides[axis] = map(slice, lower[:, i].tolist(), upper[:, i].tolist())
        return list(zip(*sides, strict=True))

    def covariance(self, matrix: Float[Array, "... 3 3"]) -> Float[Array, "... ndim ndim"]:
        """Return a covariance of the view's axes in the map's; uniform over the voxel (1/12) along axes of length 1."""
        if self.axes == (0, 1, 2):
            return matrix
        out = np.zeros((*matrix.shape[:-2], len(self.shape), len(self.shape)))
        out[..., np.arange(len(self.shape)), np.arange(len(self.shape))] = 1.0 / 12.0
        for i, a in enumerate(self.axes):
            for j, b in enumerate(self.axes):
                if a >= 0 and b >= 0:
                    out[..., a, b] = matrix[..., i, j]
        return out


def _runs(view: Num[Array, "a b c"]) -> Iterator[tuple[int, Num[Array, " n"]]]:
    """Yield ``(offset, flat part)`` of the map: all of it where memory allows, else slab by slab."""
    if view.flags.c_contiguous and view.dtype.isnative and view.dtype != np.float16:
        yield 0, view.reshape(-1)
        return
    plane = view.shape[1] * view.shape[2]
    step = max(1, (1 << 18) // max(plane, 1))
    for z in range(0, view.shape[0], step):
        slab = view[z : z + step]
        wanted = np.float32 if slab.dtype == np.float16 else slab.dtype.newbyteorder("=")
        yield z * plane, np.ascontiguousarray(slab, dtype=wanted).reshape(-1)


def _chunk_maxima(flat: Num[Array, " n"]) -> Num[Array, " m"]:
    """Return the maximum of each chunk; `argmax` reads memory faster than `max` does."""
    whole = flat.size // CHUNK * CHUNK
    top = flat.take(flat[:whole].reshape(-1, CHUNK).argmax(1) + np.arange(0, whole, CHUNK))
    return np.append(top, flat[whole:].max()) if whole < flat.size else top


def _finite_maxima(flat: Num[Array, " n"]) -> Num[Array, " m"]:
    """Maximum of each chunk, or something negative where none is positive; NaN where it holds NaN or an infinity.

    The bit patterns of floats that are not negative grow with their value. Read as unsigned numbers, NaN, infinities
    and negative numbers lie above them: one maximum finds them all, and a map without negative voxels is read only
    once. Read as signed numbers, only positive NaN and infinity do. Maxima of integers are the faster ones, too.
    """
    if flat.dtype.kind != "f":
        return _chunk_maxima(flat)
    unsigned, signed, infinity = _BITS[flat.dtype.itemsize]
    minus_infinity = infinity + (1 << (8 * flat.dtype.itemsize - 1))
    parts = [np.zeros(0, flat.dtype)]
    for first in range(0, flat.size, PART):
        part = flat[first : first + PART]
        highest = _chunk_maxima(part.view(unsigned))
        if np.maximum.reduce(highest) < infinity:
            parts.append(highest.view(flat.dtype))
            continue
        top = _chunk_maxima(part.view(signed))
        bad = (highest >= minus_infinity) | (top >= infinity)
        parts.append(np.where(bad, np.array(np.nan, flat.dtype), top.view(flat.dtype)))
    return np.concatenate(parts)


class Maxima:
    """The voxels of a map above `floor`, and what is left of them while Gaussians are subtracted.

    Parameters
    ----------
    view : (a, b, c) array
        The map; not changed.
    floor : float
        Voxels at or below it are never returned.

    Raises
    ------
    FloatingPointError
        If a voxel is NaN or infinite.
    """

    def __init__(self, view: Num[Array, "a b c"], floor: float) -> None:
        self.view = view
        self.floor = floor
        self.capacity = max(CHUNK, view.size // 32)
        self._tops = [_finite_maxima(flat).astype(float) for _, flat in _runs(view)]
        highest = [float(np.maximum.reduce(tops)) for tops in self._tops if tops.size]
        if any(map(math.isnan, highest)):
            raise FloatingPointError
        self.top = max(highest, default=-np.inf)
        self.level = np.inf
        self.truncated = False
        self.flat = np.zeros(0, np.int64)
        self.residual = np.zeros(0)
        self.index = np.zeros((3, 0), np.int64)

    def descend(self) -> bool:
        """Lower the level and collect the voxels above it; False when there is no lower level to go to."""
        if self.truncated or self.level <= self.floor or self.top <= self.floor:
            return False
        bottom = self.floor if not np.isfinite(self.level) else max(self.floor, 0.5 * self.level)
        found = self._above(bottom)
        while found is None:  # too many: look at the bright ones first
            bottom = max(float(np.sqrt(bottom) * np.sqrt(min(self.top, self.level))), bottom)
            if bottom >= 0.97 * min(self.top, self.level):
                found = self._above(bottom if bottom < min(self.top, self.level) else self.floor, truncate=True)
                self.truncated = True
            else:
                found = self._above(bottom)
        self.level = bottom
        self.flat, self.residual = found
        _, ny, nx = self.view.shape
        rows = self.flat // nx
        planes = rows // ny
        self.index = np.array([planes, rows - planes * ny, self.flat - rows * nx])
        return True

    def _above(self, level: float, truncate: bool = False) -> tuple[Int[Array, " n"], Float[Array, " n"]] | None:
        where: list[Int[Array, " n"]] = []
        values: list[Num[Array, " n"]] = []
        count = 0
        for (offset, flat), top in zip(_runs(self.view), self._tops, strict=True):
            chosen = np.flatnonzero(top > level)
            batch = max(4, min(64, top.size // 16))  # of which copies are made
            for first in range(0, chosen.size, batch):
                part = chosen[first : first + batch]
                at, value = _voxels_above(flat, part, level)
                count += at.size
                where.append(at + offset)
                values.append(value)
                if count > self.capacity:
                    if not truncate:
                        return None
                    break
        if not where:
            return np.zeros(0, np.int64), np.zeros(0)
        limit = self.capacity if truncate else None
        return np.concatenate(where)[:limit], np.concatenate(values)[:limit].astype(float)

    def highest(self) -> int:
        """Return the number of the highest remaining voxel, -1 if none is above the level."""
        if not self.residual.size:
            return -1
        k = int(self.residual.argmax())
        return k if self.residual[k] > self.level else -1

    def add(
        self,
        mu: Float[Array, "m 3"],
        amplitude: Float[Array, " m"],
        inverse: Float[Array, " 3"],
        reach: Int[Array, " 3"],
    ) -> None:
        """Add Gaussians to the residual, within `reach` planes and rows of their centres; `inverse` is 1 / sigma."""
        if len(mu) * self.flat.size <= DIRECT:
            all_offsets = self.index[:, None] - mu.T[:, :, None]
            all_offsets *= inverse[:, None, None]
            all_offsets *= all_offsets
            self.residual += amplitude @ _exp(np.add.reduce(all_offsets))
            return
        most = max(DIRECT, self.view.nbytes // BYTES)
        rows = (2 * int(reach[0]) + 1) * (2 * int(reach[1]) + 1)
        total = 0
        if len(mu) * rows <= most or len(mu) == 1:
            start, count = self._runs_within(np.rint(mu).astype(np.int64), reach)
            total = int(count.sum())
            if not total:
                return
        if len(mu) > 1 and not 0 < total <= most:  # more at a time takes more memory than the map
            half = len(mu) // 2
            self.add(mu[:half], amplitude[:half], inverse, reach)
            self.add(mu[half:], amplitude[half:], inverse, reach)
            return
        # the numbers of the voxels in all these runs, one after the other, and the Gaussian that each belongs to
        runs = count.reshape(-1)
        where = np.arange(total) + np.repeat(start.reshape(-1) - (np.cumsum(runs) - runs), runs)
        which = np.repeat(np.arange(len(mu)), np.add.reduce(count, 1))
        squared = np.zeros(total)
        for axis in range(3):
            offset = self.index[axis].take(where) - mu[:, axis].take(which)
            offset *= inverse[axis]
            offset *= offset
            squared += offset
        values = _exp(squared) * amplitude.take(which)
        if len(mu) == 1:
            self.residual[where] += values
        else:
            self.residual += np.bincount(where, values, self.residual.size)

    def _runs_within(
        self, middle: Int[Array, "m 3"], reach: Int[Array, " 3"]
    ) -> tuple[Int[Array, "m r"], Int[Array, "m r"]]:
        """Return starts and lengths of the runs of the list that hold the voxels near each centre.

        A run is all rows of one plane, or one row where there are many voxels in each.
        """
        nz, ny, nx = self.view.shape
        z = middle[:, :1] + np.arange(-reach[0], reach[0] + 1)
        rows = np.clip(middle[:, 1:2] + (-reach[1], reach[1] + 1), 0, ny)
        if self.flat.size > 2 * nz * ny and nx > 1:
            y = middle[:, 1:2] + np.arange(-reach[1], reach[1] + 1)
            columns = np.clip(middle[:, 2:] + (-reach[2], reach[2] + 1), 0, nx)[:, None, None]
            inside = ((z >= 0) & (z < nz))[:, :, None] & ((y >= 0) & (y < ny))[:, None, :]
            line = (z[:, :, None] * ny + y[:, None, :]) * nx
            first, last = (line + columns[..., 0]).reshape(len(z), -1), (line + columns[..., 1]).reshape(len(z), -1)
            inside = inside.reshape(len(z), -1)
        else:
            inside = (z >= 0) & (z < nz)
            first, last = (z * ny + rows[:, :1]) * nx, (z * ny + rows[:, 1:]) * nx
        start = self.flat.searchsorted(first)
        return start, np.where(inside, self.flat.searchsorted(last) - start, 0)

    def discard_box(self, lower: Int[Array, " 3"], upper: Int[Array, " 3"]) -> None:
        """Never return the voxels ``lower <= index < upper`` again."""
        inside = ((self.index >= lower[:, None]) & (self.index < upper[:, None])).all(0)
        self.residual[inside] = -np.inf

    def peaks(self) -> Int[Array, " m"]:
        """Return the numbers of the remaining voxels that no neighbour along an axis exceeds in the map.

        Of equal neighbours only the first counts: a flat top would else be all peaks.
        """
        alive = np.isfinite(self.residual)
        neighbours = self.flat[1:] - self.flat[:-1] == 1  # along the last axis they are next to each other in the list
        rising = self.residual[1:] > self.residual[:-1]
        alive[:-1] &= ~(neighbours & rising)
        alive[1:] &= ~(neighbours > rising)
        numbers = alive.nonzero()[0]
        (z, y, x), height = self.index.take(numbers, 1), self.residual.take(numbers)
        nz, ny, _ = self.view.shape
        highest = (self.view[np.maximum(z - 1, 0), y, x] < height) | (z == 0)
        highest &= (self.view[z, np.maximum(y - 1, 0), x] < height) | (y == 0)
        highest &= self.view[np.minimum(z + 1, nz - 1), y, x] <= height
        highest &= self.view[z, np.minimum(y + 1, ny - 1), x] <= height
        return np.asarray(numbers[highest])


def _exp(squared: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ``exp(-squared / 2)``; far away a small number, since numbers that underflow are many times slower."""
    squared = np.minimum(squared, 200.0)
    squared *= -0.5
    return np.asarray(np.exp(squared, out=squared))


def _voxels_above(
    flat: Num[Array, " n"], chunks: Int[Array, " m"], level: float
) -> tuple[Int[Array, " k"], Num[Array, " k"]]:
    """Return flat indices, ascending, and values of the voxels above `level` in the given chunks."""
    n_whole = flat.size // CHUNK
    n_chosen = int(chunks.searchsorted(n_whole))
    block = flat[: n_whole * CHUNK].reshape(-1, CHUNK).take(chunks[:n_chosen], 0)
    above = (block > level).reshape(-1)
    eights = above.view(np.uint64).astype(bool).nonzero()[0]  # most are empty, and read eight at a time
    among = above.reshape(-1, 8).take(eights, 0).reshape(-1).nonzero()[0]
    at = eights.take(among >> 3) * 8 + (among & 7)
    at += ((chunks[:n_chosen] - np.arange(n_chosen)) * CHUNK).take(at // CHUNK)
    if n_chosen < chunks.size:
        tail = flat[n_whole * CHUNK :]
        at = np.concatenate([at, (tail > level).nonzero()[0] + n_whole * CHUNK])
    return at, flat.take(at)


def first_not_finite(heatmap: Num[Array, " ..."]) -> tuple[int, ...]:
    """Return the first index, in C order, that holds NaN or an infinity."""
    for i in range(heatmap.shape[0]):
        bad = ~np.isfinite(heatmap[i])
        if bad.any():
            return (i, *(int(j) for j in np.unravel_index(int(bad.argmax()), bad.shape)))
    raise ValueError("every voxel is finite")


def as_heatmap(heatmap: Num[Array, "..."]) -> Num[Array, "..."]:
    """Return the map as an array of a type that the search reads, without a copy where it can.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it is not 2-D or 3-D.
    """
    if not isinstance(heatmap, np.ndarray):
        heatmap = np.asarray(heatmap)
    if heatmap.dtype.kind not in "fiub":
        raise TypeError(f"heatmap must hold real numbers, got dtype {heatmap.dtype}")
    if heatmap.ndim not in (2, 3):
        raise ValueError(f"heatmap must be 2-D or 3-D, got shape {heatmap.shape}")
    if heatmap.dtype.kind == "b":
        return heatmap.view(np.uint8)
    if heatmap.dtype.itemsize > 8:
        return heatmap.astype(np.float64)
    return heatmap
