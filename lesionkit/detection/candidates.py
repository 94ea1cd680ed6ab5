"""The candidates of fit-and-subtract: windows around maxima, a Gaussian fitted to each, and what to think of the fit.

In: a map and the lesions kept so far. Out: batches of judged fits, in the axis order of the map's memory.
"""

from __future__ import annotations

import math
from itertools import compress, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lesionkit.detection.fitting import WindowFits, amplitude_of_unit_mass, fit_windows, gaussian_patch
from lesionkit.detection.maxima import Layout, Maxima, first_not_finite
from lesionkit.detection.records import REACH, FitConfig, Status

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Num

Array = np.ndarray

TOUCH = 5.5
"""A Gaussian further than this from a window, in sigma, is below 3e-7 of its peak there."""
POOR = 0.6
"""A fit that explains less of its window's energy than this is a poor one, of noise or of something else."""
STRUCTURE = 0.5
"""It is of something else where neighbouring voxels of its residual are correlated more than this."""
_FLAGS = ("border", "hot", "saturated", "plateau", "misfit")


class Candidate(NamedTuple):
    """One window's fit, judged and waiting for its turn; in the axis order of the map's memory."""

    mu: list[float]
    """Fitted centre."""
    amplitude: float
    """Fitted height."""
    covariance: list[float]
    """Variances of mu and amplitude per unit of noise variance."""
    noise: float
    """Noise variance that the fit leaves."""
    explained: float
    """Share of the window's energy that the fit explains."""
    height: float
    """The residual at the voxel when its turn comes."""
    top: bool
    """Whether the voxel is the highest of its window."""
    clean: bool
    """Whether it is to be kept as it is, unless it is linked to others."""
    plateau: bool
    status: Status
    record: tuple[Any, ...]
    """What :class:`FitStep` says of it, from `voxel` to `flags`."""


