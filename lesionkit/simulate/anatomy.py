"""A brain that differs every time: the template deformed, its tissues varied, and the scanner that takes its picture.

In: a voxel size and a random generator. Out: an `Anatomy` (tissue fractions and landmarks on one grid), and `acquire`,
which turns ideal intensities into a measured image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class _Template:
    maps: dict[str, Float[np.ndarray, "i j k"]]
    affine: Float[np.ndarray, "4 4"]


@cache
def _template() -> _Template:
    with resources.files("lesionkit").joinpath("data/icbm152.npz").open("rb") as file, np.load(file) as stored:
        maps = {name: stored[name].astype(np.float32) for name in ("t1", "gm", "wm", "ventricle_mm")}
        affine = stored["affine"]
    for name in ("t1", "gm", "wm"):
        maps[name] /= 255
    return _Template(maps, affine)


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Gaussian field of unit variance, smooth over about `scale` voxels; drawn coarse and interpolated."""
    coarse = tuple(int(np.ceil(n / scale)) + 3 for n in shape)
    grid = rng.standard_normal(coarse).astype(np.float32)
    for axis, (n, m) in enumerate(zip(shape, coarse, strict=True)):  # separable cubic (Catmull-Rom) interpolation
        x = np.arange(n) / scale + rng.random()
        base = np.minimum(x.astype(int), m - 4 if m > 4 else 0)
        t = x - base
        weights = np.zeros((n, m), np.float32)
        basis = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
        for offset, w in enumerate(basis):
            weights[np.arange(n), np.minimum(base + offset, m - 1)] += 0.5 * w
        grid = np.moveaxis(np.tensordot(weights, grid, axes=(1, axis)), 0, axis)
    field_ = np.ascontiguousarray(grid)
    return field_ / max(float(field_.std()), 1e-6)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One drawn brain."""

    gm: Float[np.ndarray, "i j k"]
    """Fraction of grey matter."""
    wm: Float[np.ndarray, "i j k"]
    """Fraction of white matter."""
    csf: Float[np.ndarray, "i j k"]
    """Fraction of fluid."""
    detail: Float[np.ndarray, "i j k"]
    """What the template's T1 shows beyond its three tissues, such as the deep nuclei."""
    ventricle_mm: Float[np.ndarray, "i j k"]
    """Distance to the ventricles."""
    brain: Bool[np.ndarray, "i j k"]
    """The brain mask."""
    depth: Float[np.ndarray, "i j k"]
    """Distance to the brain's surface, mm."""
    affine: Float[np.ndarray, "4 4"]
    """Voxel index to mm (RAS+)."""


def draw_anatomy(spacing: float, rng: np.random.Generator) -> Anatomy:
    """Deform the template: affine, smooth displacement, sharper and individually varied tissue borders."""
    template = _template()
    extent = np.array(template.maps["t1"].shape)
    shape = tuple(int(n) for n in np.ceil(extent / spacing))
    centre = (np.array(shape) - 1) / 2
    angles = rng.uniform(-8, 8, 3) * np.pi / 180
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        u, v = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[[u, v], [u, v]] = np.cos(angle)
        turn[u, v], turn[v, u] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    matrix = rotation @ np.diag(rng.uniform(0.98, 1.14, 3)) * spacing
    if rng.random() < 0.5:
        matrix[:, 0] *= -1  # mirrored brains are as likely
    shift = (extent - 1) / 2 + rng.uniform(-4, 4, 3)
    index = [np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True)]
    amplitude = rng.uniform(1.0, 3.5)
    where = np.empty((3, *shape), np.float32)
    for axis in range(3):
        row = matrix[axis].astype(np.float32)
        where[axis] = (row[0] * index[0])[:, None, None] + (row[1] * index[1])[:, None] + row[2] * index[2]
        where[axis] += shift[axis] + amplitude * smooth_noise(shape, 18 / spacing, rng)
    maps = {
        name: ndimage.map_coordinates(a, where, order=1) for name, a in template.maps.items() if name != "ventricle_mm"
    }
    ventricle = ndimage.map_coordinates(template.maps["ventricle_mm"], where, order=1, mode="nearest")

    tissue = maps["gm"] + maps["wm"]
    brain = maps["t1"] > 0.05
    # Averaging many brains blurred the template: sharpen it, and fold each cortex its own way.
    fold = rng.uniform(0.0, 1.4) * smooth_noise(shape, 3.5 / spacing, rng)
    gain = rng.uniform(1.5, 3.5)
    near_surface = np.clip((ventricle - 6) / 12, 0, 1)
    logit_wm = gain * np.log((maps["wm"] + 0.02) / (maps["gm"] + 0.02)) + fold * near_surface
    fold = rng.uniform(0.0, 1.4) * smooth_noise(shape, 3.5 / spacing, rng)
    csf = np.clip(1 - tissue, 0, 1)
    logit_csf = rng.uniform(1.2, 2.5) * np.log((csf + 0.02) / (np.minimum(tissue, 1) + 0.02)) + fold * near_surface
    csf = (1 / (1 + np.exp(-logit_csf))).astype(np.float32)
    wm = ((1 - csf) / (1 + np.exp(-logit_wm))).astype(np.float32)
    gm = 1 - csf - wm
    detail = maps["t1"] - (0.93 * maps["wm"] + 0.72 * maps["gm"] + 0.25 * np.clip(1 - tissue, 0, 1))
    coarse = tuple(slice(None, None, 2) for _ in range(3)) if spacing < 1.5 else (slice(None),) * 3
    step = 2 * spacing if spacing < 1.5 else spacing
    depth = ndimage.distance_transform_edt(brain[coarse]).astype(np.float32) * step
    if spacing < 1.5:
        depth = np.repeat(np.repeat(np.repeat(depth, 2, 0), 2, 1), 2, 2)[tuple(slice(n) for n in shape)]
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = template.affine[:3, 3]
    return Anatomy(gm, wm, csf, np.clip(detail, -0.3, 0.3), ventricle, brain, depth, affine)


def acquire(
    image: np.ndarray, anatomy: Anatomy, noise: float, rng: np.random.Generator, *, correlated: float = 0.0
) -> np.ndarray:
    """Bias field, gain, Rician noise; 0 outside the brain."""
    shape = image.shape
    bias = 1 + rng.uniform(0.02, 0.12) * smooth_noise(shape, 55 / anatomy.affine[0, 0], rng)
    signal = np.maximum(image * np.clip(bias, 0.5, 1.5), 0)
    parts = [rng.standard_normal(shape, dtype=np.float32) for _ in range(2)]
    if correlated > 0:
        parts = [ndimage.gaussian_filter(part, correlated, truncate=2.5) for part in parts]
        parts = [part / part.std() for part in parts]
    measured = np.hypot(signal + noise * parts[0], noise * parts[1]) * rng.uniform(400, 2000)
    return np.where(anatomy.brain, np.clip(np.rint(measured), 1, 32767), 0).astype(np.int16)  # as scanners store it


def shifted(a: np.ndarray, rng: np.random.Generator, shift: float) -> np.ndarray:
    """Translate by a fraction of a voxel: what a registration leaves."""
    return np.asarray(ndimage.shift(a, rng.uniform(-shift, shift, 3), order=1, mode="nearest"))
