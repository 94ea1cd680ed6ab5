"""The width that the peaks of a map share, estimated from the map itself.

A wrong sigma is the largest error in alpha: lesions of sigma 1.3 fitted with 1.0 come out a third too weak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lesionkit.detection.config import FitConfig
from lesionkit.detection.group import fit_group
from lesionkit.detection.residual import NONE, Field, Residual, as_heatmap
from lesionkit.detection.window import fit_window

if TYPE_CHECKING:
    from jaxtyping import Float, Num

Array = np.ndarray

MOST_PEAKS = 64
"""Most peaks looked at, the highest."""
WIDTHS = (0.5, 2.1)
"""Least and greatest width of a peak over that assumed; those that reach one of them are not counted."""


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
    where = Residual(field).peaks()[:MOST_PEAKS]
    height = field.view[tuple(where.T)].astype(float)
    distance = (np.abs(where[:, None] - where) / field.sigma).max(2, initial=0.0)
    np.fill_diagonal(distance, np.inf)
    alone = ~((distance < field.config.link) & (height > 0.1 * height[:, None])).any(1)
    found = []
    for voxel in where[alone] if alone.any() else where:
        lower, upper = field.bounds(voxel, voxel)
        box = field.less(lower, upper, NONE)
        fit = fit_window(box, (voxel - lower).tolist(), field.sigma)
        if fit.converged and fit.amplitude >= 0.5 * field.config.lowest_alpha * field.unit:
            start = np.array([fit.mu]), np.array([fit.amplitude])
            width = fit_group(box, *start, field.sigma, width=np.ones(1), widths=WIDTHS, max_iterations=40).width[0]
            if WIDTHS[0] < width < WIDTHS[1]:
                found.append((width, fit.energy - fit.sse))
    if not found:
        return 1.0, float("nan"), 0
    values, weights = np.array(found).T
    weights = weights / weights.sum()
    middle = _median(values, weights)
    scatter = 1.4826 * _median(np.abs(values - middle), weights)
    # the median of n normal values scatters by sqrt(pi / 2 n)
    error = scatter * float(np.sqrt(np.pi / 2.0 * (weights**2).sum())) / middle if len(values) > 1 else float("nan")
    return middle, error, len(values)


def _median(values: Float[Array, " n"], weights: Float[Array, " n"]) -> float:
    """Return the median of values with weights that add up to 1."""
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])
