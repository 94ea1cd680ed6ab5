"""Least squares of one Gaussian of known sigma in a window: data and a first guess in, centre and amplitude out.

Everything here works on three axes; an axis without position (length 1) has ``sigma = inf``, so that its factor is 1. A
Gaussian is a product of 1-D vectors: every inner product that least squares needs is a product of 1-D sums. No array of
the window's size is built per iteration.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Array = np.ndarray

SETTLED = 0.05
"""A fit that ran out of iterations still counts as converged if its last step was below this, in sigma. Where
neighbours overlap the fit of one creeps; a joint refit takes over from there."""


def gaussians(
    mu: Float[Array, "m 3"],
    amplitude: Float[Array, " m"],
    sigma: Float[Array, "*m 3"],
    lower: Int[Array, " 3"],
    upper: Int[Array, " 3"],
) -> Float[Array, "a b c"]:
    """Render the sum of some Gaussians on the voxels ``lower <= index < upper``."""
    shape = (upper - lower).tolist()
    offset = np.arange(max(shape)) - (mu - lower)[:, :, None]
    e = np.exp(-0.5 * (offset / np.broadcast_to(sigma, mu.shape)[:, :, None]) ** 2)
    a, b, c = (e[:, axis, :n] for axis, n in enumerate(shape))
    across = (b[:, :, None] * c[:, None, :]).reshape(len(mu), -1)
    return np.asarray((a * amplitude[:, None]).T @ across).reshape(shape)


class WindowFit(NamedTuple):
    """One Gaussian fitted to a window."""

    mu: list[float]
    """Centre, in voxels from the window's first voxel."""
    amplitude: float
    """Height at the centre, in units of the map."""
    variances: list[float]
    """Variances of (mu, amplitude) per unit of noise variance; the centre's axes are uncorrelated."""
    sse: float
    """Residual energy in the window."""
    energy: float
    """Energy (sum of squares) of the data in the window."""
    iterations: int
    converged: bool
    """Whether the centre had come to rest (last step below `SETTLED` sigma), with a positive amplitude."""
    width: float = 1.0
    """Standard deviation over sigma; the amplitude is the height that the mass would have at width 1."""


def fit_window(
    box: Float[Array, "a b c"],
    start: list[int],
    sigma: Float[Array, " 3"],
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 9,
) -> WindowFit:
    """Fit ``amplitude * exp(-|x - mu|^2 / (2 sigma^2))`` to a window.

    With sigma known the amplitude is linear and is solved in closed form, which leaves the centre (variable projection,
    Golub and Pereyra, 1973). Newton's method on the logarithm of the energy that the best amplitude explains: for data
    that are a Gaussian this is a parabola, so that one step arrives.

    Parameters
    ----------
    box : (a, b, c) float64
        Data.
    start : three int
        Voxel near the centre, from the window's first voxel.
    sigma : (3,) float
        Standard deviation per axis, in voxels; ``inf`` for an axis without position.
    tolerance : float
        Stop when the step is below this fraction of sigma. The step is still taken, and convergence is quadratic: the
        error left is about its square.
    max_iterations : int
        Give up after this many.
    """
    widths = (1.0 / sigma).tolist()
    window = _Window(box, 1.0 / sigma)
    mu = _parabola(box, start, widths)
    best = window.project(mu)
    size, damping, iterations = best.length, 0.0, 1
    going = best.length >= tolerance and best.explained > 0
    while going and iterations < max_iterations:
        by = max(best.length, 1.0) * (1.0 + damping)
        taken, trial = best.length / by, [x + u / by for x, u in zip(mu, best.step, strict=True)]
        there = window.project(trial)
        iterations += 1
        if there.explained >= best.explained:
            best, mu, damping = there, trial, 0.25 * damping
        else:
            damping = max(4.0 * damping, 0.5)
        size = min(best.length, taken)
        going = best.length >= tolerance and damping < 1e4 and taken > 1e-9
    energy, height = float(np.vdot(box, box)), best.height
    if best.length < tolerance:  # known well enough to be taken without another look
        terms = zip(best.step, widths, best.gradient, best.ratio, strict=True)
        height *= math.exp(min(sum(u * i * (g - r) for u, i, g, r in terms), 700.0))  # a window may hold anything
        mu = [x + u for x, u in zip(mu, best.step, strict=True)]
    sse = max(energy - max(best.explained, 0.0), 0.0)
    return WindowFit(mu, height, _variances(best, widths), sse, energy, iterations, size < SETTLED and best.height > 0)


def _parabola(box: Float[Array, "a b c"], start: list[int], inverse: list[float]) -> list[float]:
    """First guess of the centre: the logarithm of a Gaussian is a parabola through three voxels along each axis."""
    _, nb, nc = box.shape
    here, centre = (start[0] * nb + start[1]) * nc + start[2], [float(i) for i in start]
    for axis, (i, n, width, stride) in enumerate(zip(start, box.shape, inverse, (nb * nc, nc, 1), strict=True)):
        if width and 0 < i < n - 1 and (before := box.item(here - stride)):
            ratio = box.item(here + stride) / before
            if 0.0 < ratio < math.inf:
                centre[axis] += min(max(0.5 * math.log(ratio) / (width * width), -0.75), 0.75)
    return centre


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


class _Window:
    """A window's data, ready to be projected on Gaussians."""

    def __init__(self, box: Float[Array, "a b c"], inverse: Float[Array, " 3"]) -> None:
        self.na, self.nb, self.nc = box.shape
        self.flat = box.reshape(self.na * self.nb, self.nc)
        self.inverse = inverse[:, None]
        self.grid = np.arange(max(box.shape), dtype=float)
        equal = self.na == self.nb == self.nc
        self.inside = None if equal else (self.grid < np.array(box.shape)[:, None]).astype(float)
        self.basis = np.empty((3, 3, self.grid.size))

    def project(self, mu: list[float]) -> _Projected:
        """Solve for the amplitude and linearise in the centre."""
        # inner products of the data, and of each other, with value, first and second derivative by mu / sigma
        basis = self.basis
        scaled = (self.grid - np.array(mu)[:, None]) * self.inverse
        square = scaled * scaled
        e = np.exp(-0.5 * square)
        if self.inside is not None:
            e *= self.inside
        basis[:, 0] = e
        np.multiply(scaled, e, out=basis[:, 1])
        square -= 1.0
        np.multiply(square, e, out=basis[:, 2])
        t = self.flat @ basis[2, :, : self.nc].T
        t = basis[1, :, : self.nb] @ t.reshape(self.na, self.nb, 3)
        t = basis[0, :, : self.na] @ t.reshape(self.na, 9)
        products = basis @ basis.transpose(0, 2, 1)
        return _linearise(t.reshape(27).tolist(), products.tolist(), self.inverse[:, 0].tolist())


def _linearise(t: list[float], products: list[list[list[float]]], inverse: list[float]) -> _Projected:
    """Solve for one amplitude and its centre's Newton step in plain numbers: quicker than arrays of three.

    `t` holds the data's products with each choice on (axis 0, axis 1, axis 2), the last one fastest.
    """
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
    u, v, w = u if k0 > 1e-12 else 0.0, v if k1 > 1e-12 else 0.0, w if k2 > 1e-12 else 0.0
    length = max(abs(u), abs(v), abs(w)) if math.isfinite(u + v + w) else math.nan
    step = [s / i if i else 0.0 for s, i in zip((u, v, w), inverse, strict=True)]
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
