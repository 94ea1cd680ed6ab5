"""Whole simulated cases on a real brain template, with lesions whose place, size and shape are known exactly.

In: a `SimulationConfig` and a random generator. Out: a `SimulatedCase`: images, the instance mask of the lesions, and
the table of points that an expert would have clicked. Two kinds: `gad` (lesions that enhance on post-contrast T1,
beside the pre-contrast T1: the paper's task) and `flair` (lesions bright on FLAIR).

Every case draws its own anatomy (affine and smooth deformation of ICBM152, cortex sharpened and varied), contrasts,
texture, bias field and Rician noise. What makes the task a task are the look-alikes: vessels, choroid plexus and dura
that enhance too, blobs bright before contrast, misregistration; on FLAIR, bright ventricle walls, septa, patches of
bright cortex, vessels, and diffuse white matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from lesionkit.labels import points_from_mask
from lesionkit.simulate.anatomy import Anatomy, acquire, draw_anatomy, shifted, smooth_noise
from lesionkit.volume import Volume

Kind = Literal["gad", "flair"]

CHANNELS: dict[str, tuple[str, ...]] = {"gad": ("ce-gad_T1w", "T1w"), "flair": ("FLAIR",)}
"""BIDS suffixes of a kind's images, in the order of the network's input channels."""

SIZE_QUANTILES = ((0, 3), (0.05, 3), (0.1, 4), (0.25, 9), (0.5, 21), (0.75, 55), (0.9, 154), (0.95, 320), (1, 1500))
"""Voxels of a lesion: quantiles of the real lesions of 3 voxels and more (20 patients, 1 mm); the long tail is cut."""

COUNT_QUANTILES = ((0, 19), (0.1, 23), (0.25, 32), (0.5, 81), (0.75, 105), (0.9, 234), (1, 366))
"""Lesions drawn for a case: quantiles of the same 20 patients, 7 % up, as some find no place and some grow together."""


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Settings of a simulated cohort."""

    kind: Kind = "gad"
    """`gad` (post- and pre-contrast T1) or `flair`."""
    spacing: float = 2.0
    """Voxel edge, mm; sizes of lesions are drawn in voxels, so that the paper's size classes keep their shares."""
    min_size: int = 3
    """Lesions of fewer voxels are no lesions (paper: small ones have 3 to 10)."""
    max_size: int = 600
    """Largest single blob, voxels; blobs that touch make larger lesions."""
    lesions: tuple[float, float] | None = (3.0, 0.6)
    """Median number of lesions a case, and the standard deviation of its logarithm; None: as many as real patients."""
    clustered: float = 0.25
    """Share of lesions placed close to another one, as the nearest neighbours of real ones are."""
    reach: tuple[float, float] = (6.0, 14.0)
    """Range of the distance of such a lesion's centre from the other's, voxels."""
    gap: int = 2
    """Voxels, at least, between two lesions, so that a component is a lesion."""
    confluent: float = 0.1
    """Share of lesions that grow out of another one, so that both become one component."""
    confluences: float = 0.0
    """Mean number of confluent lesions along the ventricles in a case (Poisson), each of 1500 voxels and more."""
    contrast: tuple[float, float] = (8.0, 20.0)
    """Range of a lesion's contrast over the noise's standard deviation (CNR), log-uniform."""
    noise: tuple[float, float] = (0.02, 0.045)
    """Range of the noise's standard deviation, as a fraction of white matter's intensity."""
    lookalikes: float = 1.0
    """Multiplies the number of structures that resemble lesions; 0 for none."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.kind not in CHANNELS:
            raise ValueError(f"kind must be one of {sorted(CHANNELS)}, got {self.kind!r}")
        if not 0.5 <= self.spacing <= 8:
            raise ValueError(f"spacing must be between 0.5 and 8 mm, got {self.spacing}")
        if not 1 <= self.min_size <= self.max_size:
            raise ValueError(f"min_size and max_size must be 1 <= min <= max, got {self.min_size} and {self.max_size}")
        if self.gap < 1:
            raise ValueError(f"gap must be at least 1 voxel, got {self.gap}")
        for name in ("contrast", "noise", "reach"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a range 0 < low <= high, got {(low, high)}")

    @classmethod
    def preset(cls, kind: Kind) -> SimulationConfig:
        """Return the shipped settings of a kind: `gad` at 2 mm, `flair` at 1 mm with many more lesions."""
        if kind == "flair":
            return cls(
                kind="flair", spacing=1.0, max_size=1500, lesions=None, clustered=0.45, reach=(4.0, 12.0), gap=1,
                confluent=0.06, confluences=1.0, contrast=(6.5, 20.0), noise=(0.03, 0.055),
            )  # fmt: skip
        return cls(kind=kind)


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """One simulated case and its exact truth."""

    images: tuple[Volume, ...]
    """One volume a channel, all on one grid, 0 outside the brain; arbitrary units."""
    labels: Volume
    """Instance mask: voxels of lesion 1 to n; 0 elsewhere."""
    lesions: pd.DataFrame = field(repr=False)
    """One row a lesion: `i j k` (centre of mass, voxels), `x y z` (mm, RAS+), `size_vox`, `cnr`."""

    @property
    def points(self) -> Float[np.ndarray, "n 3"]:
        """Centres of mass, voxel indices."""
        return self.lesions[["i", "j", "k"]].to_numpy(dtype=float)


def _blob(size: int, rng: np.random.Generator, *, elongation: float = 0.45) -> Float[np.ndarray, "a b c"]:
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


def _paste(
    box: Float[np.ndarray, "..."], centre: Int[np.ndarray, " 3"], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], ...]:
    """Slices of the volume and of the box that overlap when the box is centred on a voxel."""
    start = centre - np.array(box.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + box.shape, shape)
    volume = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    local = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
    return volume, local


def _lesion_places(anatomy: Anatomy, kind: Kind) -> Float[np.ndarray, "i j k"]:
    """Density of lesion centres: white matter, more so beside the ventricles and at the cortex' border (MS)."""
    periventricular = np.exp(-np.maximum(anatomy.ventricle_mm - 2, 0) / (10 if kind == "flair" else 14))
    juxtacortical = 4 * anatomy.gm * anatomy.wm
    density = anatomy.wm * (0.12 + 1.6 * periventricular + 0.25 * juxtacortical)
    density *= (anatomy.depth > 6) & (anatomy.wm > 0.3) & (anatomy.ventricle_mm > 0.5)
    return np.asarray(density)


