"""A brain that differs every time: an anatomy deformed, its tissues varied, and the scanner that takes its picture.

In: a template, a voxel size and a random generator. Out: an `Anatomy` (tissue fractions and landmarks on one grid), and
`acquire`, which turns ideal intensities into a measured image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.simulate.template import Template, load_template


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
    head: Float[np.ndarray, "i j k"] | None
    """T1 intensity around the brain, that of white matter being 1; None: stripped."""
    ventricle_mm: Float[np.ndarray, "i j k"]
    """Distance to the ventricles."""
    brain: Bool[np.ndarray, "i j k"]
    """The brain mask."""
    depth: Float[np.ndarray, "i j k"]
    """Distance to the brain's surface, mm."""
    affine: Float[np.ndarray, "4 4"]
    """Voxel index to mm (RAS+)."""


def bounding_box(mask: Bool[np.ndarray, "i j k"]) -> Float[np.ndarray, "2 3"]:
    """First and last index of a mask along each axis."""
    lines = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([[line[0] for line in lines], [line[-1] for line in lines]], float)


@cache
def _head_of(template: Template) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Head, and scale and shift from the template's grid to that of the head: a stripped brain borrows Colin's."""
    donor = template if template.head.any() else load_template("colin27")
    here, there = bounding_box(template.brain), bounding_box(donor.brain)
    scale = (there[1] - there[0]) / (here[1] - here[0])
    # where the donor's brain reaches farther, there is fluid
    return np.where(donor.brain, 0.2, donor.head).astype(np.float32), scale, there[0] - scale * here[0]


def draw_anatomy(template: Template, spacing: float, rng: np.random.Generator, *, head: bool = False) -> Anatomy:
    """Deform the template: affine, smooth displacement, individually varied tissue borders; with or without a head."""
    box = bounding_box(template.brain)
    stretch = rng.uniform(0.96, 1.04, 3)
    stretch *= (template.brain.sum() / 1e6 / rng.uniform(1.2, 1.7) / stretch.prod()) ** (1 / 3)  # litres, fluid and all
    if head:
        around, scale, shift = _head_of(template)
        low, high = -shift / scale, (np.array(around.shape) - 1 - shift) / scale
        low[2] = max(low[2], box[0, 2] - 35)  # no need of a neck
    else:
        low, high = box[0] - 8, box[1] + 8
    shape = tuple(int(n) for n in np.ceil((high - low) / stretch / spacing))
    centre = (np.array(shape) - 1) / 2
    angles = rng.uniform(-8, 8, 3) * np.pi / 180
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        u, v = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[[u, v], [u, v]] = np.cos(angle)
        turn[u, v], turn[v, u] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    matrix = rotation @ np.diag(stretch) * spacing
    if rng.random() < 0.5:
        matrix[:, 0] *= -1  # mirrored brains are as likely
    index = [np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True)]
    amplitude, sway = rng.uniform(0.5, 2.0), rng.uniform(1.0, 4.0)
    where = np.empty((3, *shape), np.float32)
    for axis in range(3):
        row = matrix[axis].astype(np.float32)
        where[axis] = (row[0] * index[0])[:, None, None] + (row[1] * index[1])[:, None] + row[2] * index[2]
        where[axis] += (low[axis] + high[axis]) / 2
        where[axis] += amplitude * smooth_noise(shape, 24 / spacing, rng) + sway * smooth_noise(
            shape, 60 / spacing, rng
        )
    wm, gm, csf = (ndimage.map_coordinates(a, where, order=1) for a in (template.wm, template.gm, template.csf))
    ventricle = ndimage.map_coordinates(template.ventricle_mm, where, order=1, mode="nearest") / float(stretch.mean())
    total = wm + gm + csf
    brain = total > 0.5
    surroundings = None
    if head:
        for axis in range(3):
            where[axis] = scale[axis] * where[axis] + shift[axis]
        surroundings = ndimage.map_coordinates(around, where, order=1) * np.clip(1 - total, 0, 1)
    if template.averaged:
        wm, csf = _sharpened(wm, gm, csf, ventricle, spacing, rng)
        outside = ~brain if surroundings is None else np.zeros_like(brain)
        wm, csf = np.where(outside, 0, wm * np.minimum(total, 1)), np.where(outside, 0, csf * np.minimum(total, 1))
    else:  # sulci narrower, or wider, as with age
        csf **= rng.uniform(1.0, 2.0)
        wide = rng.uniform(0.0, 0.6) * ndimage.gaussian_filter(csf, 1 / spacing, truncate=2.5)
        wm *= 1 - wide
        csf += (total - csf) * wide
    gm = np.maximum(total - wm - csf, 0)
    step = 2 if spacing < 1.5 else 1
    depth = ndimage.distance_transform_edt(brain[::step, ::step, ::step]).astype(np.float32) * step * spacing
    for axis in range(3):
        depth = depth.repeat(step, axis)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * np.rint(centre)
    return Anatomy(gm, wm, csf, surroundings, ventricle, brain, depth[tuple(slice(n) for n in shape)], affine)


def _sharpened(
    wm: np.ndarray, gm: np.ndarray, csf: np.ndarray, ventricle: np.ndarray, spacing: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """White matter and fluid of an average brain, its borders sharpened, its cortex folded in a way of its own."""
    near_surface = np.clip((ventricle - 6) / 12, 0, 1)
    fold = rng.uniform(0.0, 1.4) * smooth_noise(wm.shape, 3.5 / spacing, rng)
    logit = rng.uniform(1.5, 3.5) * np.log((wm + 0.02) / (gm + 0.02)) + fold * near_surface
    white = 1 / (1 + np.exp(-logit))
    fold = rng.uniform(0.0, 1.4) * smooth_noise(wm.shape, 3.5 / spacing, rng)
    logit = rng.uniform(1.2, 2.5) * np.log((csf + 0.02) / (wm + gm + 0.02)) + fold * near_surface
    fluid = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return ((1 - fluid) * white).astype(np.float32), fluid


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices thicker than the grid's voxels, along one axis."""

    axis: int
    thickness: float
    """From slice to slice, voxels."""
    profile: Float[np.ndarray, "m n"]
    """Share of each voxel `n` in each slice `m`."""

    @classmethod
    def draw(cls, shape: tuple[int, ...], axis: int, thickness: float, rng: np.random.Generator) -> Slices:
        """Lay slices of a thickness (voxels) along an axis, with gaps of up to a fifth between them."""
        n = int(shape[axis] // thickness)
        start = rng.uniform(0, shape[axis] - n * thickness) + thickness * np.arange(n)[:, None] - 0.5
        voxel = np.arange(shape[axis]) - 0.5
        end = start + thickness * rng.uniform(0.8, 1.0)
        covered = np.clip(np.minimum(end, voxel + 1) - np.maximum(start, voxel), 0, 1).astype(np.float32)
        return cls(axis, thickness, covered / covered.sum(axis=1, keepdims=True))

    @property
    def centres(self) -> Float[np.ndarray, " m"]:
        """Middle of each slice, voxels."""
        return np.asarray(self.profile @ np.arange(self.profile.shape[1]))

    def average(self, data: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "a b c"]:
        """Return the slices of a volume."""
        moved = np.tensordot(self.profile, data.astype(np.float32), axes=(1, self.axis))
        return np.asarray(np.moveaxis(moved, 0, self.axis))

    def spread(self, data: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Return the volume that slices are resampled to: between two slices linear, or the nearest slice's value."""
        middle = self.centres
        place = np.interp(np.arange(self.profile.shape[1]), middle, np.arange(len(middle)))
        if nearest:
            return np.asarray(data.take(np.rint(place).astype(int), self.axis))
        low = np.minimum(place.astype(int), max(len(middle) - 2, 0))
        weight = (place - low).astype(np.float32).reshape([-1 if a == self.axis else 1 for a in range(3)])
        high = np.minimum(low + 1, len(middle) - 1)
        return np.asarray((1 - weight) * data.take(low, self.axis) + weight * data.take(high, self.axis))

    def affine(self, affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """Return the affine of the slices from that of the volume."""
        thick = affine.copy()
        thick[:, 3] += affine[:, self.axis] * self.centres[0]
        thick[:, self.axis] *= self.thickness
        return thick


def biased(image: Float[np.ndarray, "i j k"], spacing: float, rng: np.random.Generator) -> Float[np.ndarray, "i j k"]:
    """Multiply by the bias field of a coil."""
    bias = 1 + rng.uniform(0.02, 0.12) * smooth_noise(image.shape, 55 / spacing, rng)
    return np.asarray(np.maximum(image * np.clip(bias, 0.5, 1.5), 0))


def measured(
    signal: Float[np.ndarray, "i j k"], noise: float, rng: np.random.Generator, *, correlated: float = 0.0
) -> Float[np.ndarray, "i j k"]:
    """Add Rician noise, its smoothness in voxels."""
    parts = [rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)]
    if correlated > 0:
        parts = [ndimage.gaussian_filter(part, correlated, truncate=2.5) for part in parts]
        parts = [part / part.std() for part in parts]
    return np.asarray(np.hypot(signal + noise * parts[0], noise * parts[1]))


def shifted(a: np.ndarray, rng: np.random.Generator, shift: float) -> np.ndarray:
    """Translate by a fraction of a voxel: what a registration leaves."""
    return np.asarray(ndimage.shift(a, rng.uniform(-shift, shift, 3), order=1, mode="nearest"))
