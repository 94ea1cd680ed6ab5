"""Lesions: how many, how large, of which shape and where.

In: an `Anatomy` and a `SimulationConfig`. Out: a mask, and the contrast at each of its voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from lesionkit.simulate.anatomy import Anatomy, smooth_noise
from lesionkit.simulate.config import Kind, SimulationConfig

SIZE_QUANTILES = ((0, 3), (0.05, 3), (0.1, 4), (0.25, 9), (0.5, 21), (0.75, 55), (0.9, 154), (0.95, 320), (1, 1500))
"""Voxels of a lesion: quantiles of the real lesions of 3 voxels and more (20 patients, 1 mm); the long tail is cut."""

COUNT_QUANTILES = ((0, 19), (0.1, 23), (0.25, 32), (0.5, 81), (0.75, 105), (0.9, 234), (1, 366))
"""Lesions drawn for a case: quantiles of the same 20 patients, 7 % up, as some find no place and some grow together."""


def blob(size: int, rng: np.random.Generator, *, elongation: float = 0.45) -> Float[np.ndarray, "a b c"]:
    """Draw an irregular connected blob of exactly `size` voxels, as a small boolean box."""
    radius = (3 * size / (4 * np.pi)) ** (1 / 3)
    half = int(np.ceil(1.9 * radius * (1 + elongation))) + 2
    axes = np.exp(rng.normal(0, elongation, 3))
    axes *= radius / axes.prod() ** (1 / 3)
    frame, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    grid = np.stack(np.meshgrid(*[np.arange(-half, half + 1)] * 3, indexing="ij"), axis=-1) - rng.uniform(-0.5, 0.5, 3)
    distance = (((grid @ frame) / np.maximum(axes, 0.7)) ** 2).sum(axis=-1)
    ripple = smooth_noise(distance.shape, max(0.8 * radius, 1.5), rng)
    score = np.sqrt(distance) + 0.18 * ripple
    structure = ndimage.generate_binary_structure(3, 1)
    ranked = np.sort(score.ravel())
    for extra in range(size, min(4 * size + 20, ranked.size)):  # a satellite voxel does not count: take in the next one
        labels, _ = ndimage.label(score <= ranked[extra - 1], structure=structure)
        middle = labels.ravel()[score.argmin()]
        body = labels == middle
        if body.sum() >= size:
            break
    trimmed = tuple(slice(int(v.min()), int(v.max()) + 1) for v in np.nonzero(body))
    return np.asarray(body[trimmed])


def paste(
    box: Float[np.ndarray, "..."], centre: Int[np.ndarray, " 3"], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], ...]:
    """Slices of the volume and of the box that overlap when the box is centred on a voxel."""
    start = centre - np.array(box.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + box.shape, shape)
    volume = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    local = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
    return volume, local


def lesion_places(anatomy: Anatomy, kind: Kind) -> Float[np.ndarray, "i j k"]:
    """Density of lesion centres: white matter, more so beside the ventricles and at the cortex' border (MS)."""
    periventricular = np.exp(-np.maximum(anatomy.ventricle_mm - 2, 0) / (10 if kind == "flair" else 14))
    juxtacortical = 4 * anatomy.gm * anatomy.wm
    density = anatomy.wm * (0.12 + 1.6 * periventricular + 0.25 * juxtacortical)
    density *= (anatomy.depth > 6) & (anatomy.wm > 0.3) & (anatomy.ventricle_mm > 0.5)
    return np.asarray(density)


