"""Fit-and-subtract: a predicted heatmap in, lesions with existence probabilities out (paper, section 3.2).

The loop finds the highest voxel, fits ``alpha * N(mu, sigma)`` in a small window around it, subtracts it, and repeats.
In ``joint`` mode every new lesion is then refitted together with the kept lesions that it overlaps, on the original
map; ``paper`` mode is the same loop without that. Maps are 2-D or 3-D arrays; points are float voxel indices in their
axis order; sigma is a standard deviation in voxels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.detection.config import WIDEST, FitConfig
from lesionkit.detection.group import fit_group
from lesionkit.detection.lesions import Lesions
from lesionkit.detection.records import Detections, FitStep, Status
from lesionkit.detection.residual import Field, Residual, as_heatmap
from lesionkit.detection.width import estimate_sigma
from lesionkit.detection.window import WindowFit, fit_window, gaussians

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

Array = np.ndarray

DEFAULT = FitConfig()
MOST_PLATEAUS = 20
"""Plateaus after which a map is not worth searching on."""
MOST_MISFITS = 12
"""Misfits, less good fits in between, after which a map is no sum of Gaussians of this sigma. Crowds 1.5 sigma apart
reach 4, with sigma taken a third too small 11; shells and rings go on to `max_lesions`."""
POOR = 0.6
"""A fit that explains less of its window's energy than this is a poor one, of noise or of something else."""
STRUCTURE = 0.5
"""It is of something else where neighbouring voxels of its residual are correlated more than this."""


def fit_steps(heatmap: Num[np.ndarray, " ..."], config: FitConfig | None = None) -> Iterator[FitStep]:
    """Yield one fitted candidate at a time, the highest maximum first.

    Parameters
    ----------
    heatmap, config
        As for :func:`detect`.

    Yields
    ------
    FitStep
        Records from which :meth:`Detections.replay` rebuilds every moment.

    Raises
    ------
    TypeError, ValueError
        As :func:`detect`, on the first step at the latest.

    References
    ----------
    Paper, section 3.2, steps 1 to 4.
    """
    return Search(heatmap, config).run()


def detect(heatmap: Num[np.ndarray, " ..."], config: FitConfig | None = None) -> Detections:
    """Run fit-and-subtract to its end.

    Parameters
    ----------
    heatmap : 2-D or 3-D array
        Predicted map, any real dtype, any memory layout; never changed. It is kept by reference in the result, for
        replays.
    config : FitConfig, optional
        Settings; the defaults if None.

    Returns
    -------
    Detections
        Empty where nothing is found.

    Raises
    ------
    TypeError
        If the map is not an array of real numbers.
    ValueError
        If the map is not 2-D or 3-D, or a voxel is NaN or infinite (the message names the first).

    References
    ----------
    Paper, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from lesionkit import FitConfig, detect, gaussian_heatmap
    >>> heatmap = gaussian_heatmap([(10.2, 12.0, 9.6)], (24, 24, 24), sigma=1.0)
    >>> found = detect(heatmap, FitConfig(sigma=1.0))
    >>> found.mu.round(2).tolist(), found.alpha.round(2).tolist()
    ([[10.2, 12.0, 9.6]], [1.0])
    """
    search = Search(heatmap, config)
    steps = tuple(search.run())
    return search.detections(steps)


