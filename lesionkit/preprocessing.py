"""Images as a network wants them: brain mask and robust normalisation.

In: the volumes of a case. Out: a mask and arrays of zero median and unit spread inside it, 0 outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.volume import Volume

PREPROCESSING = (
    "each image, inside the brain mask of the first: less its median, over its interquartile range / 1.349, cut at "
    "+-12; 0 outside"
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
    """Return the brain: what is not 0 in a skull-stripped image, a rough threshold mask in any other.

    Parameters
    ----------
    image : Volume
        Intensities; in a skull-stripped image the outside is exactly 0 (at least 10 % of the voxels).

    Returns
    -------
    mask : (i, j, k) array of bool
        The largest connected part, holes filled.

    Raises
    ------
    ValueError
        If the image is constant or its axes are not at right angles.

    Notes
    -----
    Without skull stripping the mask is the head above Otsu's threshold, eroded by about 8 mm: good enough to normalise
    intensities, but detections in the scalp are then possible. Skull-strip first where you can.
    """
    check_image(image)
    data = image.data
    if np.mean(data == 0) >= 0.1:
        mask = data != 0
    else:
        counts, edges = np.histogram(data, 256)
        centres = (edges[:-1] + edges[1:]) / 2
        below, total = np.cumsum(counts), np.cumsum(counts * centres)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (total[-1] * below / below[-1] - total) ** 2 / (below * (below[-1] - below))
        head = ndimage.binary_fill_holes(data > centres[np.nanargmax(between)])
        inside = ndimage.distance_transform_edt(head, sampling=image.spacing)
        mask = inside > 8
    labels, n = ndimage.label(mask)
    if n > 1:
        mask = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(mask))


def normalise(data: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    """Subtract the median and divide by the spread (interquartile range / 1.349) inside the mask; 0 outside.

    Robust numbers, because lesions and vessels must not set the scale. Values are clipped to +-12.
    """
    values = data[mask]
    if values.size == 0:
        raise ValueError("mask is empty: there is nothing to normalise")
    low, middle, high = np.percentile(values[:: max(values.size // 200_000, 1)], [25, 50, 75])
    spread = (high - low) / 1.349
    if spread <= 0:
        spread = float(values.std()) or 1.0
    return np.where(mask, np.clip((data - middle) / spread, -12, 12), 0).astype(np.float32)


def prepare(images: Sequence[Volume]) -> tuple[Float[np.ndarray, "channels i j k"], Bool[np.ndarray, "i j k"]]:
    """Return the network's input, one normalised channel an image, and the brain mask of the first image.

    Raises
    ------
    ValueError
        If the images are not on one grid, or one of them is constant.
    """
    first = images[0]
    for number, image in enumerate(images[1:], start=2):
        check_image(image)
        if not image.same_grid(first):
            raise ValueError(f"image {number} is not on the grid of image 1: {image!r} and {first!r}")
    mask = brain_mask(first)
    return np.stack([normalise(image.data, mask) for image in images]), mask
