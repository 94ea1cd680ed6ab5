"""Least squares of several Gaussians together: a box and first guesses in, centres and amplitudes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

Array = np.ndarray

_WHICH = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
"""For each axis: which of the four parameters (amplitude, centre) take the derivative along it."""


class GroupFit(NamedTuple):
    """Several Gaussians fitted together to one box."""

    mu: Float[Array, "m 3"]
    amplitude: Float[Array, " m"]
    covariance: Float[Array, "m 4 4"]
    """Covariance of (amplitude, mu) of each Gaussian per unit of noise variance, the others free."""
    sse: float
    energy: float
    iterations: int


def fit_group(
    box: Float[Array, "a b c"],
    mu: Float[Array, "m 3"],
    amplitude: Float[Array, " m"],
    sigma: Float[Array, " 3"],
    *,
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
        First guess of the heights.
    sigma : (3,) float
        Standard deviation per axis, in voxels; ``inf`` for an axis without position.
    tolerance : float
        Stop when every centre moves by less than this fraction of sigma.
    max_iterations : int
        Stop after this many in any case; the best point so far is returned.

    Returns
    -------
    GroupFit
        In the order of `mu`.
    """
    m = len(mu)
    energy = float(np.vdot(box, box))
    inverse = 1.0 / sigma
    trial = np.concatenate([np.asarray(amplitude, float)[:, None], np.asarray(mu, float)], 1)
    best, point, matrix = np.inf, trial, np.eye(4 * m)
    damping, slow, iteration = 1e-3, 0, 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007 (read after the loop)
        sse, normal, gradient = _normal_equations(box, energy, trial, inverse)
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
        diagonal = matrix.diagonal()
        step = np.linalg.solve(matrix + np.diag(damping * diagonal + 1e-12 * diagonal.max() + 1e-300), downhill)
        step = step.reshape(m, 4)
        size = float(np.abs(step[:, 1:] * inverse).max())
        if size > 1.0:
            step = step / size
        trial = point + step
        if size < tolerance:
            point = trial
            break
    covariance = np.linalg.pinv(matrix, hermitian=True).reshape(m, 4, m, 4)[np.arange(m), :, np.arange(m), :]
    return GroupFit(
        mu=point[:, 1:],
        amplitude=point[:, 0],
        covariance=covariance,
        sse=max(float(best), 0.0),
        energy=energy,
        iterations=iteration,
    )


def _normal_equations(
    box: Float[Array, "a b c"], energy: float, point: Float[Array, "m 4"], inverse: Float[Array, " 3"]
) -> tuple[float, Float[Array, "p p"], Float[Array, " p"]]:
    """Return the squared error, ``J^T J`` and ``J^T r`` at `point` (rows: amplitude, mu); all from 1-D sums."""
    m = len(point)
    na, nb, nc = box.shape
    height = point[:, 0]
    grid = np.arange(max(box.shape), dtype=float)
    scaled = (grid - point[:, 1:, None]) * inverse[:, None]
    e = np.exp(-0.5 * scaled * scaled)
    both = np.stack([e, scaled * e * inverse[:, None]])  # (2, m, axis, n): e and its derivative
    a, b, c = both[:, :, 0, :na], both[:, :, 1, :nb], both[:, :, 2, :nc]
    t = (box.reshape(na * nb, nc) @ c.reshape(2 * m, nc).T).reshape(na, nb, 2, m)
    t = b.transpose(1, 0, 2) @ t.transpose(3, 1, 0, 2).reshape(m, nb, na * 2)  # (m, y, z voxel * x)
    t = a.transpose(1, 0, 2)[:, None] @ t.reshape(m, 2, na, 2)  # (m, y, z, x)
    projected = t.reshape(m, 8)[:, [0, 2, 4, 1]]  # value, then the derivative along each axis

    # inner products of all pairs, (m, 4, m, 4): parameter 0 is the amplitude, parameter i the centre's axis i
    gram: Any = 1.0
    for axis, part in enumerate((a, b, c)):
        flat = part.reshape(2 * m, -1)
        products = (flat @ flat.T).reshape(2, m, 2, m)
        which = _WHICH[axis]
        gram = gram * products[which][:, :, which]
    gram = gram.transpose(1, 0, 3, 2)
    model = gram[:, :, :, 0] @ height  # <derivative, model>, before scaling
    sse = energy - 2.0 * float(height @ projected[:, 0]) + float(height @ model[:, 0])
    scale = np.ones((m, 4))
    scale[:, 1:] = height[:, None]
    factors = scale.reshape(4 * m)
    normal = gram.reshape(4 * m, 4 * m) * factors[:, None] * factors
    gradient = (projected - model).reshape(4 * m) * factors
    return sse, normal, gradient
