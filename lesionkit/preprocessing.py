"""Images as a network wants them: brain mask and robust normalisation.

In: the volumes of a case. Out: the brain's mask, and arrays of zero median and unit spread in it, 0 outside the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from lesionkit.brain import find_brain
from lesionkit.volume import Volume

PREPROCESSING = (
    "each image, inside the brain mask of the first: less its median, over its interquartile range / 1.349, cut at "
    "+-12; 0 outside the head"
)
"""What `prepare` does, in words, for the card of a checkpoint."""


def check_image(image: Volume) -> None:
    """Raise unless there can be a brain in an image: values that differ, and axes at right angles, to 1 degree.

    Raises
    ------
    ValueError
        Saying what is wrong; elsewhere than at right angles a spacing means nothing.
    """
    low, high = float(image.data.min()), float(image.data.max())
    if low == high:
        raise ValueError(f"is constant ({low:g}); an image of a brain is wanted")
    axes = image.affine[:3, :3] / np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    cosines = np.abs(np.triu(axes.T @ axes, 1))
    if cosines.max() > np.sin(np.deg2rad(1.0)):
        angle = 90 - np.rad2deg(np.arcsin(min(float(cosines.max()), 1.0)))
        raise ValueError(
            f"has axes at an angle of {angle:.1f} degrees; right angles are wanted: resample it onto a plain grid"
        )


def brain_mask(image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Return the brain: the whole of a stripped image but its background, the brain in a head.

    Parameters
    ----------
    image : Volume
        Intensities of any contrast. The background may be constant, whatever its value, or noisy; there may be none.

    Returns
    -------
    mask : (i, j, k) array of bool
        One connected part, holes filled.

    Raises
    ------
    ValueError
        If the image is constant or its axes are not at right angles.
    """
    check_image(image)
    return find_brain(image)[0]


def head_mask(image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Return what is not background: a stripped brain, or a head with its holes filled.

    Parameters and errors are those of `brain_mask`.
    """
    check_image(image)
    return find_brain(image)[1]


def normalise(
    data: Float[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    within: Bool[np.ndarray, "i j k"] | None = None,
) -> Float[np.ndarray, "i j k"]:
    """Subtract the median and divide by the spread (interquartile range / 1.349) inside the mask; 0 outside.

    Robust numbers, because lesions and vessels must not set the scale. Values are clipped to +-12, and kept in all of
    `within` where it is given.
    """
    values = data[mask]
    if values.size == 0:
        raise ValueError("mask is empty: there is nothing to normalise")
    low, middle, high = np.percentile(values[:: max(values.size // 200_000, 1)], [25, 50, 75])
    spread = (high - low) / 1.349
    if spread <= 0:
        spread = float(values.std()) or 1.0
    kept = mask if within is None else within
    return np.where(kept, np.clip((data - middle) / spread, -12, 12), 0).astype(np.float32)


def prepare(
    images: Sequence[Volume], mask: Bool[np.ndarray, "i j k"] | None = None
) -> tuple[Float[np.ndarray, "channels i j k"], Bool[np.ndarray, "i j k"]]:
    """Return the network's input, one normalised channel an image, and the brain mask of the first image.

    Parameters
    ----------
    images : sequence of Volume
        The channels, on one grid.
    mask : (i, j, k) array of bool, optional
        The brain, where it is known; `brain_mask` of the first image by default.

    Returns
    -------
    data : (channels, i, j, k) array of float32
        Normalised inside the brain; a skull keeps its values, and the background is 0.
    mask : (i, j, k) array of bool
        The brain.

    Raises
    ------
    ValueError
        If the images are not on one grid, one of them is constant, or the mask is empty or of another shape.
    """
    first = images[0]
    for number, image in enumerate(images, start=1):
        check_image(image)
        if not image.same_grid(first):
            raise ValueError(f"image {number} is not on the grid of image 1: {image!r} and {first!r}")
    if mask is not None and mask.shape != first.shape:
        raise ValueError(f"mask has shape {mask.shape}; that of the images, {first.shape}, is wanted")
    brain, head = find_brain(first, mask)
    return np.stack([normalise(image.data, brain, head) for image in images]), brain
