"""Ideal images, before the scanner: tissues, lesions, and the structures that resemble lesions.

In: an `Anatomy`, the lesions and the noise that their contrast is counted in. Out: one image a channel.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.simulate.anatomy import Anatomy, bounding_box, shifted, smooth_noise
from lesionkit.simulate.config import SimulationConfig
from lesionkit.simulate.lesions import blob, draw_where, lesion_places, paste


def _tube(
    shape: tuple[int, ...], start: np.ndarray, length: float, rng: np.random.Generator, bend: float = 0.25
) -> np.ndarray:
    """Voxels along a curved path: a vessel. `(n, 3)` float positions half a voxel apart."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    path = [start.astype(float)]
    for _ in range(int(2 * length)):
        direction = direction + bend * rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        path.append(path[-1] + 0.5 * direction)
    positions = np.array(path)
    return positions[((positions >= 1) & (positions < np.array(shape) - 2)).all(axis=1)]


def _splat(target: np.ndarray, positions: np.ndarray, values: float | np.ndarray) -> None:
    """Add values at float positions, shared between the eight voxels around each."""
    base = np.floor(positions).astype(int)
    fraction = positions - base
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, fraction, 1 - fraction), axis=1)
        np.add.at(target, tuple((base + corner).T), weight * values)


def _vessels(anatomy: Anatomy, n: int, rng: np.random.Generator, density: np.ndarray) -> np.ndarray:
    """Bright tubes, peak about 1: most run in the sulci and at the surface, some cross the white matter."""
    shape = anatomy.brain.shape
    vessels = np.zeros(shape, np.float32)
    for start in draw_where(density, n, rng):
        path = _tube(shape, start, rng.uniform(8, 30), rng)
        if len(path):
            _splat(vessels, path, float(np.exp(rng.uniform(np.log(0.25), np.log(0.9)))))
    return np.minimum(vessels, 1.3)


def _blobs(
    anatomy: Anatomy, n: int, density: np.ndarray, size: tuple[float, float], blur: float, rng: np.random.Generator
) -> np.ndarray:
    """Soft blobs of peak about 1 and log-uniform size in voxels."""
    field_ = np.zeros(anatomy.brain.shape, np.float32)
    for centre in draw_where(density, n, rng):
        body = blob(max(int(np.exp(rng.uniform(*np.log(size)))), 2), rng, elongation=0.6)
        volume, local = paste(body, centre, field_.shape)
        field_[volume] = np.maximum(field_[volume], body[local] * rng.uniform(0.5, 1.2))
    return np.asarray(ndimage.gaussian_filter(field_, blur, truncate=2.5)) if blur > 0 else field_


def _lesion_signal(
    mask: np.ndarray, cnr: np.ndarray, noise: float, rng: np.random.Generator, edge: float
) -> np.ndarray:
    """Contrast added by the lesions: flat inside with some texture, softened at the edge by partial volume."""
    texture = 1 + 0.15 * smooth_noise(mask.shape, 2.5, rng)
    return np.asarray(
        ndimage.gaussian_filter(np.where(mask, cnr * noise * texture, 0).astype(np.float32), edge, truncate=2.5)
    )


