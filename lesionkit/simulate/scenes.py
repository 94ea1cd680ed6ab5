"""Bare heatmaps with known peaks: overlapping pairs, crowds and odd cases, to see what a detector does with them.

In: separations, amplitudes, sigma, noise. Out: a `Scene`: the heatmap and the peaks it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionkit.labels import gaussian_heatmap, per_axis


@dataclass(frozen=True, eq=False)
class Scene:
    """A heatmap and its truth."""

    name: str
    """What is to be seen."""
    heatmap: Float[np.ndarray, "..."]
    """Mass a voxel."""
    points: Float[np.ndarray, "n ndim"]
    """Centres, voxel indices; those outside the volume too."""
    alpha: Float[np.ndarray, " n"]
    """Mass of each peak."""
    sigma: tuple[float, ...]
    """Standard deviation of the peaks, voxels, one an axis."""


def _scene(
    name: str,
    points: Any,
    alpha: Any,
    shape: Sequence[int],
    sigma: float | Sequence[float],
    noise: float,
    rng: np.random.Generator | None,
) -> Scene:
    """Render peaks, and add white noise whose standard deviation is `noise` times the height of a peak of mass 1."""
    centres, mass = np.asarray(points, dtype=float), np.asarray(alpha, dtype=float)
    width = per_axis(sigma, len(shape))
    heatmap = gaussian_heatmap(centres, shape, sigma, weights=mass, border="truncate", dtype=np.float64)
    if noise > 0:
        if rng is None:
            raise ValueError("noise needs rng, a numpy.random.Generator")
        heatmap += noise / np.prod(np.sqrt(2 * np.pi) * width) * rng.standard_normal(heatmap.shape)
    return Scene(name, heatmap.astype(np.float32), centres, mass, tuple(float(w) for w in width))


def pair(
    separation: float,
    ratio: float = 1.0,
    *,
    sigma: float = 1.0,
    noise: float = 0.0,
    shape: Sequence[int] = (32, 32, 32),
    rng: np.random.Generator,
) -> Scene:
    """Draw two peaks in a random direction around the middle of the volume.

    Parameters
    ----------
    separation : float
        Distance of the centres, in sigma.
    ratio : float
        Mass of the second peak; the first has 1.
    sigma : float
        Standard deviation, voxels.
    noise : float
        Standard deviation of white noise, as a fraction of the height of a peak of mass 1.
    shape : sequence of int
        Of the heatmap, 2-D or 3-D.
    rng : numpy.random.Generator
        Direction, position within a voxel, noise.

    Raises
    ------
    ValueError
        If the separation is negative or the ratio not positive.
    """
    if not (separation >= 0 and ratio > 0):
        raise ValueError(f"separation must be 0 or more and ratio positive, got {separation} and {ratio}")
    direction = rng.standard_normal(len(shape))
    direction *= 0.5 * separation * sigma / np.linalg.norm(direction)
    middle = (np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, len(shape))
    name = f"pair, {separation:g} sigma apart, 1 : {ratio:g}"
    return _scene(name, [middle - direction, middle + direction], [1.0, ratio], shape, sigma, noise, rng)


def crowded_field(
    n: int,
    shape: Sequence[int] = (64, 192, 192),
    *,
    sigma: float | Sequence[float] = 1.0,
    closest: float = 1.5,
    noise: float = 0.0,
    alpha: tuple[float, float] = (0.3, 1.0),
    rng: np.random.Generator,
) -> Scene:
    """Draw a crowd: half the peaks anywhere, half beside another one.

    Parameters
    ----------
    n : int
        Number of peaks.
    shape : sequence of int
        Of the heatmap, 2-D or 3-D.
    sigma : float or one float an axis
        Standard deviation, voxels.
    closest : float
        No two centres are closer than this, in sigma.
    noise : float
        Standard deviation of white noise, as a fraction of the height of a peak of mass 1.
    alpha : (float, float)
        Range of the masses, uniform.
    rng : numpy.random.Generator
        Everything random.

    Raises
    ------
    ValueError
        If the volume has no room for so many.
    """
    width = per_axis(sigma, len(shape))
    size = np.array(shape, dtype=float)
    points: list[np.ndarray] = []
    for _ in range(200 * max(n, 1)):
        if len(points) == n:
            break
        if points and rng.random() < 0.5:
            direction = rng.standard_normal(len(shape))
            step = rng.uniform(closest, closest + 3) * direction / np.linalg.norm(direction)
            candidate = points[rng.integers(len(points))] + step * width
        else:
            candidate = rng.uniform(0, 1, len(shape)) * (size - 1)
        inside = (candidate >= 0).all() and (candidate <= size - 1).all()
        if inside and all((((candidate - p) / width) ** 2).sum() >= closest**2 for p in points):
            points.append(candidate)
    if len(points) < n:
        raise ValueError(f"n is {n}, but only {len(points)} peaks {closest} sigma apart fit into {tuple(shape)}")
    mass = rng.uniform(*alpha, size=n)
    return _scene(
        f"{n} peaks, some close together", np.reshape(points, (-1, len(shape))), mass, shape, sigma, noise, rng
    )


def gallery(*, sigma: float = 1.5, noise: float = 0.02, seed: int = 0) -> dict[str, Scene]:
    """Return the scenes worth looking at, by name: overlaps and oddities, each in a cube of 40 voxels.

    Parameters
    ----------
    sigma : float
        Standard deviation, voxels.
    noise : float
        Standard deviation of white noise, as a fraction of the height of a peak of mass 1.
    seed : int
        The same seed gives the same gallery.
    """
    rng = np.random.default_rng(seed)
    shape, middle = (40, 40, 40), np.array([19.6, 20.3, 19.8])
    scenes = {
        f"pair_{separation:g}_{ratio:g}": pair(separation, ratio, sigma=sigma, noise=noise, shape=shape, rng=rng)
        for separation in (1.0, 1.5, 2.0, 3.0)
        for ratio in (1.0, 0.5)
    }

    def add(key: str, name: str, offsets: Any, alpha: Any, at: Float[np.ndarray, " 3"] = middle) -> Scene:
        scene = _scene(name, at + sigma * np.asarray(offsets, dtype=float), alpha, shape, sigma, noise, rng)
        scenes[key] = scene
        return scene

    add("triple", "three in a row, 2 sigma apart", [[-2, 0, 0], [0, 0, 0], [2, 0, 0]], [1, 0.8, 0.6])
    add("triangle", "three at the corners of a triangle", [[0, 0, 0], [2, 0, 0], [1, 1.7, 0]], [1, 1, 1])
    add("beside_giant", "a faint lesion beside a bright one", [[0, 0, 0], [2.5, 0.5, 0]], [1.0, 0.15])
    add("border", "centre outside the volume, and one at the edge", [[-0.5, 0, 0], [0, -9.5, 0]], [0.8, 1.0],
        np.array([0.0, 19.0, 19.0]))  # fmt: skip
    giant = add("plateau", "a flat-topped region, as a saturated network gives", [[-7, -7, -7]], [1.0])
    giant.heatmap[16:26, 16:26, 16:26] = giant.heatmap.max()
    hot = add("hot_voxel", "one hot voxel and a lesion", [[0, 0, 0]], [1.0])
    hot.heatmap[8, 9, 10] = 3 * hot.heatmap.max()
    return scenes
