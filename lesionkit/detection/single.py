"""Least squares of one Gaussian in each of a few windows, in plain numbers: what `fitting` does in arrays.

In: windows and a voxel near each centre. Out: rows of `WindowFits`. For a few windows it is up to three times quicker,
since the cost of small arrays is that of calling NumPy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Array = np.ndarray

SETTLED = 0.05
"""A fit that ran out of iterations still counts as converged if its last step was below this, in sigma. Where
neighbours overlap Gauss-Newton creeps; a joint refit takes over from there."""


def fit_few(
    windows: Float[Array, "k a b c"],
    start: Int[Array, "k 3"],
    inverse: Float[Array, "k 3"],
    grid: Float[Array, " n"],
    inside: Bool[Array, "k 3 n"] | None,
    tolerance: float,
    max_iterations: int,
) -> list[tuple[float, ...]]:
    """Fit a few windows as :func:`lesionkit.detection.fitting.fit_windows` does.

    Returns
    -------
    list of k tuples
        Centre (3), amplitude, variances (4), residual energy, energy, iterations, whether it converged.
    """
    k, na, nb, nc = windows.shape
    mask = None if inside is None else inside.astype(float)
    last = [[na - 1, nb - 1, nc - 1]] * k if inside is None else (inside.sum(2) - 1).tolist()
    widths = inverse.tolist()
    mu = _parabolas(windows, start.tolist(), last, widths)
    best = _project(windows, mu, inverse, grid, mask)
    size, damping, iterations = [at.length for at in best], [0.0] * k, [1] * k
    going = [row for row, at in enumerate(best) if at.length >= tolerance and at.explained > 0]
    for _ in range(1, max_iterations):
        if not going:
            break
        rows, going = going, []
        shrink = [max(best[row].length, 1.0) * (1.0 + damping[row]) for row in rows]
        trials = []
        for row, by in zip(rows, shrink, strict=True):
            (x, y, z), (u, v, w) = mu[row], best[row].step
            trials.append([x + u / by, y + v / by, z + w / by])
        if len(rows) == k:
            found = _project(windows, trials, inverse, grid, mask)
        else:
            found = _project(windows[rows], trials, inverse[rows], grid, None if mask is None else mask[rows])
        for row, by, trial, there in zip(rows, shrink, trials, found, strict=True):
            iterations[row] += 1
            taken = best[row].length / by
            if there.explained >= best[row].explained:
                best[row], mu[row], damping[row] = there, trial, 0.25 * damping[row]
            else:
                damping[row] = max(4.0 * damping[row], 0.5)
            length = best[row].length
            size[row] = min(length, taken)
            if length >= tolerance and damping[row] < 1e4 and taken > 1e-9:
                going.append(row)
    out = []
    for at, (x, y, z), width, window, last_step, n in zip(best, mu, widths, windows, size, iterations, strict=True):
        energy, height = float(np.vdot(window, window)), at.height
        if at.length < tolerance:  # known well enough to be taken without another look
            (u, v, w), (i, j, k), (p, q, r), (a, b, c) = at.step, width, at.gradient, at.ratio
            change = u * i * (p - a) + v * j * (q - b) + w * k * (r - c)
            height *= math.exp(min(change, 700.0))  # a window may hold anything at all
            x, y, z = x + u, y + v, z + w
        sse = max(energy - max(at.explained, 0.0), 0.0)
        converged = last_step < SETTLED and at.height > 0
        out.append((x, y, z, height, *_variances(at, width), sse, energy, n, converged))
    return out


def _parabolas(
    windows: Float[Array, "k a b c"], start: list[list[int]], last: list[list[int]], inverse: list[list[float]]
) -> list[list[float]]:
    """First guess of each centre: a parabola through the logarithms of a voxel and its two neighbours on each axis."""
    _, na, nb, nc = windows.shape
    out = []
    for row, (first, end, widths) in enumerate(zip(start, last, inverse, strict=True)):
        here = ((row * na + first[0]) * nb + first[1]) * nc + first[2]
        centre = []
        for i, most, width, stride in zip(first, end, widths, (nb * nc, nc, 1), strict=True):
            ratio = 0.0
            if 0 < i < most and width:
                before = windows.item(here - stride)
                ratio = windows.item(here + stride) / before if before else 0.0
            known = 0.0 < ratio < math.inf
            centre.append(i + min(max(0.5 * math.log(ratio) / (width * width), -0.75), 0.75) if known else float(i))
        out.append(centre)
    return out


class _Projected(NamedTuple):
    """The best amplitude of a Gaussian at a given centre, what it explains, and the Newton step of the centre."""

    height: float
    explained: float
    step: list[float]
    length: float
    """The largest component of the step, in sigma; NaN if one is."""
    gradient: list[float]
    ratio: list[float]
    curvature: list[float]
    gram: float


def contract(
    data: Float[Array, "k a b c"],
    mu: Float[Array, "k 3"],
    inverse: Float[Array, "k 3"],
    grid: Float[Array, " n"],
    mask: Float[Array, "k 3 n"] | None,
) -> tuple[Float[Array, "k 27"], Float[Array, "k 3 3 3"]]:
    """Return all that a Newton step needs of windows and of Gaussians at given centres; `mask` marks what is inside.

    Returns
    -------
    moments : (k, 27)
        Inner products of the data with value, first and second derivative by ``mu / sigma`` along the axes: 9 times
        the choice on axis 0, 3 times that on axis 1, plus that on axis 2.
    products : (k, 3, 3, 3)
        Those of the three with each other, axis by axis.
    """
    k, na, nb, nc = data.shape
    scaled = grid - mu[:, :, None]
    scaled *= inverse[:, :, None]
    square = scaled * scaled
    basis = np.empty((k, 3, 3, grid.size))
    e = basis[:, :, 0]
    np.exp(-0.5 * square, out=e)
    if mask is not None:
        e *= mask
    np.multiply(scaled, e, out=basis[:, :, 1])
    square -= 1.0
    np.multiply(square, e, out=basis[:, :, 2])
    t = data.reshape(k, na * nb, nc) @ basis[:, 2, :, :nc].transpose(0, 2, 1)
    t = basis[:, None, 1, :, :nb] @ t.reshape(k, na, nb, 3)
    t = basis[:, 0, :, :na] @ t.reshape(k, na, 9)
    return t.reshape(k, 27), basis @ basis.transpose(0, 1, 3, 2)


def _project(
    data: Float[Array, "k a b c"],
    mu: list[list[float]],
    inverse: Float[Array, "k 3"],
    grid: Float[Array, " n"],
    mask: Float[Array, "k 3 n"] | None,
) -> list[_Projected]:
    """Solve for the amplitudes and linearise in the centres."""
    moments, products = contract(data, np.array(mu), inverse, grid, mask)
    return list(map(_linearise, moments.tolist(), products.tolist(), inverse.tolist()))


def _linearise(t: list[float], products: list[list[list[float]]], inverse: list[float]) -> _Projected:
    """Solve for one amplitude and its centre's Newton step, from what :func:`contract` returns for it."""
    ((n0, a0, c0), (_, b0, _), _), ((n1, a1, c1), (_, b1, _), _), ((n2, a2, c2), (_, b2, _), _) = products
    gram, projected = n0 * n1 * n2, t[0]
    height = projected / gram if gram else 0.0
    explained = projected * height
    if not (projected > 0 and height > 0 and math.isfinite(explained)):
        return _Projected(0.0, -1.0, [0.0] * 3, 0.0, [0.0] * 3, [0.0] * 3, [0.0] * 3, gram)
    r0, r1, r2 = ratio = [a0 / n0, a1 / n1, a2 / n2]
    k0, k1, k2 = curvature = [b0 / n0 - r0 * r0, b1 / n1 - r1 * r1, b2 / n2 - r2 * r2]
    x, y, z = t[9] / projected, t[3] / projected, t[1] / projected
    u, v, w = gradient = [x - r0, y - r1, z - r2]
    xy, xz, yz = x * y - t[12] / projected, x * z - t[10] / projected, y * z - t[4] / projected
    # an axis without position, or seen on one voxel only, is not free
    xx = x * x - t[18] / projected + k0 + c0 / n0 - r0 * r0 if k0 > 1e-12 else 1.0
    yy = y * y - t[6] / projected + k1 + c1 / n1 - r1 * r1 if k1 > 1e-12 else 1.0
    zz = z * z - t[2] / projected + k2 + c2 / n2 - r2 * r2 if k2 > 1e-12 else 1.0
    a, b, c = abs(xy), abs(xz), abs(yz)
    if abs(xx) + a + b < 2.0 * xx and a + abs(yy) + c < 2.0 * yy and b + c + abs(zz) < 2.0 * zz:
        f, g = xy / xx, xz / xx  # elimination: the matrix is diagonally dominant
        yy, yz, zz = yy - f * xy, yz - f * xz, zz - g * xz
        v, w = v - f * u, w - g * u
        h = yz / yy
        w = (w - h * v) / (zz - h * yz)
        v = (v - yz * w) / yy
        u = (u - xy * v - xz * w) / xx
    else:  # where the parabola has no top take the Gauss-Newton step, whose matrix is diagonal
        u, v, w = u / k0 if k0 > 1e-12 else 0.0, v / k1 if k1 > 1e-12 else 0.0, w / k2 if k2 > 1e-12 else 0.0
    i, j, k = inverse
    u, v, w = u if k0 > 1e-12 else 0.0, v if k1 > 1e-12 else 0.0, w if k2 > 1e-12 else 0.0
    length = max(abs(u), abs(v), abs(w)) if math.isfinite(u + v + w) else math.nan
    step = [u / i if i else 0.0, v / j if j else 0.0, w / k if k else 0.0]
    return _Projected(height, explained, step, length, gradient, ratio, curvature, gram)


def _variances(at: _Projected, inverse: list[float]) -> list[float]:
    """Variances of centre and amplitude per unit of noise variance; 0 along an axis without position."""
    out = [0.0, 0.0, 0.0, 1.0 / at.gram if at.gram else math.inf]
    for axis, (i, curvature, ratio) in enumerate(zip(inverse, at.curvature, at.ratio, strict=True)):
        if curvature > 1e-12:
            relative = 1.0 / max(at.gram * curvature, 1e-300)
            slope = at.height * i
            out[axis] = relative / (slope * slope) if slope * slope else math.inf
            out[3] += ratio * ratio * relative
    return out