class Search:
    """One search of a map: the lesions kept so far and what is left of the map.

    Raises
    ------
    TypeError, ValueError
        As :func:`detect`.
    """

    def __init__(self, heatmap: Num[np.ndarray, " ..."], config: FitConfig | None = None) -> None:
        heatmap, config = as_heatmap(heatmap), config or DEFAULT
        if config.sigma == "estimate":
            config = replace(config, sigma=estimate_sigma(heatmap, config=config).sigma)
        self.config, self.joint = config, config.mode == "joint"
        self.field = Field(heatmap, config)
        self.residual = Residual(self.field)
        self.lesions = Lesions(self.field, self.residual)
        self.failures = self.plateaus = self.misfits = 0
        self.stopped = "floor"

    def run(self) -> Iterator[FitStep]:
        """Locate, fit, subtract, repeat."""
        lesions = self.lesions
        for number in range(2 * self.config.max_lesions + 10):
            if len(lesions) >= self.config.max_lesions:
                self.stopped = "max_lesions"
                return
            maximum = self.residual.highest(lesions.rows)  # section 3.2, step 1: locate
            if maximum is None:
                return
            step, lesion = self.fit(number, *maximum)  # step 2: estimate alpha, fit alpha and mu
            if step.status == "kept":
                lesions.subtract(lesion)  # step 3
                if self.joint:
                    step = lesions.refit(step)  # neighbours share the original map anew
            self.pass_over(step, *maximum)
            yield step
            if self.enough(step):  # step 4: repeat until alpha is low
                return
        self.stopped = "max_steps"

    @np.errstate(all="ignore")  # a map may hold anything at all
    def fit(self, number: int, voxel: Int[Array, " 3"], height: float) -> tuple[FitStep, tuple[Any, ...]]:
        """Fit one Gaussian in the window around a voxel, on the map less the lesions; return the lesion's row, too.

        In joint mode the window follows the peak.
        """
        field, centre = self.field, voxel
        for _ in range(4 if self.joint else 1):
            lower, upper = field.bounds(centre, centre)
            box = field.less(lower, upper, self.lesions.rows)
            fit = fit_window(box, (centre - lower).tolist(), field.sigma)
            if field.free:
                box, lower, fit = self.widen(box, lower, fit)
            mu = lower + fit.mu
            step, noise = self.judge(number, voxel, height, box, lower, fit)
            if np.abs(mu - centre).max() <= fit.width or step.status == "not_converged":
                break
            nearest = np.rint(mu).astype(int)
            centre = np.clip(nearest, np.maximum(centre - 2, 0), np.minimum(centre + 2, field.shape - 1))
        a, b, c, variance = (v * noise for v in fit.variances)
        covariance = [[a, 0.0, 0.0], [0.0, b, 0.0], [0.0, 0.0, c]]
        return step, (number, mu, fit.amplitude, fit.width, variance, step.explained, covariance)

    def widen(
        self, box: Float[Array, "a b c"], lower: Int[Array, " 3"], fit: WindowFit
    ) -> tuple[Float[Array, "a b c"], Int[Array, " 3"], WindowFit]:
        """Fit the width, too, in a window that grows with it; return that window, its first voxel and the fit."""
        field = self.field
        for _ in range(4):
            if not fit.converged:
                break
            start = np.array([fit.mu]), np.array([fit.amplitude])
            found = fit_group(box, *start, field.sigma, width=np.array([fit.width]), widths=(1.0, WIDEST))
            width, mu = float(found.width[0]), found.mu[0]
            change, inside = width - fit.width, bool(((mu >= -0.5) & (mu <= np.array(box.shape) - 0.5)).all())
            fit = fit._replace(
                mu=mu.tolist(),
                amplitude=float(found.amplitude[0]),
                width=width,
                variances=[*np.diagonal(found.covariance[0])[1:].tolist(), float(found.covariance[0, 0, 0])],
                sse=found.sse,
                energy=found.energy,
                converged=inside and bool(found.amplitude[0] > 0),
            )
            if abs(change) < 0.1 or not fit.converged:
                break
            nearest = np.rint(lower + mu).astype(int)
            first, upper = field.bounds(nearest, nearest, width)
            box, fit = field.less(first, upper, self.lesions.rows), fit._replace(mu=(lower + mu - first).tolist())
            lower = first
        return box, lower, fit

    def judge(
        self,
        number: int,
        voxel: Int[Array, " 3"],
        height: float,
        box: Float[Array, "a b c"],
        lower: Int[Array, " 3"],
        fit: WindowFit,
    ) -> tuple[FitStep, float]:
        """Say what to think of a fit; return the noise variance that it leaves, too."""
        field, config = self.field, self.config
        mu, total, highest = lower + fit.mu, float(box.sum()), box.max()
        peak = fit.amplitude / fit.width ** (field.n_free - 1)
        noise, alpha = fit.sse / max(box.size - field.n_free - field.free, 1), fit.amplitude / field.unit
        captured, constant = fit.energy - fit.sse, total * total / box.size  # energy that a constant explains
        saturated = np.count_nonzero(box >= 0.999 * highest) > 2 ** (field.n_free - 1)
        escaped = not (np.abs(mu - voxel) / field.sigma).max() <= config.guard * fit.width
        plateau = constant > captured and (saturated or constant > 0.9 * fit.energy)
        plateau = plateau or (saturated and (escaped or not fit.converged))
        least = config.significance * math.sqrt(fit.variances[3] * noise) if self.joint else 0.0
        status: Status = "kept"
        if plateau or not fit.converged:
            status = "not_converged"
        elif escaped:
            status = "escaped"
        elif alpha < config.lowest_alpha or fit.amplitude < least:
            status = "weak"
        misfit = status == "kept" and captured < POOR * fit.energy
        if misfit:
            model = gaussians(mu[None], np.array([peak]), field.sigma * fit.width, lower, lower + box.shape)
            misfit = structured(box - model)
        marks = {
            "border": bool((box.shape < field.size).any()),
            "hot": height > 3.0 * peak,
            "saturated": saturated,
            "plateau": plateau,
            "misfit": misfit,
        }
        step = FitStep(
            number,
            tuple(voxel[field.missing :].tolist()),
            height,
            field.box(lower, lower + box.shape),
            total * field.mass,
            field.point(mu),
            alpha,
            fit.sse,
            fit.energy,
            fit.iterations,
            status,
            tuple(mark for mark, on in marks.items() if on),
            width=fit.width,
        )
        return step, noise

    def pass_over(self, step: FitStep, voxel: Int[Array, " 3"], height: float) -> None:
        """Never return to a maximum that led to no new lesion.

        The residual of a broad peak is a shell around the lesion that was kept. Within `min_separation` of that lesion,
        voxels closer together than a fit may move (`guard`) lead to the same end: merged.
        """
        if step.status == "merged":
            away = (self.lesions.rows["mu"] - voxel) / self.field.sigma
            nearest = self.lesions.rows[int((away * away).sum(1).argmin())]
            kept, width = nearest["mu"], self.field.width * nearest["width"]
            apart, near = self.config.min_separation * width, np.floor(self.config.guard * width).astype(int)
            lower = np.clip(np.ceil(kept - apart).astype(int), voxel - near, voxel)
            upper = np.clip(np.floor(kept + apart).astype(int), voxel, voxel + near)
            self.residual.discard(lower, upper + 1)
        elif "plateau" in step.flags:
            self.residual.discard(*self.field.plateau(voxel, height))
        elif step.status != "kept" or step.drops:
            self.residual.discard(voxel, voxel + 1)

    def enough(self, step: FitStep) -> bool:
        """Whether the search ends after this step, and why."""
        if step.status in ("kept", "merged"):
            self.failures = 0
            if self.joint and step.status == "kept":
                self.misfits = self.misfits + 1 if "misfit" in step.flags else max(self.misfits - 1, 0)
            self.stopped = "misfit" if self.misfits > MOST_MISFITS else "floor"
        elif "plateau" in step.flags:
            self.plateaus += 1
            self.stopped = "plateau" if self.plateaus > (MOST_PLATEAUS if self.joint else 0) else "floor"
        else:
            self.failures += 1
            self.stopped = step.status if self.failures > (self.config.patience if self.joint else 0) else "floor"
        return self.stopped != "floor"

    def detections(self, steps: tuple[FitStep, ...]) -> Detections:
        """Collect what was kept."""
        rows, field = self.lesions.rows, self.field
        flags = [name for name in ("plateau", "saturated") if any(name in step.flags for step in steps)]
        if self.stopped == "misfit":
            flags.append("misfit")
        alpha, found = rows["amplitude"] / field.unit, rows["found"].tolist()
        if self.config.scale == "mass" and alpha.size and sorted(alpha.tolist())[alpha.size // 2] > 3.0:
            flags.append("peak_scaled?")
        return Detections(
            mu=field.point(rows["mu"]),
            alpha=alpha,
            width=rows["width"].copy(),
            alpha_window=np.array([steps[i].alpha_window for i in found]),
            covariance=field.covariance(rows["covariance"]),
            alpha_se=np.sqrt(rows["variance"]) / field.unit,
            explained=rows["explained"].copy(),
            lesion_flags=tuple(steps[i].flags for i in found),
            found=tuple(found),
            steps=steps,
            stopped=self.stopped,
            flags=tuple(flags),
            sigma=tuple(field.sigma_per_axis.tolist()),
            config=self.config,
            heatmap=field.heatmap,
        )


def structured(rest: Float[Array, "a b c"]) -> bool:
    """Whether what a fit leaves in its window is no white noise: are neighbours along an axis alike."""
    alike, energy = 0.0, 0.0
    for axis, n in enumerate(rest.shape):
        if n > 1:
            one, other = (np.take(rest, range(first, first + n - 1), axis).ravel() for first in (0, 1))
            alike += float(one @ other)
            energy += math.sqrt(float(one @ one) * float(other @ other))
    return alike > STRUCTURE * energy
