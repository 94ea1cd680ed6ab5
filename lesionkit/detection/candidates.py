"""The candidates of fit-and-subtract: windows around maxima, a Gaussian fitted to each, and what to think of the fit.

In: a map and the lesions kept so far. Out: batches of judged fits, in the axis order of the map's memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import compress, pairwise
from typing import TYPE_CHECKING, Any

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


class Fits:
    """Fits of a batch of windows, judged: one row a candidate. Lists where rows are read one at a time."""

    mu: Float[Array, "k 3"]
    amplitude: Float[Array, " k"]
    variances: Float[Array, "k 4"]
    explained: Float[Array, " k"]
    point: Float[Array, "k ndim"]
    voxel: list[tuple[int, ...]]
    window: list[tuple[slice, ...]]
    height: list[float]
    top: list[bool]
    total: list[float]
    alpha: list[float]
    sse: list[float]
    energy: list[float]
    iterations: list[int]
    status: list[Status]
    flags: list[tuple[str, ...]]
    plateau: list[bool]
    clean: list[bool]


@dataclass(slots=True, eq=False)
class Candidate:
    """One row of a batch, waiting for its turn."""

    fits: Fits
    row: int
    height: float
    """The residual at the voxel when its turn comes."""
    needs: set[int] = field(default_factory=set)
    """Voxel numbers of the candidates that it takes as kept."""

    @property
    def mu(self) -> Float[Array, " 3"]:
        """Fitted centre."""
        return np.asarray(self.fits.mu[self.row])

    @property
    def amplitude(self) -> float:
        """Fitted height."""
        return float(self.fits.amplitude[self.row])

    @property
    def clean(self) -> bool:
        """Whether it is to be kept as it is, unless it is linked to others."""
        return self.fits.clean[self.row]


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
        self.layout = Layout.of(heatmap, config.sigma_per_axis(heatmap.ndim))
        self.view, self.sigma = self.layout.view, self.layout.sigma
        self.shape = np.array(self.view.shape)
        width = [x if math.isfinite(x) else 0.0 for x in self.sigma.tolist()]
        half = [config.window // 2 if x else 0 for x in width]
        reach = [math.ceil(REACH * x) for x in width]
        self.n_placed = sum(x > 0 for x in width)
        self.inverse = 1.0 / self.sigma
        self.half = np.array(half)
        self.size = np.minimum(2 * self.half + 1, self.shape)
        self.reach = np.array(reach)
        # how far a window and the shift of another centre reach from their maxima, in voxels
        self.slack = [h + config.guard * x for h, x in zip(half, width, strict=True)]
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

    def touching(self, one: Num[Array, "m 3"], other: Num[Array, "n 3"]) -> Bool[Array, "m n"]:
        """Whether a fit at `one` can know of a change at `other`: is its window within `TOUCH` sigma of it."""
        squared: Float[Array, "m n"] = np.zeros((len(one), len(other)))
        for axis, (slack, inverse) in enumerate(zip(self.slack, self.inverse.tolist(), strict=True)):
            gap = np.abs(one[:, axis, None] - other[:, axis]) - slack
            squared += np.square(np.maximum(gap, 0.0) * inverse)
        return squared <= TOUCH * TOUCH

    def linked(self, one: Float[Array, "m 3"], other: Float[Array, "n 3"]) -> Bool[Array, "m n"]:
        """Whether lesions overlap enough to be refitted together."""
        a, b = one * self.inverse, other * self.inverse
        squared: Float[Array, "m n"] = np.zeros((len(one), len(other)))
        for axis in range(3):
            squared += (a[:, axis, None] - b[:, axis]) ** 2
        return squared < self.config.link**2

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
        boxes = np.zeros((len(centres), *self.size.tolist()))
        for box, (a, b, c), (d, e, f) in zip(boxes, lower.tolist(), upper.tolist(), strict=True):
            box[: d - a, : e - b, : f - c] = self.view[a:d, b:e, c:f]
        extent = upper - lower
        inside = None
        if (extent < self.size).any():
            inside = np.arange(self.size.max()) < extent[:, :, None]
        rows: list[int] = []  # which window, less which lesion
        centre: list[Any] = []
        height: list[float] = []
        if len(mu):
            nearest = np.rint(mu)
            near = np.ones((len(centres), len(mu)), bool)
            for axis in range(3):
                near &= nearest[:, axis] - self.reach[axis] < upper[:, axis, None]
                near &= nearest[:, axis] + self.reach[axis] >= lower[:, axis, None]
            first, which = np.nonzero(near)
            rows, centre, height = first.tolist(), list(mu[which]), amplitude[which].tolist()
        for row, entries in enumerate(under or ()):
            rows += [row] * len(entries)
            centre += [entry.mu for entry in entries]
            height += [entry.amplitude for entry in entries]
        if rows:
            self._subtract(boxes, np.array(rows), lower, np.array(centre), np.array(height), inside)
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
        """Subtract Gaussians from windows, each from the one that `rows` says; sums of outer products are products."""
        k, na, nb, nc = boxes.shape
        order = np.argsort(rows, kind="stable")
        rows, mu, amplitude = rows[order], mu[order], amplitude[order]
        offset = (np.arange(max(na, nb, nc)) + (lower[rows] - mu)[:, :, None]) * self.inverse[:, None]
        e = np.exp(-0.5 * offset * offset)
        if inside is not None:
            e *= inside[rows]
        across = (e[:, 1, :nb, None] * e[:, 2, None, :nc]).reshape(len(rows), nb * nc)
        along = e[:, 0, :na] * amplitude[:, None]
        ends = np.searchsorted(rows, np.arange(k + 1)).tolist()
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
    ) -> Fits:
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
        fits = Fits()
        fits.mu, fits.amplitude = found.mu + lower, found.amplitude
        fits.point = self.layout.point(fits.mu)
        fits.voxel, fits.window = self.layout.voxels(voxels), self.layout.boxes(lower, upper)
        fits.height, fits.alpha = height.tolist(), (found.amplitude / self.unit).tolist()
        fits.sse, fits.energy, fits.iterations = found.sse.tolist(), found.energy.tolist(), found.iterations.tolist()
        extent = None if inside is None else upper - lower
        self._judge(fits, found, boxes, extent, height, np.abs(fits.mu - voxels))
        return fits

    def _judge(
        self,
        fits: Fits,
        found: WindowFits,
        boxes: Float[Array, "k a b c"],
        extent: Int[Array, "k 3"] | None,
        height: Float[Array, " k"],
        shifts: Float[Array, "k 3"],
    ) -> None:
        """Add to some fits what to think of them; `extent` is that of trimmed windows, `shifts` are from the maxima."""
        flat = boxes.reshape(len(boxes), -1)
        n_voxels: Any = flat.shape[1] if extent is None else extent.prod(1)
        total, highest = flat.sum(1), flat.max(1)
        n_high = (flat >= 0.999 * highest[:, None]).sum(1).tolist()
        with np.errstate(all="ignore"):
            noise = found.sse / np.maximum(n_voxels - 1 - self.n_placed, 1)
            captured = found.energy - found.sse
            constant = (total * total / n_voxels).tolist()  # energy that a constant explains
            fits.variances = found.covariance * noise[:, None]
            fits.explained = captured / np.maximum(found.energy, 1e-300)
        fits.top, fits.total = (height >= highest).tolist(), (total * self.mass).tolist()
        fits.status, fits.flags, fits.plateau, fits.clean = [], [], [], []
        far, shift = (shifts * self.inverse).max(1).tolist(), shifts.max(1).tolist()
        borders = [False] * len(boxes) if extent is None else (extent < self.size).any(1).tolist()
        explained, variance, captures = fits.explained.tolist(), fits.variances[:, 3].tolist(), captured.tolist()
        for row, converged in enumerate(found.converged.tolist()):
            height_fitted = fits.alpha[row] * self.unit
            saturated = n_high[row] > 2**self.n_placed
            escaped = not far[row] <= self.config.guard
            plateau = constant[row] > captures[row] and (saturated or constant[row] > 0.9 * fits.energy[row])
            plateau = plateau or (saturated and (escaped or not converged))
            status: Status = "kept"
            if plateau or not converged:
                status = "not_converged"
            elif escaped:
                status = "escaped"
            elif fits.alpha[row] < self.min_alpha or height_fitted < self.significance * math.sqrt(variance[row]):
                status = "weak"
            misfit = explained[row] < POOR and status == "kept"
            misfit = misfit and _structured(boxes[row], found.mu[row], height_fitted, self.sigma)
            marks = (borders[row], fits.height[row] > 3.0 * height_fitted, saturated, plateau, misfit)
            fits.status.append(status)
            fits.plateau.append(plateau)
            fits.flags.append(tuple(compress(_FLAGS, marks)) if True in marks else ())
            fits.clean.append(status == "kept" and (not self.joint or shift[row] <= 1.0))

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
