"""What is left of a heatmap while Gaussians are subtracted: where to look next, and the windows to fit.

The map is read once, and neither copied (if it lies in C order) nor changed. What is subtracted is never negative, so a
residual never exceeds the map: only the voxels above the level that ends the search can become a maximum. They are kept
as a list with what is left of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lesionkit.detection.config import FitConfig
from lesionkit.detection.records import REACH, Box
from lesionkit.detection.window import gaussians

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

Array = np.ndarray

FAR = REACH + 1.0
"""A Gaussian further than this from a voxel, in sigma, is below 3e-11 of its peak there."""
LESION = np.dtype(
    [
        ("found", int),  # by this step
        ("mu", float, 3),
        ("amplitude", float),  # the height that its mass would have at width 1
        ("width", float),  # standard deviation over sigma
        ("variance", float),  # of the amplitude
        ("explained", float),  # share of the energy around it
        ("covariance", float, (3, 3)),  # of mu
    ]
)
NONE = np.zeros(0, LESION)
LOWER = 2.0
"""With free widths the search goes on to the height that a lesion of `min_alpha` and this width can have."""
SLICES = 4
"""Slices read at a time: the second look at them finds them in the cache."""
SHARE = 32
"""One voxel of so many is followed at most, as long as that is enough: it takes less memory than the map."""


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


class Field:
    """A 2-D or 3-D map and its settings, as three axes: what every fit needs to know.

    Parameters
    ----------
    heatmap : 2-D or 3-D array
        The map; not changed.
    config : FitConfig
        Settings, sigma known.
    """

    def __init__(self, heatmap: Num[Array, "..."], config: FitConfig) -> None:
        self.heatmap, self.config, self.free = heatmap, config, config.width == "free"
        self.missing = 3 - heatmap.ndim
        self.view = np.ascontiguousarray(heatmap).reshape((1,) * self.missing + heatmap.shape)
        self.shape = np.array(self.view.shape)
        self.sigma_per_axis = config.sigma_per_axis(heatmap.ndim)
        # an axis of length 1 carries no position: its factor is 1
        self.sigma = np.where(self.shape == 1, np.inf, np.append(np.full(self.missing, np.inf), self.sigma_per_axis))
        self.placed = np.isfinite(self.sigma)
        self.width = np.where(self.placed, self.sigma, 0.0)
        self.half = np.where(self.placed, config.window // 2, 0)
        self.size = np.minimum(2 * self.half + 1, self.shape)
        self.reach = np.ceil(REACH * self.width).astype(int)
        self.n_free = 1 + int(self.placed.sum())
        mass = math.prod(1.0 / (math.sqrt(2.0 * math.pi) * s) for s in self.sigma[self.placed].tolist())
        self.unit = 1.0 if config.scale == "peak" else mass
        self.mass = mass / self.unit
        # the lowest maximum that a lesion of min_alpha can have: its centre lies at the corner between voxels
        corner = float((1.0 / self.sigma[self.placed] ** 2).sum())
        self.floor = config.lowest_alpha * self.unit * math.exp(-0.125 * corner)
        if self.free:
            self.floor /= LOWER ** (self.n_free - 1)

    def point(self, mu: Float[Array, "... 3"]) -> Float[Array, "... ndim"]:
        """Points on the map's axes; 0 along axes of length 1."""
        return np.asarray(np.where(self.placed, mu, 0.0)[..., self.missing :])

    def covariance(self, matrix: Float[Array, "n 3 3"]) -> Float[Array, "n ndim ndim"]:
        """Covariances on the map's axes; along those of length 1 that of a uniform density over the voxel, 1/12."""
        return np.asarray(matrix + np.diag(np.where(self.placed, 0.0, 1.0 / 12.0)))[:, self.missing :, self.missing :]

    def box(self, lower: Int[Array, " 3"], upper: Int[Array, " 3"]) -> Box:
        """Return ``lower <= index < upper`` as slices of the map."""
        return tuple(map(slice, lower.tolist(), upper.tolist()))[self.missing :]

    def bounds(
        self, first: Num[Array, " 3"], last: Num[Array, " 3"], width: float = 1.0
    ) -> tuple[Int[Array, " 3"], Int[Array, " 3"]]:
        """Return the box of the windows around all voxels from `first` to `last`, trimmed at the border."""
        half = self.half if width == 1.0 else np.ceil(self.half * width).astype(int)
        return np.maximum(first - half, 0), np.minimum(last + half + 1, self.shape)

    def less(self, lower: Int[Array, " 3"], upper: Int[Array, " 3"], lesions: Array) -> Float[Array, "a b c"]:
        """Return a box of the map less some lesions, rows of `LESION`."""
        (a, b, c), (d, e, f) = lower.tolist(), upper.tolist()
        box: Float[Array, "a b c"] = self.view[a:d, b:e, c:f].astype(float)
        if len(lesions):
            nearest, reach = np.rint(lesions["mu"]), self.reach * lesions["width"][:, None]
            near = ((nearest - reach < upper) & (nearest + reach >= lower)).all(1)
            if near.any():
                box -= self.render(lesions[near], lower, upper)
        return box

    def render(self, lesions: Array, lower: Int[Array, " 3"], upper: Int[Array, " 3"]) -> Float[Array, "a b c"]:
        """Return the sum of some lesions on the voxels ``lower <= index < upper``."""
        width = lesions["width"]
        height = lesions["amplitude"] / width ** (self.n_free - 1)
        return gaussians(lesions["mu"], height, self.sigma * width[:, None], lower, upper)

    def plateau(self, voxel: Int[Array, " 3"], value: float) -> tuple[Int[Array, " 3"], Int[Array, " 3"]]:
        """Return the box that a flat maximum fills: each side moves on while what it gains is nearly as high."""
        lower, upper, grown = voxel.tolist(), (voxel + 1).tolist(), True
        while grown:
            grown = False
            for axis in range(3):
                for first in (True, False):
                    step = upper[axis] - lower[axis]
                    while step:
                        low, up = list(lower), list(upper)
                        if first:
                            low[axis], up[axis] = max(lower[axis] - step, 0), lower[axis]
                        else:
                            low[axis], up[axis] = upper[axis], min(upper[axis] + step, int(self.shape[axis]))
                        part = self.view[tuple(map(slice, low, up))]
                        if part.size and float(part.mean(dtype=float)) >= 0.5 * value:
                            lower[axis], upper[axis] = min(low[axis], lower[axis]), max(up[axis], upper[axis])
                            grown = True
                            break
                        step //= 2
        return self.bounds(np.array(lower), np.array(upper) - 1)


