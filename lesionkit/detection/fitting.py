"""Least squares of Gaussians of known sigma: windows around maxima in, centres and amplitudes out.

Everything here works on three axes; an axis without position (length 1) has ``sigma = inf``, so that its factor is 1.

With sigma known the amplitude is linear and is solved in closed form, which leaves the centre (variable projection,
Golub and Pereyra, 1973). A Gaussian is a product of 1-D vectors: every inner product that least squares needs is a
product of 1-D sums, and the Gauss-Newton matrix of one centre is diagonal. No array of the window's size is built per
iteration.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lesionkit.detection.single import SETTLED, contract, fit_few

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Array = np.ndarray

FEW = 8
"""Up to this many windows are quicker one by one in plain numbers than together in arrays."""

_MOMENTS = np.array([9, 3, 1, 18, 12, 10, 12, 6, 4, 10, 4, 2])
"""Where the 27 products over (axis 0, axis 1, axis 2) x (value, first, second derivative) hold gradient and Hessian."""


class WindowFits(NamedTuple):
    """One Gaussian fitted to each of ``k`` windows."""

    mu: Float[Array, "k 3"]
    """Centres, in voxels from each window's first voxel."""
    amplitude: Float[Array, " k"]
    """Heights at the centres, in units of the map."""
    covariance: Float[Array, "k 4"]
    """Variances of (mu, amplitude) per unit of noise variance; the centre's axes are uncorrelated."""
    sse: Float[Array, " k"]
    """Residual energy in the window."""
    energy: Float[Array, " k"]
    """Energy (sum of squares) of the data in the window."""
    iterations: Int[Array, " k"]
    """Gauss-Newton iterations."""
    converged: Bool[Array, " k"]
    """Whether the centre had come to rest (last step below `SETTLED` sigma), with a positive amplitude."""


def amplitude_of_unit_mass(sigma: Float[Array, " 3"]) -> float:
    """Height of a Gaussian of mass 1: the product of ``1 / (sqrt(2 pi) sigma)`` over the axes with a position."""
    return math.prod((1.0 / (math.sqrt(2.0 * math.pi) * s) for s in sigma.tolist() if math.isfinite(s)), start=1.0)


def gaussian_patch(
    mu: Float[Array, " 3"],
    amplitude: float,
    lower: Int[Array, " 3"],
    upper: Int[Array, " 3"],
    sigma: Float[Array, " 3"],
) -> Float[Array, "a b c"]:
    """Render one Gaussian on the voxels ``lower <= index < upper``."""
    ez, ey, ex = (
        np.exp(-0.5 * ((np.arange(a, b) - m) / s) ** 2) for a, b, m, s in zip(lower, upper, mu, sigma, strict=True)
    )
    patch: Float[Array, "a b c"] = (amplitude * ez)[:, None, None] * (ey[:, None] * ex)
    return patch


def fit_windows(
    windows: Float[Array, "k a b c"],
    start: Int[Array, "k 3"],
    sigma: Float[Array, "*k 3"],
    *,
    inside: Bool[Array, "k 3 n"] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 9,
) -> WindowFits:
    """Fit ``amplitude * exp(-|x - mu|^2 / (2 sigma^2))`` to each window.

    Newton's method on the logarithm of the energy that the best amplitude explains: for data that are a Gaussian this
    is a parabola, so that one step arrives.

    Parameters
    ----------
    windows : (k, a, b, c) float64
        Data; voxels outside the map hold 0 and are marked in `inside`.
    start : (k, 3) int
        Voxel near each centre, from each window's first voxel.
    sigma : (3,) or (k, 3) float
        Standard deviation per axis, in voxels; ``inf`` for an axis without position.
    inside : (k, 3, n) bool, optional
        For each window and axis, which indices lie in the map (``n = max(a, b, c)``). None: all of them.
    tolerance : float
        Stop when the step is below this fraction of sigma. The step is still taken, and convergence is quadratic: the
        error left is about its square.
    max_iterations : int
        Give up after this many.

    Returns
    -------
    WindowFits
        In the order of the windows.
    """
    k, na, nb, nc = windows.shape
    grid = np.arange(max(na, nb, nc), dtype=float)
    if inside is None and not na == nb == nc:
        inside = np.broadcast_to(grid < np.array([na, nb, nc])[:, None], (k, 3, grid.size))
    inverse = np.empty((k, 3))
    inverse[:] = 1.0 / sigma
    if 0 < k <= FEW:
        few = np.array(fit_few(windows, start, inverse, grid, inside, tolerance, max_iterations))
        return WindowFits(
            mu=few[:, :3], amplitude=few[:, 3], covariance=few[:, 4:8], sse=few[:, 8], energy=few[:, 9],
            iterations=few[:, 10].astype(int), converged=few[:, 11].astype(bool),
        )  # fmt: skip
    mask = None if inside is None else inside.astype(float)
    flat = windows.reshape(k, -1)
    with np.errstate(all="ignore"):  # a window may be empty, or hold anything at all
        energy = np.einsum("ki,ki->k", flat, flat)
        mu = start + _parabola(windows, start, inverse, inside)
        best = _Projection(windows, mu, inverse, grid, mask)  # at the best point of each window so far
        length = np.abs(best.step * inverse).max(1)
        damping, size, iterations = np.zeros(k), length, np.ones(k, int)
        going = (length >= tolerance) & (best.explained > 0)
        for _ in range(1, max_iterations):
            if not going.any():
                break
            every = bool(going.all())
            active = slice(None) if every else np.flatnonzero(going)
            data, width = (windows, inverse) if every else (windows[active], inverse[active])
            part = mask if every or mask is None else mask[active]
            step = best.step[active] / (np.maximum(length[active], 1.0) * (1.0 + damping[active]))[:, None]
            trial = mu[active] + step
            there = _Projection(data, trial, width, grid, part)
            iterations[active] += 1
            better = there.explained >= best.explained[active]
            if every and better.all():
                best, mu = there, trial
            else:
                moved = np.arange(k)[active][better]
                mu[moved] = trial[better]
                best.update(moved, there, better)
            taken = np.abs(step * width).max(1)
            length = np.abs(best.step * inverse).max(1)
            size = size.copy()
            size[active] = np.minimum(length[active], taken)
            damping[active] = np.where(better, 0.25 * damping[active], np.maximum(4.0 * damping[active], 0.5))
            going[active] = (length[active] >= tolerance) & (damping[active] < 1e4) & (taken > 1e-9)
        height = best.height.copy()
        last = length < tolerance  # known well enough to be taken without another look
        step = np.where(last[:, None], best.step, 0.0)
        height *= np.exp((step * inverse * (best.gradient - best.ratio)).sum(1))
        return WindowFits(
            mu=mu + step,
            amplitude=height,
            covariance=best.variances(inverse),
            sse=np.maximum(energy - np.maximum(best.explained, 0.0), 0.0),
            energy=energy,
            iterations=iterations,
            converged=(size < SETTLED) & (best.height > 0),
        )


