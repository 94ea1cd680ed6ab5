"""The width that the peaks of a map share, estimated from the map itself.

A wrong sigma is the largest error in alpha: lesions of sigma 1.3 fitted with 1.0 come out a third too weak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.detection.candidates import Field
from lesionkit.detection.fitting import WindowFits, fit_windows
from lesionkit.detection.maxima import as_heatmap
from lesionkit.detection.records import FitConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

Array = np.ndarray

MOST_PEAKS = 64
"""Most peaks looked at, the highest."""


@dataclass(frozen=True, kw_only=True)
class SigmaEstimate:
    """The one width shared by the peaks of a map."""

    sigma: tuple[float, ...]
    """Standard deviation per axis, in voxels: the start's proportions times `factor`."""
    standard_error: tuple[float, ...]
    """Standard error of `sigma`, from the scatter between peaks; NaN with fewer than two peaks."""
    factor: float
    """Estimate over start."""
    n_peaks: int
    """Isolated peaks used; with 0 the start is returned."""


def estimate_sigma(
    heatmap: Num[np.ndarray, "..."],
    *,
    start: float | tuple[float, ...] = 1.0,
    config: FitConfig | None = None,
    passes: int = 2,
) -> SigmaEstimate:
    """Estimate the width that all peaks of a map share.

    Each isolated local maximum is fitted with a free width, and the energy-weighted median is taken: a pair that passes
    for one wide peak counts no more than any other. A free width for each lesion would swallow pairs, so it is never
    used to detect.

    Parameters
    ----------
    heatmap : 2-D or 3-D array
        Predicted map.
    start : float or tuple of float
        First guess, in voxels, right within a factor of two; with one per axis their proportions are kept.
    config : FitConfig, optional
        Settings of the fits (window, lowest alpha, scale); its sigma is not used.
    passes : int
        How often to repeat, each time from the last estimate.

    Returns
    -------
    SigmaEstimate

    Raises
    ------
    ValueError
        As :func:`detect`.
    """
    heatmap = as_heatmap(heatmap)
    first = replace(config or FitConfig(), sigma=start).sigma_per_axis(heatmap.ndim)
    factor, error, n_peaks = 1.0, float("nan"), 0
    for _ in range(passes):
        now = replace(config or FitConfig(), sigma=tuple((first * factor).tolist()))
        ratio, relative, n_peaks = _width_ratio(Field(heatmap, now))
        factor *= ratio
        error = relative * factor
        if not n_peaks:
            break
    return SigmaEstimate(
        sigma=tuple((first * factor).tolist()),
        standard_error=tuple((first * error).tolist()),
        factor=factor,
        n_peaks=n_peaks,
    )


def _width_ratio(field: Field) -> tuple[float, float, int]:
    """Return the width of the isolated peaks over the one assumed, its relative standard error and their number."""
    maxima = field.maxima()
    maxima.descend()
    seeds = maxima.peaks()
    seeds = seeds[np.argsort(-maxima.residual[seeds], kind="stable")][:MOST_PEAKS]
    if not seeds.size:
        return 1.0, float("nan"), 0
    where, height = maxima.index[:, seeds].T, maxima.residual[seeds]
    distance = (np.abs(where[:, None] - where) * field.inverse).max(2)
    np.fill_diagonal(distance, np.inf)
    beside = (distance < field.config.link) & (height > 0.1 * height[:, None])
    alone = ~beside.any(1) if (~beside.any(1)).any() else np.ones(seeds.size, bool)
    where = where[alone]
    lower, _, boxes, inside = field.windows(where, np.zeros((0, 3)), np.zeros(0))
    begin = where - lower

    def fit(factors: Float[Array, " k"] | float) -> WindowFits:
        return fit_windows(boxes, begin, field.sigma * factors, inside=inside, tolerance=1e-5)

    base = fit(1.0)
    good = base.converged & (base.amplitude / field.unit >= 0.5 * field.min_alpha)
    grid = np.geomspace(0.55, 1.9, 15)
    errors = np.array([fit(float(f)).sse for f in grid])
    best = grid[errors.argmin(0)]
    for spread in (0.05, 0.01):  # the width that leaves least, by a parabola through three of each peak
        left, middle, right = (_sse_at(field, boxes, begin, inside, best * f) for f in (1 - spread, 1.0, 1 + spread))
        bend = left - 2.0 * middle + right
        shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
        best = best * (1.0 + spread * np.clip(shift, -1.5, 1.5))
    good &= (best > 0.5) & (best < 2.1)
    if not good.any():
        return 1.0, float("nan"), 0
    values, weights = best[good], (base.energy - base.sse)[good]
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order] / weights.sum()
    middle_value = float(values[np.searchsorted(np.cumsum(weights), 0.5)])
    n_effective = 1.0 / float((weights**2).sum())
    deviation = np.abs(values - middle_value)
    by_size = np.argsort(deviation, kind="stable")
    scatter = 1.4826 * float(deviation[by_size][np.searchsorted(np.cumsum(weights[by_size]), 0.5)])
    # the median of n normal values scatters by sqrt(pi / 2 n)
    error = scatter * float(np.sqrt(np.pi / 2.0 / n_effective)) / middle_value if values.size > 1 else float("nan")
    return middle_value, error, int(values.size)


def _sse_at(
    field: Field, boxes: Float[Array, "k a b c"], begin: Int[Array, "k 3"], inside: Any, factors: Float[Array, " k"]
) -> Float[Array, " k"]:
    """Return the squared error of each window at its own width."""
    return fit_windows(boxes, begin, field.sigma * factors[:, None], inside=inside, tolerance=1e-5).sse
