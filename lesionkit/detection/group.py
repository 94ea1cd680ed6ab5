"""Least squares of several Gaussians together: a box and first guesses in, centres, amplitudes and widths out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

Array = np.ndarray

_TERMS = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)])
"""What is multiplied on each axis: 0 the value, 1 its derivative by mu, 2 that by log width. The first four terms are
the derivatives by amplitude and centre, the other three add up to that by log width."""


class GroupFit(NamedTuple):
    """Several Gaussians fitted together to one box."""

    mu: Float[Array, "m 3"]
    amplitude: Float[Array, " m"]
    """Heights that their masses would have at width 1."""
    width: Float[Array, " m"]
    """Standard deviations over sigma."""
    covariance: Float[Array, "m 4 4"]
    """Covariance of (amplitude, mu) of each Gaussian per unit of noise variance, the others free."""
    sse: float
    energy: float


def fit_group(
    box: Float[Array, "a b c"],
    mu: Float[Array, "m 3"],
    amplitude: Float[Array, " m"],
    sigma: Float[Array, " 3"],
    *,
    width: Float[Array, " m"] | None = None,
    widths: tuple[float, float] = (1.0, 1.0),
    tolerance: float = 1e-5,
    max_iterations: int = 12,
) -> GroupFit:
    """Fit `m` Gaussians to one box together, by Levenberg-Marquardt from the given start.

    Parameters
    ----------
    box : (a, b, c) float64
        Data, with everything but these Gaussians subtracted.
    mu : (m, 3) float
        First guess of the centres, in voxels from the box's first voxel.
    amplitude : (m,) float
        First guess of the amplitudes: the heights that their masses would have at width 1.
    sigma : (3,) float
        Standard deviation per axis, in voxels; ``inf`` for an axis without position.
    width : (m,) float, optional
        First guess of the standard deviations over sigma, to be fitted too. None: all are 1.
    widths : (float, float)
        Least and greatest width.
    tolerance : float
        Stop when every centre moves by less than this fraction of sigma, and every width changes by less.
    max_iterations : int
        Stop after this many in any case; the best point so far is returned.

    Returns
    -------
    GroupFit
        In the order of `mu`.
    """
    energy = float(np.vdot(box, box))
    columns = [amplitude, *np.asarray(mu).T]
    if width is not None:
        columns.append(np.log(width))
    trial = np.array(columns, dtype=float).T
    m, n = trial.shape
    lowest, highest = np.log(widths)
    best, point, matrix = np.inf, trial, np.eye(m * n)
    damping, slow = 1e-3, 0
    for _ in range(max_iterations):
        sse, normal, gradient = _normal_equations(box, energy, trial, sigma)
        if sse <= best:
            gain = best - sse
            best, point, matrix, downhill = sse, trial, normal, gradient
            damping *= 0.2
            slow = slow + 1 if gain < 1e-3 * sse else 0
            # far below a standard error, or creeping: no sum of these Gaussians fits
            if gain <= max(1e-3 * sse / box.size, 1e-14 * energy) or slow == 2:
                break
        else:
            damping = max(5.0 * damping, 1e-4)
            if damping > 1e8:
                break
        free = np.ones((m, n), bool)
        if width is not None:  # a width at its limit stays there while it is pushed beyond
            push = downhill.reshape(m, n)[:, 4]
            free[:, 4] = ((point[:, 4] > lowest) | (push > 0)) & ((point[:, 4] < highest) | (push < 0))
        rows = np.flatnonzero(free)
        system, step = matrix[np.ix_(rows, rows)], np.zeros(m * n)
        diagonal = system.diagonal()
        system = system + np.diag(damping * diagonal + 1e-12 * diagonal.max() + 1e-300)
        step[rows] = np.linalg.solve(system, downhill[rows])
        step = step.reshape(m, n)
        size = float(np.abs(step[:, 1:4] / sigma).max())
        if width is not None:
            size = max(size, float(np.abs(step[:, 4]).max()))
        if size > 1.0:
            step = step / size
        trial = point + step
        if width is not None:
            np.clip(trial[:, 4], lowest, highest, out=trial[:, 4])
        if size < tolerance:
            point = trial
            break
    covariance = np.linalg.pinv(matrix, hermitian=True).reshape(m, n, m, n)[np.arange(m), :, np.arange(m), :]
    return GroupFit(
        mu=point[:, 1:4],
        amplitude=point[:, 0],
        width=np.ones(m) if width is None else np.exp(point[:, 4]),
        covariance=covariance[:, :4, :4],
        sse=max(float(best), 0.0),
        energy=energy,
    )


def _normal_equations(
    box: Float[Array, "a b c"], energy: float, point: Float[Array, "m n"], sigma: Float[Array, " 3"]
) -> tuple[float, Float[Array, "p p"], Float[Array, " p"]]:
    """Return the squared error, ``J^T J`` and ``J^T r`` at `point`, all from 1-D sums.

    The rows of `point` are amplitude, mu (3) and, where the widths are free, log width.
    """
    m, n = point.shape
    na, nb, nc = box.shape
    height, inverse, placed = point[:, 0], np.broadcast_to(1.0 / sigma, (m, 3))[:, :, None], np.isfinite(sigma)[:, None]
    if n > 4:
        inverse = inverse * np.exp(-point[:, 4])[:, None, None]
    scaled = (np.arange(max(box.shape), dtype=float) - point[:, 1:4, None]) * inverse
    e = np.exp(-0.5 * scaled * scaled)
    if n > 4:
        e = e * np.where(placed, np.exp(-point[:, 4])[:, None, None], 1.0)  # the mass stays
    kinds = [e, scaled * e * inverse]
    if n > 4:
        kinds.append((scaled * scaled - placed) * e)
    k, terms = len(kinds), _TERMS[: 4 if n == 4 else 7]
    both = np.stack(kinds)  # (k, m, axis, voxel)
    a, b, c = both[:, :, 0, :na], both[:, :, 1, :nb], both[:, :, 2, :nc]
    t = (box.reshape(na * nb, nc) @ c.reshape(k * m, nc).T).reshape(na, nb, k, m)
    t = b.transpose(1, 0, 2) @ t.transpose(3, 1, 0, 2).reshape(m, nb, na * k)  # (m, y, z voxel * x)
    t = a.transpose(1, 0, 2)[:, None] @ t.reshape(m, k, na, k)  # (m, y, z, x)
    projected = _join(t[:, terms[:, 1], terms[:, 0], terms[:, 2]], 1)

    # inner products of all pairs, (m, n, m, n): parameter 0 is the amplitude, parameter i the centre's axis i
    gram: Any = 1.0
    for part, which in zip((a, b, c), terms.T, strict=True):
        flat = part.reshape(k * m, -1)
        products = (flat @ flat.T).reshape(k, m, k, m)
        gram = gram * products[which][:, :, which]
    gram = _join(_join(gram, 0), 2).transpose(1, 0, 3, 2)
    model = gram[:, :, :, 0] @ height  # <derivative, model>, before scaling
    sse = energy - 2.0 * float(height @ projected[:, 0]) + float(height @ model[:, 0])
    scale = np.ones((m, n))
    scale[:, 1:] = height[:, None]
    factors = scale.reshape(n * m)
    normal = gram.reshape(n * m, n * m) * factors[:, None] * factors
    gradient = (projected - model).reshape(n * m) * factors
    return sse, normal, gradient


def _join(terms: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Add up the terms of the derivative by log width, if they are there."""
    if terms.shape[axis] == 4:
        return terms
    first, last = np.split(terms, [4], axis)
    return np.concatenate([first, last.sum(axis, keepdims=True)], axis)