def _parabola(
    windows: Float[Array, "k a b c"],
    start: Int[Array, "k 3"],
    inverse: Float[Array, "k 3"],
    inside: Bool[Array, "k 3 n"] | None,
) -> Float[Array, "k 3"]:
    """First guess of the centre: the logarithm of a Gaussian is a parabola through three voxels along each axis."""
    _, na, nb, nc = windows.shape
    strides = np.array([nb * nc, nc, 1])
    flat = windows.reshape(-1)
    here = (start @ strides + np.arange(0, flat.size, na * nb * nc))[:, None]
    last = np.array([na, nb, nc]) - 1 if inside is None else inside.sum(2) - 1
    known = (start > 0) & (start < last)
    if known.all():
        ratio = flat[here + strides] / flat[here - strides]
    else:
        ratio = flat[here + strides * known] / flat[here - strides * known]
    known &= (ratio > 0) & (ratio < np.inf)
    guess = np.log(np.where(known, ratio, 1.0)) * (0.5 / (inverse * inverse))
    bounded: Float[Array, "k 3"] = np.clip(np.where(known, guess, 0.0), -0.75, 0.75)
    return bounded


class _Projection:
    """The best amplitude of a Gaussian at given centres, what it explains, and the Newton step of the centre."""

    __slots__ = ("curvature", "explained", "gradient", "gram", "height", "ratio", "step")

    def __init__(
        self,
        data: Float[Array, "k a b c"],
        mu: Float[Array, "k 3"],
        inverse: Float[Array, "k 3"],
        grid: Float[Array, " n"],
        mask: Float[Array, "k 3 n"] | None,
    ) -> None:
        t, products = contract(data, mu, inverse, grid, mask)
        norm = products[:, :, 0, 0]
        self.gram = gram = norm[:, 0] * norm[:, 1] * norm[:, 2]
        products = products / norm[:, :, None, None]
        self.ratio = ratio = products[:, :, 0, 1]
        squared = ratio * ratio
        self.curvature = curvature = products[:, :, 1, 1] - squared
        projected = t[:, 0]
        self.height = height = projected / gram
        self.explained = explained = projected * height
        moments = t.take(_MOMENTS, 1) / projected[:, None]
        first = moments[:, :3]
        self.gradient = gradient = first - ratio
        newton = first[:, :, None] * first[:, None, :]
        newton -= moments[:, 3:].reshape(-1, 3, 3)
        diagonal = newton.reshape(-1, 9)[:, ::4]
        diagonal += curvature
        diagonal += products[:, :, 0, 2]
        diagonal -= squared
        free = curvature > 1e-12  # not an axis without position, or seen on one voxel only
        usable = bool(free.all()) and projected.min() > 0 and explained.max() < np.inf
        if not usable:
            diagonal[~free] = 1.0
        # where the parabola has no top take the Gauss-Newton step, whose matrix is diagonal
        top = 2.0 * diagonal > np.abs(newton).sum(2)
        if not top.all():
            no_top = ~top.all(1)
            newton[no_top] = 0.0
            diagonal[no_top] = np.where(free, curvature, 1.0)[no_top]
        self.step = step = np.linalg.solve(newton, gradient[:, :, None])[:, :, 0] / inverse
        if not usable:
            good = (projected > 0) & np.isfinite(explained)
            height[~good], explained[~good] = 0.0, -1.0
            step[~(free & good[:, None] & np.isfinite(step))] = 0.0

    def variances(self, inverse: Float[Array, "k 3"]) -> Float[Array, "k 4"]:
        """Variances of centre and amplitude per unit of noise variance; 0 along an axis without position."""
        free = self.curvature > 1e-12
        relative = np.where(free, 1.0 / (self.gram[:, None] * self.curvature), 0.0)
        out = np.empty((len(relative), 4))
        out[:, :3] = relative / (self.height[:, None] * inverse) ** 2
        out[:, 3] = 1.0 / self.gram + (self.ratio * self.ratio * relative).sum(1)
        if not free.all():
            out[:, :3][~free] = 0.0
        return out

    def update(self, rows: Int[Array, " m"], other: _Projection, which: Bool[Array, " n"]) -> None:
        """Take over some windows from a later projection."""
        for name in self.__slots__:
            getattr(self, name)[rows] = getattr(other, name)[which]
