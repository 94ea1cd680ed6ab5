"""Where the brain is: the background of an image, the head or stripped brain before it, and the brain in a head.

In: a `Volume` of any contrast, stripped or not. Out: masks on its grid, and the litres of a brain in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from lesionkit.volume import Volume, resample, resample_to

if TYPE_CHECKING:
    from lesionkit.model import UNet

LITRES = (0.8, 2.0)
"""Brains outside this range are said to look wrong: few adults have one."""

WEIGHTS = Path(__file__).parent / "data" / "brain.safetensors"
SPACING = 4.0
"""Voxel edges of the network that finds brains in heads, mm."""
_FLAT = 0.005
"""Share of voxels that are exactly like their neighbours from which on a constant counts as the background: hardly any
tissue is flat, not even in 8 bits."""
_RING = 0.95
"""Share of the outermost voxels below half of what is beside them from which on resampling has made them: at a cut edge
it is nearly all, at the dark border of a stripped brain 0.4 to 0.9."""
_LARGEST = 2.1
"""Litres of the largest brain (of one that a template has scaled up); what is larger, and not background, is a head."""


@dataclass(frozen=True, eq=False)
class _Foreground:
    """What is not background."""

    mask: Bool[np.ndarray, "i j k"]
    level: float
    """Value of the background."""
    noise: float
    """Standard deviation of the background; 0 where it is constant."""


def _foreground(data: Shaped[np.ndarray, "i j k"]) -> _Foreground | None:
    """Part an image into background and the rest; None if there is no background, as in a crop inside the brain."""
    low, high = np.percentile(data[::2, ::2, ::2], (0.1, 99.9))
    dust = 1e-6 * float(high - low)  # what interpolation leaves of a constant
    level = _flat_level(data if dust == 0 else np.rint(data / dust) * dust)
    if level is not None:
        mask = _body(np.abs(data - level) > dust)
        return None if mask is None else _Foreground(_without_ring(data, mask, level), level, 0.0)
    faces = np.concatenate([np.take(data, end, axis).ravel() for axis in range(3) for end in (0, -1)])
    border = faces < _otsu(data)
    dark = faces[border].astype(np.float64)
    level, noise = float(np.median(dark)), 1.4826 * float(np.median(np.abs(dark - np.median(dark))))
    bright = float(np.median(data[data > level + 4 * noise])) if (data > level + 4 * noise).any() else level
    if border.mean() < 0.3 or noise > 0.1 * (bright - level):
        return None  # dark tissue at the border, not air
    smooth = ndimage.uniform_filter(data.astype(np.float32), 3)
    mask = _body((data > level + 4 * noise) & (smooth > level + 3 * noise))
    return None if mask is None else _Foreground(mask, level, noise)


def _flat_level(data: Shaped[np.ndarray, "i j k"]) -> float | None:
    """Return the value of a constant background, if there is one."""
    inner = data[1:, 1:, 1:]
    flat = (inner == data[:-1, 1:, 1:]) & (inner == data[1:, :-1, 1:]) & (inner == data[1:, 1:, :-1])
    values, counts = np.unique(inner[flat], return_counts=True)
    if not counts.size or counts.max() < _FLAT * data.size:
        return None
    return float(values[counts.argmax()])


def _otsu(data: Shaped[np.ndarray, "i j k"]) -> float:
    """Return the threshold that parts dark from bright best (Otsu)."""
    counts, edges = np.histogram(data, 256, range=np.percentile(data[::2, ::2, ::2], (0, 99.5)))
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] * below / below[-1] - total) ** 2 / (below * (below[-1] - below))
    return float(centres[np.nanargmax(between)])


def _without_ring(
    data: Shaped[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], level: float
) -> Bool[np.ndarray, "i j k"]:
    """Take off what resampling has left around a body on a constant background; elsewhere the mask stays exact."""
    height = data.astype(np.float32) - np.float32(level)
    size = np.abs(height)
    rim = mask & ndimage.binary_dilation(~mask)
    if not rim.any() or (size[rim] < 0.5 * ndimage.maximum_filter(size, 5)[rim]).mean() < _RING:
        return mask
    scale = float(np.percentile(size[mask], 90))
    above = float((height[mask & (size > 0.3 * scale)] > 0).mean())
    if not 0.02 < above < 0.98:  # all tissue on one side of the background: what overshoots to the other is none
        size = height if above > 0.5 else -height
    outside = ndimage.binary_propagation(~mask, mask=~mask | (size < 0.05 * scale))
    beside = ndimage.binary_dilation(outside) & (size < 0.3 * ndimage.maximum_filter(size, 3))  # less than half a voxel
    left = _body(~(outside | beside))
    return mask if left is None else left


def _body(mask: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"] | None:
    """Return the largest connected part, holes filled; None if there is nothing."""
    labels, n = ndimage.label(mask)
    if n == 0:
        return None
    if n > 1:
        mask = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(mask))


def find_brain(
    image: Volume, given: Bool[np.ndarray, "i j k"] | None = None
) -> tuple[Bool[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """Return the brain, and the head or stripped brain that is not background.

    Parameters
    ----------
    image : Volume
        Intensities of any contrast: stripped on any background, or a head, or a crop of either.
    given : (i, j, k) array of bool, optional
        The brain, where it is known.

    Returns
    -------
    brain, head : (i, j, k) arrays of bool
        Connected, holes filled. They are the same in a stripped image, and everything in a crop without background.

    Notes
    -----
    A constant background is known by being flat, a noisy one by being dark and even at the border of the image. What
    is left is all brain if it is no larger than a brain can be; in a head a small network looks for it.
    """
    found = _foreground(image.data)
    body = np.ones(image.shape, bool) if found is None else found.mask
    is_head = litres(body, image) > _LARGEST
    if given is None:
        brain = _brain_within(image, body) if is_head else body
        brain = brain if brain.any() else body
    else:
        brain = given
    if found is None or not is_head or not (brain & body).any():
        return brain, body
    height = (image.data - found.level) * np.sign(np.median(image.data[brain]) - found.level)
    head = _body(brain | (height > max(4 * found.noise, 0.1 * float(np.median(height[brain])))))
    assert head is not None  # the brain is in it
    return brain, head


def litres(mask: Bool[np.ndarray, "i j k"], image: Volume) -> float:
    """Return the volume of a mask on the grid of an image, in litres."""
    return float(mask.sum()) * image.voxel_mm3 / 1e6


def brain_note(mask: Bool[np.ndarray, "i j k"], image: Volume) -> str:
    """Say how large a brain is, and whether that can be."""
    volume = litres(mask, image)
    low, high = LITRES
    wrong = "" if low <= volume <= high else f", outside {low:g}-{high:g}: if it is a whole brain, give its mask"
    return f"brain of {volume:.2f} litres{wrong}"


def network_input(image: Volume, body: Bool[np.ndarray, "i j k"]) -> tuple[Float[np.ndarray, "2 a b c"], Volume]:
    """Return what the network sees of an image, intensities and foreground, and the grid that it sees them on."""
    part = resample(image.with_data(body.astype(np.float32)), SPACING)
    small = resample(image.with_data(np.where(body, image.data, 0).astype(np.float32)), SPACING).data
    inside = part.data > 0.5
    data = small / np.maximum(part.data, 0.25)  # at the border of a body its own values, whatever the background was
    low, middle, high = np.percentile(data[inside], (25, 50, 75)) if inside.any() else (0.0, 0.0, 0.0)
    data = np.clip((data - middle) / max((high - low) / 1.349, 1e-6), -5, 5)
    return np.stack([data * inside, inside]).astype(np.float32), part


def brain_network(path: Path | None = WEIGHTS) -> UNet:
    """Return the network that tells brains from heads: from `network_input` to logits, by `UNet.values`.

    Without a path it is untrained.
    """
    from safetensors.torch import load_file  # torch takes a second to load

    from lesionkit.model import ModelConfig, UNet

    model = UNet(ModelConfig(channels=2, stem=2, levels=3, filters=20, max_filters=32, dropout=0.0))
    if path is not None:
        model.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return model.eval()


_network = cache(brain_network)


def _brain_within(image: Volume, body: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """Return the brain in a head; empty if none is seen."""
    import torch

    seen, grid = network_input(image, body)
    with torch.inference_mode():
        likely = torch.sigmoid(_network().values(torch.from_numpy(seen[None])))[0, 0].numpy()
    brain = resample_to(grid.with_data(likely), image.shape, image.affine).data > 0.5
    found = _body(brain & body)
    return brain if found is None else found