def _draw_lesions(
    anatomy: Anatomy, config: SimulationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Place the blobs; return the mask and, at each of its voxels, the contrast (CNR) of the blob."""
    shape = anatomy.brain.shape
    density = _lesion_places(anatomy, config.kind)
    candidates = np.flatnonzero(density > 0)
    cumulative = np.cumsum(density.ravel()[candidates])
    n = _draw_count(config, rng)
    mask = np.zeros(shape, bool)
    cnr = np.zeros(shape, np.float32)
    centres: list[np.ndarray] = []
    for _ in range(rng.poisson(config.confluences) if config.confluences else 0):
        body = _confluence(anatomy, rng)
        mask |= body
        cnr[body] = np.exp(rng.uniform(*np.log(config.contrast)))
    for _ in range(n):
        size = int(np.clip(round(_draw_quantile(SIZE_QUANTILES, rng)), config.min_size, config.max_size))
        level = float(np.exp(rng.uniform(*np.log(config.contrast))))
        body = _blob(size, rng)
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
            volume, local = _paste(body, centre, shape)
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


def _draw_count(config: SimulationConfig, rng: np.random.Generator) -> int:
    if config.lesions is None:
        return round(_draw_quantile(COUNT_QUANTILES, rng))
    median, spread = config.lesions
    return int(np.clip(round(median * np.exp(spread * rng.standard_normal())), 1, 400))


def _draw_quantile(quantiles: Sequence[tuple[float, float]], rng: np.random.Generator) -> float:
    """Draw from a distribution given by its quantiles, between which the logarithm is uniform."""
    share, value = np.array(quantiles).T
    return float(np.exp(np.interp(rng.random(), share, np.log(value))))


def _confluence(anatomy: Anatomy, rng: np.random.Generator) -> Bool[np.ndarray, "i j k"]:
    """Draw one lesion that spreads through white matter from a place beside the ventricles."""
    beside = (anatomy.ventricle_mm > 0.5) & (anatomy.ventricle_mm < 4) & (anatomy.wm > 0.5)
    anchor = _draw_where(beside.astype(np.float32), 1, rng)
    size = int(np.clip(5000 * np.exp(0.9 * rng.standard_normal()), 1500, 40_000))
    spacing = float(anatomy.affine[0, 0])
    offsets = [(np.arange(n) - a) * spacing for n, a in zip(beside.shape, anchor[0], strict=True)]
    distance = np.sqrt(np.add.outer(np.add.outer(offsets[0] ** 2, offsets[1] ** 2), offsets[2] ** 2)).astype(np.float32)
    ripple = smooth_noise(beside.shape, 6 / spacing, rng)
    score = anatomy.ventricle_mm / 5 + distance / 20 + 0.5 * ripple + 3 * (1 - anatomy.wm)
    score[~anatomy.brain | (anatomy.ventricle_mm < 0.5)] = np.inf
    labels, _ = ndimage.label(score <= np.partition(score.ravel(), size)[size])
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


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


def _draw_where(density: np.ndarray, n: int, rng: np.random.Generator) -> Int[np.ndarray, "n 3"]:
    candidates = np.flatnonzero(density)
    if len(candidates) == 0 or n == 0:
        return np.zeros((0, 3), dtype=int)
    cumulative = np.cumsum(density.ravel()[candidates], dtype=float)
    picks = candidates[np.searchsorted(cumulative, rng.random(n) * cumulative[-1])]
    return np.stack(np.unravel_index(picks, density.shape), axis=1)


def _vessels(anatomy: Anatomy, n: int, rng: np.random.Generator, density: np.ndarray) -> np.ndarray:
    """Bright tubes, peak about 1: most run in the sulci and at the surface, some cross the white matter."""
    shape = anatomy.brain.shape
    vessels = np.zeros(shape, np.float32)
    for start in _draw_where(density, n, rng):
        path = _tube(shape, start, rng.uniform(8, 30), rng)
        if len(path):
            _splat(vessels, path, float(np.exp(rng.uniform(np.log(0.25), np.log(0.9)))))
    return np.minimum(vessels, 1.3)


def _blobs(
    anatomy: Anatomy, n: int, density: np.ndarray, size: tuple[float, float], blur: float, rng: np.random.Generator
) -> np.ndarray:
    """Soft blobs of peak about 1 and log-uniform size in voxels."""
    field_ = np.zeros(anatomy.brain.shape, np.float32)
    for centre in _draw_where(density, n, rng):
        body = _blob(max(int(np.exp(rng.uniform(*np.log(size)))), 2), rng, elongation=0.6)
        volume, local = _paste(body, centre, field_.shape)
        field_[volume] = np.maximum(field_[volume], body[local] * rng.uniform(0.5, 1.2))
    return np.asarray(ndimage.gaussian_filter(field_, blur, truncate=2.5)) if blur > 0 else field_


def simulate_case(config: SimulationConfig | None = None, *, rng: np.random.Generator) -> SimulatedCase:
    """Draw one case.

    Parameters
    ----------
    config : SimulationConfig, optional
        Default: the `gad` preset.
    rng : numpy.random.Generator
        The same state gives the same case, bit for bit.

    Returns
    -------
    SimulatedCase
        With at least one lesion.
    """
    config = config or SimulationConfig()
    anatomy = draw_anatomy(config.spacing, rng)
    mask, cnr = _draw_lesions(anatomy, config, rng)
    found = points_from_mask(mask, min_size=config.min_size)
    mask = found.labels > 0
    cnr *= mask
    noise = float(rng.uniform(*config.noise))
    render = _render_gad if config.kind == "gad" else _render_flair
    images = tuple(Volume(image, anatomy.affine) for image in render(anatomy, mask, cnr, noise, config, rng))
    labels = Volume(found.labels.astype(np.uint16), anatomy.affine)
    level = np.bincount(found.labels.ravel(), weights=cnr.ravel(), minlength=len(found.sizes) + 1)[1:] / np.maximum(
        found.sizes, 1
    )
    lesions = pd.DataFrame(found.points, columns=["i", "j", "k"])
    lesions[["x", "y", "z"]] = labels.to_mm(found.points)
    lesions["size_vox"] = found.sizes
    lesions["cnr"] = level.round(2)
    return SimulatedCase(images, labels, lesions)


def _lesion_signal(
    mask: np.ndarray, cnr: np.ndarray, noise: float, rng: np.random.Generator, edge: float
) -> np.ndarray:
    """Contrast added by the lesions: flat inside with some texture, softened at the edge by partial volume."""
    texture = 1 + 0.15 * smooth_noise(mask.shape, 2.5, rng)
    return np.asarray(
        ndimage.gaussian_filter(np.where(mask, cnr * noise * texture, 0).astype(np.float32), edge, truncate=2.5)
    )


def _render_gad(
    anatomy: Anatomy,
    mask: np.ndarray,
    cnr: np.ndarray,
    noise: float,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    shape, extra = mask.shape, config.lookalikes
    gm, csf = rng.uniform(0.65, 0.85), rng.uniform(0.2, 0.4)
    base = anatomy.wm + gm * anatomy.gm + csf * anatomy.csf + 0.6 * anatomy.detail
    base *= 1 + rng.uniform(0.01, 0.03) * smooth_noise(shape, 6 / config.spacing, rng)
    # Most enhancing lesions sit in tissue that is dark before contrast; a few are bright in both images.
    dark = np.asarray(ndimage.gaussian_filter((mask & (rng.random() < 0.9)).astype(np.float32), 0.6, truncate=2.5))
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

    post = acquire(base + enhancement, anatomy, noise, rng)
    pre = acquire(shifted(base, rng, 0.35), anatomy, noise, rng)
    return post, pre


def _render_flair(
    anatomy: Anatomy,
    mask: np.ndarray,
    cnr: np.ndarray,
    noise: float,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray]:
    shape, extra, spacing = mask.shape, config.lookalikes, config.spacing
    gm, csf = rng.uniform(1.05, 1.32), rng.uniform(0.1, 0.45)
    wm_texture = 1 + rng.uniform(0.01, 0.05) * smooth_noise(shape, 7 / spacing, rng)
    gm_texture = 1 + rng.uniform(0.03, 0.10) * smooth_noise(shape, 3.5 / spacing, rng)
    base = wm_texture * anatomy.wm + gm * gm_texture * anatomy.gm + csf * anatomy.csf
    base -= rng.uniform(0.0, 0.5) * anatomy.detail * (anatomy.depth > 10)

    # Look-alikes: halo and lining of the ventricles, septa, plexus, cortex, vessels, diffuse white matter.
    beside = np.abs(anatomy.ventricle_mm - rng.uniform(1.0, 2.0)) < rng.uniform(0.5, 1.2)
    lining = np.clip(smooth_noise(shape, 8 / spacing, rng) + 0.2, 0, 1.5) * beside
    halo = np.exp(-anatomy.ventricle_mm / rng.uniform(2, 6)) * (anatomy.wm + anatomy.gm)
    plexus = _blobs(anatomy, rng.poisson(4 * extra), (anatomy.ventricle_mm < 1).astype(np.float32), (10, 250), 0.6, rng)
    cortex = _blobs(anatomy, rng.poisson(60 * extra), anatomy.gm**2, (10, 400), 0.7, rng) * anatomy.gm
    vessels = _vessels(anatomy, rng.poisson(30 * extra), rng, (anatomy.brain & (anatomy.csf > 0.3)).astype(np.float32))
    diffuse = _blobs(anatomy, rng.poisson(6 * extra), anatomy.wm * (anatomy.depth > 8), (300, 4000), 3.0 / spacing, rng)
    crumbs = _blobs(anatomy, rng.poisson(6 * extra), _lesion_places(anatomy, "flair"), (1.1, 2.9), 0.0, rng)
    image = base + (extra > 0) * (
        rng.uniform(0.0, 0.35) * lining
        + rng.uniform(0.0, 0.25) * halo
        + rng.uniform(0.2, 0.9) * plexus
        + rng.uniform(0.05, 0.3) * cortex
        + rng.uniform(0.1, 0.5) * vessels
        + rng.uniform(0.03, 0.15) * diffuse
        + rng.uniform(0.1, 0.4) * crumbs
    )
    lesions = _lesion_signal(mask, np.minimum(cnr * noise, 1.0) / noise, noise, rng, rng.uniform(0.5, 0.9))
    inside = ndimage.gaussian_filter(mask.astype(np.float32), 0.6, truncate=2.5)
    image += inside * (wm_texture - image) + lesions  # contrast counts from white matter, in cortex too
    image = ndimage.gaussian_filter(image, rng.uniform(0.25, 0.6) / spacing, truncate=2.5)
    return (acquire(image, anatomy, noise, rng, correlated=rng.uniform(0.0, 0.7) / spacing),)
