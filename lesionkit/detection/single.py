"""Least squares of one Gaussian in one window, in plain numbers: what `fitting` does in arrays.

In: a window and a voxel near the centre. Out: a row of `WindowFits`. For one window it is three times quicker, since
the cost of small arrays is that of calling NumPy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

Array = np.ndarray

SETTLED = 0.05
"""A fit that ran out of iterations still counts as converged if its last step was below this, in sigma. Where
neighbours overlap Gauss-Newton creeps; a joint refit takes over from there."""

Fit = tuple[list[float], float, list[float], float, float, int, bool]
"""A row of :class:`WindowFits`."""


def fit_window(
    window: Float[Array, "a b c"],
    start: list[int],
    last: Sequence[int],
    inverse: list[float],
    grid: Float[Array, " n"],
    mask: Float[Array, "3 n"] | None,
    tolerance: float,
    max_iterations: int,
) -> Fit:
    """Fit one window as :func:`lesionkit.detection.fitting.fit_windows` does; `last` is its last index in the map."""
    energy = float(np.vdot(window, window))
    mu = [i + _parabola_through(window, start, axis, last[axis], inverse[axis]) for axis, i in enumerate(start)]
    best = _project(window, mu, inverse, grid, mask)
    length = _longest(best.step, inverse)
    damping, size, iterations = 0.0, length, 1
    going = length >= tolerance and best.explained > 0
    while going and iterations < max_iterations:
        shrink = max(length, 1.0) * (1.0 + damping)
        step = [s / shrink for s in best.step]
        trial = [m + s for m, s in zip(mu, step, strict=True)]
        there = _project(window, trial, inverse, grid, mask)
        iterations += 1
        taken = _longest(step, inverse)
        if there.explained >= best.explained:
            best, mu, damping = there, trial, 0.25 * damping
            length = _longest(best.step, inverse)
        else:
            damping = max(4.0 * damping, 0.5)
        size = min(length, taken)
        going = length >= tolerance and damping < 1e4 and taken > 1e-9
    height = best.height
    if length < tolerance:  # known well enough to be taken without another look
        change = sum(s * i * (g - r) for s, i, g, r in zip(best.step, inverse, best.gradient, best.ratio, strict=True))
        height *= math.exp(min(change, 700.0))  # a window may hold anything at all
        mu = [m + s for m, s in zip(mu, best.step, strict=True)]
    variances = [0.0, 0.0, 0.0, 1.0 / best.gram if best.gram else math.inf]
    for axis, (i, curvature, ratio) in enumerate(zip(inverse, best.curvature, best.ratio, strict=True)):
        if curvature > 1e-12:
            relative = 1.0 / max(best.gram * curvature, 1e-300)
            slope = best.height * i
            variances[axis] = relative / (slope * slope) if slope * slope else math.inf
            variances[3] += ratio * ratio * relative
    sse = max(energy - max(best.explained, 0.0), 0.0)
    return mu, height, variances, sse, energy, iterations, size < SETTLED and best.height > 0


def _longest(step: list[float], inverse: list[float]) -> float:
    """Return the largest component of a step, in sigma; NaN if one is."""
    lengths = [abs(s * i) for s, i in zip(step, inverse, strict=True)]
    return max(lengths) if math.isfinite(sum(lengths)) else math.nan


def _parabola_through(window: Float[Array, "a b c"], start: list[int], axis: int, last: int, inverse: float) -> float:
    """Return how far a centre lies from a voxel along one axis, from it and its two neighbours."""
    if not 0 < start[axis] < last or not inverse:
        return 0.0
    at = list(start)
    at[axis] -= 1
    before = window.item(*at)
    at[axis] += 2
    ratio = window.item(*at) / before if before else 0.0
    if not 0.0 < ratio < math.inf:
        return 0.0
    return min(max(0.5 * math.log(ratio) / (inverse * inverse), -0.75), 0.75)


class _Projected(NamedTuple):
    """The best amplitude of a Gaussian at a given centre, what it explains, and the Newton step of the centre."""

    height: float
    explained: float
    step: list[float]
    gradient: list[float]
    ratio: list[float]
    curvature: list[float]
    gram: float


def _project(
    data: Float[Array, "a b c"],
    mu: list[float],
    inverse: list[float],
    grid: Float[Array, " n"],
    mask: Float[Array, "3 n"] | None,
) -> _Projected:
    """Solve for the amplitude and linearise in the centre; `mask` marks what lies in the map."""
    na, nb, nc = data.shape
    scaled = grid - np.array(mu)[:, None]
    scaled *= np.array(inverse)[:, None]
    square = scaled * scaled
    basis = np.empty((3, 3, grid.size))
    e = basis[:, 0]
    np.exp(-0.5 * square, out=e)
    if mask is not None:
        e *= mask
    np.multiply(scaled, e, out=basis[:, 1])
    square -= 1.0
    np.multiply(square, e, out=basis[:, 2])
    part = data.reshape(na * nb, nc) @ basis[2, :, :nc].T
    part = basis[1, :, :nb] @ part.reshape(na, nb, 3)
    t = (basis[0, :, :na] @ part.reshape(na, 9)).ravel().tolist()
    products = (basis @ basis.transpose(0, 2, 1)).tolist()
    gram = products[0][0][0] * products[1][0][0] * products[2][0][0]
    projected = t[0]
    height = projected / gram if gram else 0.0
    explained = projected * height
    if not (projected > 0 and height > 0 and math.isfinite(explained)):
        return _Projected(0.0, -1.0, [0.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3, gram)
    ratio = [p[0][1] / p[0][0] for p in products]
    curvature = [p[1][1] / p[0][0] - r * r for p, r in zip(products, ratio, strict=True)]
    x, y, z = t[9] / projected, t[3] / projected, t[1] / projected
    gradient = [x - ratio[0], y - ratio[1], z - ratio[2]]
    xy, xz, yz = x * y - t[12] / projected, x * z - t[10] / projected, y * z - t[4] / projected
    xx, yy, zz = (
        f * f - t[i] / projected + c + p[0][2] / p[0][0] - r * r
        for f, i, c, p, r in zip((x, y, z), (18, 6, 2), curvature, products, ratio, strict=True)
    )
    free = [c > 1e-12 for c in curvature]  # not an axis without position, or seen on one voxel only
    xx, yy, zz = (d if f else 1.0 for d, f in zip((xx, yy, zz), free, strict=True))
    a, b, c = abs(xy), abs(xz), abs(yz)
    if abs(xx) + a + b < 2.0 * xx and a + abs(yy) + c < 2.0 * yy and b + c + abs(zz) < 2.0 * zz:
        step = _solved(xx, yy, zz, xy, xz, yz, gradient)
    else:  # where the parabola has no top take the Gauss-Newton step, whose matrix is diagonal
        step = [g / k if f else 0.0 for g, k, f in zip(gradient, curvature, free, strict=True)]
    step = [s / i if f else 0.0 for s, i, f in zip(step, inverse, free, strict=True)]
    return _Projected(height, explained, step, gradient, ratio, curvature, gram)


def _solved(xx: float, yy: float, zz: float, xy: float, xz: float, yz: float, right: list[float]) -> list[float]:
    """Solve a symmetric system of three equations, diagonally dominant, by elimination."""
    u, v, w = right
    f, g = xy / xx, xz / xx
    yy, yz, zz = yy - f * xy, yz - f * xz, zz - g * xz
    v, w = v - f * u, w - g * u
    h = yz / yy
    third = (w - h * v) / (zz - h * yz)
    second = (v - yz * third) / yy
    return [(u - xy * second - xz * third) / xx, second, third]
