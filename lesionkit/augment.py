"""Augmentation: draw one transform, move the image and the points with it, and render the heatmap afterwards.

In: a normalised image `(channels, i, j, k)`, its points, perhaps its lesion mask, and the centre of a patch. Out: the
patch and the points in the patch's own voxels. Rendering the label after the move keeps every Gaussian at its exact
width and mass, which resampling a rendered heatmap would not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Ranges of the random transform."""

    rotation: float = 8.0
    """Largest rotation about each axis, degrees (paper's configuration: 8)."""
    shear: float = 8.0
    """Largest shear, degrees (paper's configuration: 8)."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Range of the zoom of each axis (paper's configuration)."""
    flip: tuple[bool, bool, bool] = (True, False, False)
    """Axes that may be mirrored, each with probability 1/2; the first is left-right."""
    intensity: float = 0.1
    """Standard deviation of a random gain (log) and offset, in units of the normalised image; 0 for none."""
    thick_share: float = 0.0
    """Share of patches that are seen as thick slices along a random axis: averaged, and linear in between."""
    thick: tuple[float, float] = (2.0, 8.0)
    """Range of their thickness, voxels."""
    bias: float = 0.0
    """Standard deviation of a smooth random gain (log) across the patch: the bias field of a coil."""
    gamma: float = 0.0
    """Standard deviation of the log of an exponent that bends the intensities: the contrast of another sequence."""
    noise: float = 0.0
    """Largest standard deviation of added noise, in units of the normalised image."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a range 0 < low <= high, got {self.scale}")
        if not 1 <= self.thick[0] <= self.thick[1]:
            raise ValueError(f"thick must be a range 1 <= low <= high, got {self.thick}")
        for name in ("rotation", "shear", "intensity", "bias", "gamma", "noise", "thick_share"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Transform:
    """A drawn augmentation: `source = matrix @ (voxel - patch centre) + centre`."""

    matrix: Float[np.ndarray, "3 3"]
    """Patch offset to source offset, voxels."""
    gain: Float[np.ndarray, " channels"]
    offset: Float[np.ndarray, " channels"]


def draw_transform(config: AugmentConfig, channels: int, *, rng: np.random.Generator) -> Transform:
    """Draw rotation, shear, zoom, mirroring and intensity."""
    matrix = np.diag(rng.uniform(*config.scale, size=3))
    for axis in range(3):
        u, v = (a for a in range(3) if a != axis)
        angle, tilt = np.deg2rad([config.rotation, config.shear]) * rng.uniform(-1, 1, 2)
        turn, slant = np.eye(3), np.eye(3)
        turn[[u, u, v, v], [u, v, u, v]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        slant[u, v] = np.tan(tilt)
        matrix = matrix @ turn @ slant
    mirrored = np.asarray(config.flip) & (rng.random(3) < 0.5)
    matrix = matrix @ np.diag(np.where(mirrored, -1.0, 1.0))
    gain = np.exp(config.intensity * rng.standard_normal(channels))
    return Transform(matrix, gain, config.intensity * rng.standard_normal(channels))


def apply_transform(
    image: Float[Tensor, "channels i j k"],
    points: Float[np.ndarray, "n 3"],
    transform: Transform,
    centre: Float[np.ndarray, " 3"],
    size: tuple[int, int, int],
) -> tuple[Float[Tensor, "channels a b c"], Float[np.ndarray, "n 3"]]:
    """Cut one transformed patch out of an image, with the points that go with it.

    Parameters
    ----------
    image : (channels, i, j, k) tensor
        Any floating type; beyond its border it counts as 0.
    points : (n, 3) array
        Voxel indices in `image`.
    transform : Transform
        The drawn augmentation.
    centre : (3,) array
        Voxel of `image` that comes to lie in the middle of the patch.
    size : (a, b, c)
        Shape of the patch, voxels.

    Returns
    -------
    patch : (channels, a, b, c) float32 tensor
    points : (n, 3) array
        The same points in voxels of the patch; those outside it are kept, since their Gaussians reach in.
    """
    middle = (np.array(size) - 1) / 2
    patch = _sample(image, transform, centre, size, "bilinear")
    gain = torch.from_numpy(transform.gain).float()[:, None, None, None]
    offset = torch.from_numpy(transform.offset).float()[:, None, None, None]
    patch = torch.where(patch == 0, patch, patch * gain + offset)  # background stays background
    moved = (points - centre) @ np.linalg.inv(transform.matrix).T + middle
    return patch, moved


def apply_to_mask(
    mask: Bool[Tensor, "i j k"],
    transform: Transform,
    centre: Float[np.ndarray, " 3"],
    size: tuple[int, int, int],
) -> Bool[Tensor, "a b c"]:
    """Cut the patch that `apply_transform` cuts out of an image out of its lesion mask.

    Parameters
    ----------
    mask : (i, j, k) tensor of bool
        On the grid of the image.
    transform, centre, size
        As for `apply_transform`.

    Returns
    -------
    patch : (a, b, c) tensor of bool
        Each voxel is that of the mask nearest to where it comes from, so that lesions of few voxels are not lost.
    """
    return _sample(mask, transform, centre, size, "nearest")[0] > 0


def alter_image(
    patch: Float[Tensor, "channels a b c"], config: AugmentConfig, *, rng: np.random.Generator
) -> Float[Tensor, "channels a b c"]:
    """Show a patch as another scanner would: bent contrast, bias field, thick slices, noise.

    Parameters
    ----------
    patch : (channels, a, b, c) tensor
        Normalised; 0 is background and stays so.
    config : AugmentConfig
        How strong each change is; with its defaults nothing changes.
    rng : numpy.random.Generator
        The same state gives the same changes.

    Returns
    -------
    patch : (channels, a, b, c) tensor
    """
    inside = patch != 0
    if config.gamma > 0:
        bent = ((patch + _BEND_LOW) / _BEND_RANGE).clamp(min=0) ** float(np.exp(config.gamma * rng.standard_normal()))
        patch = bent * _BEND_RANGE - _BEND_LOW
    if config.bias > 0:
        coarse = torch.from_numpy(config.bias * rng.standard_normal((1, 1, 4, 4, 4))).float()
        field = functional.interpolate(coarse, size=patch.shape[1:], mode="trilinear", align_corners=True)[0]
        patch = (patch + _BEND_LOW) * torch.exp(field) - _BEND_LOW
    patch = torch.where(inside, patch, 0)
    if rng.random() < config.thick_share:
        patch = _thick_slices(patch, axis=int(rng.integers(1, 4)), thickness=rng.uniform(*config.thick))
        inside = patch != 0
    if config.noise > 0:
        noise = torch.from_numpy(rng.standard_normal(patch.shape, dtype=np.float32))
        patch = torch.where(inside, patch + config.noise * rng.random() * noise, 0)
    return patch


_BEND_LOW, _BEND_RANGE = 6.0, 12.0
"""Normalised intensities from -6 to 6 are what an exponent bends between 0 and 1; fluid and air lie at the low end."""


def _thick_slices(patch: Float[Tensor, "channels a b c"], *, axis: int, thickness: float) -> Tensor:
    moved = patch.movedim(axis, -1)
    n = moved.shape[-1]
    slices = functional.adaptive_avg_pool1d(moved.reshape(-1, 1, n), max(round(n / thickness), 1))
    between = functional.interpolate(slices, size=n, mode="linear", align_corners=False)
    return between.reshape(moved.shape).movedim(-1, axis).contiguous()


def _sample(
    image: Shaped[Tensor, "*channels i j k"],
    transform: Transform,
    centre: Float[np.ndarray, " 3"],
    size: tuple[int, int, int],
    mode: str,
) -> Float[Tensor, "channels a b c"]:
    """Interpolate an image where the voxels of the patch come from; 0 beyond its border.

    Only the part that is needed is read, as a tensor or as an array, so that images may stay on disk.
    """
    shape = image.shape[-3:]
    middle = (np.array(size) - 1) / 2
    reach = np.abs(transform.matrix) @ middle + 2
    low = np.maximum(np.floor(centre - reach).astype(int), 0)
    high = np.minimum(np.ceil(centre + reach).astype(int) + 1, shape)
    if (high - low < 2).any():
        raise ValueError(f"the patch around {np.asarray(centre).tolist()} lies outside the image of {tuple(shape)}")
    crop = torch.as_tensor(image[..., low[0] : high[0], low[1] : high[1], low[2] : high[2]]).float()
    crop = crop.reshape(-1, *crop.shape[-3:])
    # grid_sample wants x, y, z of the last axis first, scaled to [-1, 1]
    scale = 2 / (high - low - 1)
    affine = scale[:, None] * transform.matrix
    shift = scale * (centre - low) - 1
    theta = np.concatenate([affine * middle, shift[:, None]], axis=1)[::-1][:, [2, 1, 0, 3]].copy()
    grid = functional.affine_grid(torch.from_numpy(theta).float()[None], [1, len(crop), *size], align_corners=True)
    return functional.grid_sample(crop[None], grid, mode=mode, padding_mode="zeros", align_corners=True)[0]