def render_gad(
    anatomy: Anatomy,
    mask: Bool[np.ndarray, "i j k"],
    cnr: Float[np.ndarray, "i j k"],
    noise: float,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return T1 after and before contrast."""
    shape, extra = mask.shape, config.lookalikes
    gm, csf = rng.uniform(0.65, 0.85), rng.uniform(0.2, 0.4)
    base = anatomy.wm + gm * anatomy.gm + csf * anatomy.csf
    base *= 1 + rng.uniform(0.01, 0.03) * smooth_noise(shape, 6 / config.spacing, rng)
    if anatomy.head is not None:
        base += rng.uniform(0.85, 1.15) * anatomy.head
    # Most enhancing lesions sit in tissue that is dark before contrast; a few are bright in both images.
    dark = ndimage.gaussian_filter((mask & (rng.random() < 0.9)).astype(np.float32), 0.6, truncate=2.5)
    base -= rng.uniform(0.0, 0.15) * dark
    both = _blobs(anatomy, rng.poisson(3 * extra), anatomy.wm * (anatomy.depth > 6), (3, 60), 0.5, rng)
    base += noise * rng.uniform(3, 10) * both

    sulci = (anatomy.brain & (anatomy.csf > 0.25) & (anatomy.ventricle_mm > 6)).astype(np.float32)
    surface = (anatomy.brain & (anatomy.depth < 4)).astype(np.float32)
    vessels = _vessels(anatomy, rng.poisson(14 * extra), rng, sulci + 0.3 * surface)
    vessels += 0.6 * _vessels(anatomy, rng.poisson(5 * extra), rng, anatomy.wm * (anatomy.depth > 8))
    plexus = _blobs(anatomy, rng.poisson(3 * extra), (anatomy.ventricle_mm < 1).astype(np.float32), (6, 50), 0.5, rng)
    plexus *= anatomy.ventricle_mm < 2
    dura = surface * np.clip(smooth_noise(shape, 12 / config.spacing, rng) - 0.5, 0, 1.5)
    enhancement = noise * (
        rng.uniform(7, 16) * vessels + rng.uniform(5, 14) * plexus + rng.uniform(2, 8) * dura * (extra > 0)
    )
    enhancement += _lesion_signal(mask, cnr, noise, rng, 0.45)
    enhancement += rng.uniform(0.0, 0.02) * anatomy.gm  # perfused tissue brightens a little
    return [base + enhancement, shifted(base, rng, 0.35)]


PLACES = (  # in the box around the brain: x from the midline, y from the back, z from below; radius; a range of gains
    (0.27, 0.58, 0.50, 0.10, (0.0, 0.2)),  # insula
    (0.20, 0.50, 0.32, 0.10, (0.0, 0.2)),  # hippocampus and amygdala
    (0.00, 0.62, 0.70, 0.10, (0.0, 0.15)),  # cingulate gyrus
    (0.00, 0.45, 0.25, 0.12, (-0.05, 0.2)),  # brain stem
    (0.12, 0.56, 0.46, 0.04, (-0.3, 0.0)),  # pallidum, dark with iron
)
"""Where FLAIR is brighter or darker than tissue elsewhere."""


def _regions(anatomy: Anatomy, rng: np.random.Generator) -> Float[np.ndarray, "i j k"]:
    """Gain of the places that differ."""
    low, high = bounding_box(anatomy.brain)
    at = [
        (np.arange(n, dtype=np.float32) - a) / (b - a) for n, a, b in zip(anatomy.brain.shape, low, high, strict=True)
    ]
    gain = np.ones(anatomy.brain.shape, np.float32)
    for x, y, z, radius, span in PLACES:
        level, sides = rng.uniform(*span), {0.5 - x, 0.5 + x}
        across = sum(np.exp(-0.5 * ((at[0] - side) / radius) ** 2) for side in sorted(sides))
        along, up = (np.exp(-0.5 * ((a - c) / radius) ** 2) for a, c in zip(at[1:], (y, z), strict=True))
        gain += level * across[:, None, None] * (along[:, None] * up)
    return gain


def render_flair(
    anatomy: Anatomy,
    mask: Bool[np.ndarray, "i j k"],
    cnr: Float[np.ndarray, "i j k"],
    noise: float,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return the FLAIR image; white matter is about 1."""
    shape, extra, spacing = mask.shape, config.lookalikes, config.spacing
    gm, csf = rng.uniform(1.1, 1.4), rng.uniform(0.1, 0.45)
    wm_texture = 1 + rng.uniform(0.01, 0.05) * smooth_noise(shape, 7 / spacing, rng)
    gm_texture = 1 + rng.uniform(0.02, 0.06) * smooth_noise(shape, 3.5 / spacing, rng)
    gm_texture += rng.uniform(0.02, 0.07) * smooth_noise(shape, 25 / spacing, rng)
    base = (wm_texture * anatomy.wm + gm * gm_texture * anatomy.gm) * _regions(anatomy, rng)
    base += csf * anatomy.csf * np.clip(1 + 0.4 * smooth_noise(shape, 12 / spacing, rng), 0, 3)  # fluid that flows

    # Look-alikes: halo, caps and lining of the ventricles, plexus, cortex, vessels, diffuse white matter.
    beside = np.abs(anatomy.ventricle_mm - rng.uniform(0.5, 1.5)) < rng.uniform(0.5, 1.2)
    lining = np.clip(smooth_noise(shape, 8 / spacing, rng) + 0.2, 0, 1.5) * beside
    halo = np.exp(-anatomy.ventricle_mm / rng.uniform(2, 6)) * (anatomy.wm + anatomy.gm)
    halo *= np.clip(1 + 0.7 * smooth_noise(shape, 20 / spacing, rng), 0, 2.5)
    plexus = _blobs(anatomy, rng.poisson(4 * extra), (anatomy.ventricle_mm < 1).astype(np.float32), (10, 250), 0.6, rng)
    cortex = _blobs(anatomy, rng.poisson(60 * extra), anatomy.gm**2, (10, 400), 0.7, rng) * anatomy.gm
    vessels = _vessels(anatomy, rng.poisson(30 * extra), rng, (anatomy.brain & (anatomy.csf > 0.3)).astype(np.float32))
    diffuse = _blobs(anatomy, rng.poisson(6 * extra), anatomy.wm * (anatomy.depth > 8), (300, 4000), 3.0 / spacing, rng)
    crumbs = _blobs(anatomy, rng.poisson(6 * extra), lesion_places(anatomy, "flair"), (1.1, 2.9), 0.0, rng)
    image = base + (extra > 0) * (
        rng.uniform(0.0, 0.35) * lining
        + rng.uniform(0.0, 0.3) * halo
        + rng.uniform(0.2, 0.9) * plexus
        + rng.uniform(0.05, 0.25) * cortex
        + rng.uniform(0.1, 0.5) * vessels
        + rng.uniform(0.03, 0.15) * diffuse
        + rng.uniform(0.1, 0.4) * crumbs
    )
    if anatomy.head is not None:  # fat, muscle and bone stand to each other much as on T1
        image += rng.uniform(0.9, 1.4) * anatomy.head ** rng.uniform(1.0, 1.6)
    lesions = _lesion_signal(mask, np.minimum(cnr * noise, 1.0) / noise, noise, rng, rng.uniform(0.5, 1.0))
    inside = ndimage.gaussian_filter(mask.astype(np.float32), 0.6, truncate=2.5)
    image += inside * (wm_texture - image) + lesions  # contrast counts from white matter, in cortex too
    return [ndimage.gaussian_filter(image, rng.uniform(0.25, 0.8) / spacing, truncate=2.5)]