class Residual:
    """The voxels that can still become a maximum, in raster order, with what is left of them.

    Parameters
    ----------
    field : Field
        The map.

    Raises
    ------
    ValueError
        If a voxel is NaN or infinite; the message names the first.
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        n, ny, nx = field.view.shape
        self.flat, self.top = field.view.reshape(n, ny * nx), np.zeros(n)
        for z in range(0, n if self.flat.size else 0, SLICES):  # the one read
            part = self.flat[z : z + SLICES]
            self.top[z : z + SLICES] = part.max(1)
            if not (np.isfinite(self.top[z : z + SLICES]).all() and np.isfinite(part.min())):
                bad = np.unravel_index(int(np.argmin(np.isfinite(field.heatmap))), field.heatmap.shape)
                index = tuple(int(i) for i in bad)
                raise ValueError(f"heatmap must be finite, but voxel {index} holds {field.heatmap[index]}")
        self.discarded: list[tuple[Int[Array, " 3"], Int[Array, " 3"]]] = []
        self._follow(max(self.flat.size // SHARE, 4096))

    def _follow(self, most: int) -> None:
        """List the highest voxels of the map above the floor, `most` of them at most; of equal ones the first."""
        self.level, plane = self.field.floor, self.flat.shape[1]
        where, value = np.zeros(0, int), np.zeros(0)
        parts = [(where, value)]
        for z in np.flatnonzero(self.top > self.level).tolist():
            above = self.flat[z] > self.level
            for lower, upper in self.discarded:
                if lower[0] <= z < upper[0]:
                    above.reshape(self.field.view.shape[1:])[lower[1] : upper[1], lower[2] : upper[2]] = False
            at = np.flatnonzero(above)
            parts.append((at + z * plane, self.flat[z, at].astype(float)))
            if sum(at.size for at, _ in parts) > 2 * most:
                parts = [self._highest(parts, most)]
        where, self.value = self._highest(parts, most)
        self.where = np.array(np.unravel_index(where, self.field.view.shape), dtype=float)

    def _highest(
        self, parts: list[tuple[Int[Array, " n"], Float[Array, " n"]]], most: int
    ) -> tuple[Int[Array, " m"], Float[Array, " m"]]:
        """Join parts of the list, and raise the level to what is kept of them."""
        where, value = (np.concatenate(part) for part in zip(*parts, strict=True))
        if value.size > most:
            kept = np.sort(np.argsort(-value, kind="stable")[:most])
            where, value = where[kept], value[kept]
            self.level = float(value.min())
        return where, value

    def highest(self, lesions: Array) -> tuple[Int[Array, " 3"], float] | None:
        """Return voxel and height of the maximum; None at the floor.

        The lesions are all that is subtracted so far, in case lower voxels have to be listed.
        """
        while self.value.size:
            k = int(self.value.argmax())
            height = float(self.value[k])
            if height > self.field.floor and height >= self.level:
                return self.where[:, k].astype(int), height
            if self.level == self.field.floor:
                break
            self._follow(2 * self.value.size)
            self.subtract(lesions)
        return None

    def subtract(self, lesions: Array, share: float = 1.0) -> None:
        """Subtract lesions, rows of `LESION`; a `share` of -1 adds them."""
        height = share * lesions["amplitude"] / lesions["width"] ** (self.field.n_free - 1)
        for centre, amplitude, width in zip(
            lesions["mu"][:, :, None], height.tolist(), lesions["width"].tolist(), strict=True
        ):
            z, reach = centre.item(0), FAR * width * self.field.width[0] + 1.0
            rows = self._rows(z - reach, z + reach)
            offset = (self.where[:, rows] - centre) / (width * self.field.sigma[:, None])
            squared = (offset * offset).sum(0)
            near = (squared < FAR * FAR).nonzero()[0]
            self.value[rows][near] -= amplitude * np.exp(-0.5 * squared[near])

    def discard(self, lower: Int[Array, " 3"], upper: Int[Array, " 3"]) -> None:
        """Never return the voxels ``lower <= index < upper`` again."""
        self.discarded.append((lower, upper))
        rows = self._rows(lower.item(0), upper.item(0))
        part = self.where[:, rows]
        self.value[rows][((part >= lower[:, None]) & (part < upper[:, None])).all(0)] = -np.inf

    def _rows(self, low: float, high: float) -> slice:
        """Return the part of the list in the slices ``low <= z < high``."""
        return slice(*self.where[0].searchsorted((low, high)).tolist())

    def peaks(self) -> Int[Array, "n 3"]:
        """Return the listed voxels that no neighbour along an axis exceeds in the map, the highest first.

        Of equal neighbours only the first counts: a flat top would else be all peaks.
        """
        where, value = self.where.astype(int).T, self.value
        peak = np.isfinite(value)
        for axis, n in enumerate(self.field.view.shape):
            for step in (-1, 1):
                beside = where.copy()
                beside[:, axis] += step
                inside = (beside[:, axis] >= 0) & (beside[:, axis] < n)
                other = np.where(inside, self.field.view[tuple(np.where(inside[:, None], beside, where).T)], -np.inf)
                peak &= other < value if step < 0 else other <= value
        return np.asarray(where[peak][np.argsort(-value[peak], kind="stable")])