class Field:
    """A map and its settings, in the axis order of the map's memory: what every fit needs to know.

    Parameters
    ----------
    heatmap : 2-D or 3-D array
        The map; not changed.
    config : FitConfig
        Settings, sigma known.
    """

    def __init__(self, heatmap: Num[np.ndarray, "..."], config: FitConfig) -> None:
        self.heatmap = heatmap
        self.config = config
        self.joint = config.mode == "joint"
        self.significance = config.significance if self.joint else 0.0
        self.sigma_per_axis = config.sigma_per_axis(heatmap.ndim)
        self.layout = Layout.of(heatmap, self.sigma_per_axis)
        self.view, self.sigma = self.layout.view, self.layout.sigma
        self.shape = np.array(self.view.shape)
        width = [x if math.isfinite(x) else 0.0 for x in self.sigma.tolist()]
        half = [config.window // 2 if x else 0 for x in width]
        reach = [math.ceil(REACH * x) for x in width]
        self.n_placed = sum(x > 0 for x in width)
        self.inverse = 1.0 / self.sigma
        self.half = np.array(half)
        self.size = [min(2 * h + 1, n) for h, n in zip(half, self.view.shape, strict=True)]
        self.reach = np.array(reach)
        # how far a window and the shift of another centre reach from their maxima, in voxels
        slack = [h + config.guard * x for h, x in zip(half, width, strict=True)]
        self.slack = np.array(slack)[:, None]
        self.span = np.array([math.ceil(s + TOUCH * x) for s, x in zip(slack, width, strict=True)])[:, None, None]
        mass = amplitude_of_unit_mass(self.sigma)
        self.unit = 1.0 if config.scale == "peak" else mass
        self.mass = mass / self.unit
        self.min_alpha = config.lowest_alpha
        # the lowest maximum that a lesion of min_alpha can have: its centre lies at the corner between voxels
        self.floor = self.min_alpha * self.unit * math.exp(-0.125 * sum(1.0 / x**2 for x in width if x))

    def maxima(self) -> Maxima:
        """Read the map once.

        Raises
        ------
        ValueError
            If a voxel is NaN or infinite.
        """
        try:
            return Maxima(self.view, self.floor)
        except FloatingPointError:
            index = first_not_finite(self.heatmap)
            raise ValueError(f"heatmap must be finite, but voxel {index} holds {self.heatmap[index]}") from None

    def touching(self, one: Num[Array, "m 3"], other: Num[Array, "n 3"]) -> tuple[Int[Array, " p"], Int[Array, " p"]]:
        """Return the pairs of rows where a fit at `one` can know of a change at `other`.

        It can if its window is within `TOUCH` sigma of it.
        """
        away = np.abs(_differences(one, other))
        rows, columns = np.logical_and.reduce(away <= self.span).nonzero()
        if rows.size:  # in the box around that ellipsoid
            gap = np.maximum(away[:, rows, columns] - self.slack, 0.0) * self.inverse[:, None]
            near = np.add.reduce(gap * gap) <= TOUCH * TOUCH
            rows, columns = rows[near], columns[near]
        return rows, columns

    def linked(self, one: Float[Array, "m 3"], other: Float[Array, "n 3"]) -> Bool[Array, "m n"]:
        """Whether lesions overlap enough to be refitted together."""
        away = _differences(one * self.inverse, other * self.inverse)
        away *= away
        return np.asarray(np.add.reduce(away) < self.config.link**2)

    def less(
        self, lower: Int[Array, " 3"], upper: Int[Array, " 3"], mu: Float[Array, "n 3"], amplitude: Float[Array, " n"]
    ) -> Float[Array, "a b c"]:
        """Return a box of the map less some lesions."""
        (a, b, c), (d, e, f) = lower.tolist(), upper.tolist()
        box: Float[Array, "a b c"] = self.view[a:d, b:e, c:f].astype(float)
        nearest = np.rint(mu)
        near = ((nearest - self.reach < upper) & (nearest + self.reach >= lower)).all(1)
        for i in np.flatnonzero(near).tolist():
            box -= gaussian_patch(mu[i], amplitude[i], lower, upper, self.sigma)
        return box

    def windows(
        self,
        centres: Int[Array, "k 3"],
        mu: Float[Array, "n 3"],
        amplitude: Float[Array, " n"],
        under: list[list[Candidate]] | None = None,
    ) -> tuple[Any, Any, Float[Array, "k a b c"], Any]:
        """Cut out the windows around voxels, less the kept lesions and those `under` each window.

        Returns their bounds, their data, and which indices of trimmed windows lie in the map (None if none is trimmed).
        """
        lower = np.maximum(centres - self.half, 0)
        upper = np.minimum(centres + self.half + 1, self.shape)
        boxes = np.zeros((len(centres), *self.size))
        for box, (a, b, c), (d, e, f) in zip(boxes, lower.tolist(), upper.tolist(), strict=True):
            box[: d - a, : e - b, : f - c] = self.view[a:d, b:e, c:f]
        extent = upper - lower
        inside = None
        if (extent < self.size).any():
            inside = np.arange(max(self.size)) < extent[:, :, None]
        if len(mu):
            nearest = np.rint(mu)
            near = _differences(upper + self.reach, nearest) > 0
            near &= _differences(lower - self.reach, nearest) <= 0
            rows, which = np.logical_and.reduce(near).nonzero()
            if rows.size:
                self._subtract(boxes, rows, lower, mu[which], amplitude[which], inside)
        if under and any(under):
            more = np.array([(row, *fit.mu, fit.amplitude) for row, fits in enumerate(under) for fit in fits])
            self._subtract(boxes, more[:, 0].astype(int), lower, more[:, 1:4], more[:, 4], inside)
        return lower, upper, boxes, inside

    def _subtract(
        self,
        boxes: Float[Array, "k a b c"],
        rows: Int[Array, " p"],
        lower: Int[Array, "k 3"],
        mu: Float[Array, "p 3"],
        amplitude: Float[Array, " p"],
        inside: Bool[Array, "k 3 n"] | None,
    ) -> None:
        """Subtract Gaussians from windows, each from the one that `rows` says (ascending), as products of matrices."""
        k, na, nb, nc = boxes.shape
        offset = (np.arange(max(na, nb, nc)) + (lower[rows] - mu)[:, :, None]) * self.inverse[:, None]
        e = np.exp(-0.5 * offset * offset)
        if inside is not None:
            e *= inside[rows]
        across = (e[:, 1, :nb, None] * e[:, 2, None, :nc]).reshape(len(rows), nb * nc)
        along = e[:, 0, :na] * amplitude[:, None]
        ends = rows.searchsorted(np.arange(k + 1)).tolist()
        for row, (a, b) in enumerate(pairwise(ends)):
            if a < b:
                boxes[row] -= (along[a:b].T @ across[a:b]).reshape(na, nb, nc)

    def fit(
        self,
        voxels: Int[Array, "k 3"],
        mu: Float[Array, "n 3"],
        amplitude: Float[Array, " n"],
        *,
        centres: Int[Array, "k 3"] | None = None,
        height: Float[Array, " k"] | None = None,
        under: list[list[Candidate]] | None = None,
    ) -> list[Candidate]:
        """Fit the windows of some maxima and judge the fits.

        Parameters
        ----------
        voxels : (k, 3) int
            The maxima.
        mu, amplitude : (n, 3), (n,) float
            Kept lesions, to be subtracted first.
        centres : (k, 3) int, optional
            Where the windows lie, if not around the voxels.
        height : (k,) float, optional
            The residual at the voxels, if the windows do not lie around them.
        under : list of k lists, optional
            For each window, fits to subtract too that are not kept yet.
        """
        centres = voxels if centres is None else centres
        lower, upper, boxes, inside = self.windows(centres, mu, amplitude, under)
        start = centres - lower
        if height is None:
            height = boxes[(np.arange(len(boxes)), *start.T)]
        found = fit_windows(boxes, start, self.sigma, inside=inside)
        return self._judge(found, boxes, lower, upper, voxels, height)

    def _judge(
        self,
        found: WindowFits,
        boxes: Float[Array, "k a b c"],
        lower: Int[Array, "k 3"],
        upper: Int[Array, "k 3"],
        voxels: Int[Array, "k 3"],
        height: Float[Array, " k"],
    ) -> list[Candidate]:
        """Say what to think of some fits."""
        flat = boxes.reshape(len(boxes), -1)
        total, highest = np.add.reduce(flat, 1), np.maximum.reduce(flat, 1)
        n_high = np.add.reduce(flat >= 0.999 * highest[:, None], 1)
        mu = found.mu + lower
        shift = np.abs(mu - voxels)
        far, shift = np.maximum.reduce(shift * self.inverse, 1), np.maximum.reduce(shift, 1)
        rows = zip(
            mu.tolist(), self.layout.point(mu), found.amplitude.tolist(), found.covariance.tolist(), found.sse.tolist(),
            found.energy.tolist(), found.iterations.tolist(), found.converged.tolist(), total.tolist(),
            n_high.tolist(), height.tolist(), (height >= highest).tolist(), far.tolist(), shift.tolist(),
            (upper - lower).tolist(), self.layout.voxels(voxels), self.layout.boxes(lower, upper),
            strict=True,
        )  # fmt: skip
        joint, guard, unit, n_free = self.joint, self.config.guard, self.unit, 1 + self.n_placed
        out = []
        for row, (
            centre, point, amplitude, covariance, sse, energy, iterations, converged, mass, high, value, top, gone,
            moved, extent, voxel, window,
        ) in enumerate(rows):  # fmt: skip
            n_voxels = extent[0] * extent[1] * extent[2]
            noise, captured = sse / max(n_voxels - n_free, 1), energy - sse
            constant = mass * mass / n_voxels  # energy that a constant explains
            explained, alpha = captured / max(energy, 1e-300), amplitude / unit
            saturated, escaped = high > 2**self.n_placed, not gone <= guard
            plateau = constant > captured and (saturated or constant > 0.9 * energy)
            plateau = plateau or (saturated and (escaped or not converged))
            status: Status = "kept"
            if plateau or not converged:
                status = "not_converged"
            elif escaped:
                status = "escaped"
            elif alpha < self.min_alpha or amplitude < self.significance * math.sqrt(covariance[3] * noise):
                status = "weak"
            misfit = explained < POOR and status == "kept"
            misfit = misfit and _structured(boxes[row], found.mu[row], amplitude, self.sigma)
            marks = (extent != self.size, value > 3.0 * amplitude, saturated, plateau, misfit)
            flags = tuple(compress(_FLAGS, marks)) if True in marks else ()
            clean = status == "kept" and (moved <= 1.0 or not joint)
            record = (voxel, value, window, mass * self.mass, point, alpha, sse, energy, iterations, status, flags)
            out.append(
                Candidate(centre, amplitude, covariance, noise, explained, value, top, clean, plateau, status, record)
            )
        return out

    def plateau(self, voxel: Int[Array, " 3"], value: float) -> tuple[Int[Array, " 3"], Int[Array, " 3"]]:
        """Return the box that a flat maximum fills: each side moves on while what it gains is nearly as high."""
        lower, upper = voxel.tolist(), (voxel + 1).tolist()
        grown = True
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
        return np.maximum(np.array(lower) - self.half, 0), np.minimum(np.array(upper) + self.half, self.shape)


def _differences(one: Num[Array, "m 3"], other: Num[Array, "n 3"]) -> Num[Array, "3 m n"]:
    """Return all differences of points, axis by axis: with the long axes last, arithmetic is many times faster."""
    a, b = np.ascontiguousarray(one.T), np.ascontiguousarray(other.T)
    return np.asarray(a[:, :, None] - b[:, None])


def _structured(
    box: Float[Array, "a b c"], mu: Float[Array, " 3"], amplitude: float, sigma: Float[Array, " 3"]
) -> bool:
    """Whether what a fit leaves in its window is no white noise: are neighbours along an axis alike."""
    rest = box - gaussian_patch(mu, amplitude, np.zeros(3, int), np.array(box.shape), sigma)
    alike, energy = 0.0, 0.0
    for axis, n in enumerate(box.shape):
        if n > 1:
            one, other = (np.take(rest, range(first, first + n - 1), axis).ravel() for first in (0, 1))
            alike += float(one @ other)
            energy += math.sqrt(float(one @ one) * float(other @ other))
    return alike > STRUCTURE * energy