def draw_lesions(anatomy: Anatomy, config: SimulationConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Place the blobs; return the mask and, at each of its voxels, the contrast (CNR) of the blob."""
    shape = anatomy.brain.shape
    density = lesion_places(anatomy, config.kind)
    candidates = np.flatnonzero(density > 0)
    cumulative = np.cumsum(density.ravel()[candidates])
    n = draw_count(config, rng)
    mask = np.zeros(shape, bool)
    cnr = np.zeros(shape, np.float32)
    centres: list[np.ndarray] = []
    for _ in range(rng.poisson(config.confluences) if n and config.confluences else 0):
        body = _confluence(anatomy, rng)
        mask |= body
        cnr[body] = np.exp(rng.uniform(*np.log(config.contrast)))
    for _ in range(n):
        size = int(np.clip(round(_draw_quantile(SIZE_QUANTILES, rng)), config.min_size, config.max_size))
        level = float(np.exp(rng.uniform(*np.log(config.contrast))))
        body = blob(size, rng)
        fate = rng.random()
        for _attempt in range(30):
            if centres and fate < config.clustered + config.confluent:
                near = centres[rng.integers(len(centres))]
                reach = rng.uniform(1, 4) if fate < config.confluent else rng.uniform(*config.reach)
                direction = rng.standard_normal(3)
                centre = np.rint(near + reach * direction / np.linalg.norm(direction)).astype(int)
                if (centre < 0).any() or (centre >= shape).any() or density[tuple(centre)] <= 0:
                    continue
            else:
                pick = candidates[np.searchsorted(cumulative, rng.random() * cumulative[-1])]
                centre = np.array(np.unravel_index(pick, shape))
            volume, local = paste(body, centre, shape)
            part = body[local] & anatomy.brain[volume] & (anatomy.csf[volume] < 0.5)
            if part.sum() < 0.8 * size:
                continue
            grown = tuple(slice(max(s.start - config.gap, 0), s.stop + config.gap) for s in volume)
            if fate >= config.confluent and mask[grown].any():
                continue
            mask[volume] |= part
            cnr[volume] = np.where(part, level, cnr[volume])
            centres.append(centre)
            break
    return mask, cnr


def draw_count(config: SimulationConfig, rng: np.random.Generator) -> int:
    """Draw the number of lesions of a case."""
    if config.lesions is None:
        return round(_draw_quantile(COUNT_QUANTILES, rng))
    median, spread = config.lesions
    if median == 0:
        return 0
    return int(np.clip(round(median * np.exp(spread * rng.standard_normal())), 1, 400))


def _draw_quantile(quantiles: Sequence[tuple[float, float]], rng: np.random.Generator) -> float:
    """Draw from a distribution given by its quantiles, between which the logarithm is uniform."""
    share, value = np.array(quantiles).T
    return float(np.exp(np.interp(rng.random(), share, np.log(value))))


def _confluence(anatomy: Anatomy, rng: np.random.Generator) -> Bool[np.ndarray, "i j k"]:
    """Draw one lesion that spreads through white matter from a place beside the ventricles."""
    beside = (anatomy.ventricle_mm > 0.5) & (anatomy.ventricle_mm < 4) & (anatomy.wm > 0.5)
    anchor = draw_where(beside.astype(np.float32), 1, rng)
    size = int(np.clip(5000 * np.exp(0.9 * rng.standard_normal()), 1500, 40_000))
    spacing = float(anatomy.affine[0, 0])
    offsets = [(np.arange(n) - a) * spacing for n, a in zip(beside.shape, anchor[0], strict=True)]
    distance = np.sqrt(np.add.outer(np.add.outer(offsets[0] ** 2, offsets[1] ** 2), offsets[2] ** 2)).astype(np.float32)
    ripple = smooth_noise(beside.shape, 6 / spacing, rng)
    score = anatomy.ventricle_mm / 5 + distance / 20 + 0.5 * ripple + 3 * (1 - anatomy.wm)
    score[~anatomy.brain | (anatomy.ventricle_mm < 0.5)] = np.inf
    labels, _ = ndimage.label(score <= np.partition(score.ravel(), size)[size])
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def draw_where(density: np.ndarray, n: int, rng: np.random.Generator) -> Int[np.ndarray, "n 3"]:
    """Draw voxels with a probability in proportion to `density`; none where it is 0 everywhere."""
    candidates = np.flatnonzero(density)
    if len(candidates) == 0 or n == 0:
        return np.zeros((0, 3), dtype=int)
    cumulative = np.cumsum(density.ravel()[candidates], dtype=float)
    picks = candidates[np.searchsorted(cumulative, rng.random(n) * cumulative[-1])]
    return np.stack(np.unravel_index(picks, density.shape), axis=1)
