"""Whether two images show the same brain, in the same place, with the same contrast.

In: the images of two visits. Out: nothing, or one line that says in which way they differ, with the measure.

The fit is the correlation of what both images show between 1.5 and 8 mm, in the brain that they share, 6 mm below its
surface; it is sought over shifts and mirror images too. On real FLAIR images:

=====================================================  ===========  ============
pair                                                   fit          best elsewhere
=====================================================  ===========  ============
two visits, Ljubljana (FLAIR, T1, T2 of 2 patients)    0.96-0.99    the same
two visits, MSLesSeg (3 pairs of one patient)          0.89-0.94    0.95
T1 against FLAIR (4 patients)                          0.49-0.73    0.77
T2 against FLAIR (2 patients)                          0.28-0.31    0.39
another patient (14 registered, 35 as scanned)         -0.06-0.56   0.61
the first mirrored left to right (4 patients)          0.58-0.67    0.97-1.00
mirrored front to back, or top to bottom               0.23-0.32    0.97-0.99
the first 2 mm aside, along i or j                     0.81-0.89    0.93-0.94
4 mm aside                                             0.48-0.75    0.86-0.88
8 mm aside                                             0.07-0.37    0.64-0.74
turned by 6 degrees (3 degrees: 0.83-0.85)             0.61-0.65    0.70
=====================================================  ===========  ============
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from lesionkit.preprocessing import brain_mask, normalise
from lesionkit.volume import Volume, resample, resample_to

LEAST_FIT = 0.8
"""Smallest correlation of two visits; see the table above."""
BETTER_ELSEWHERE = 0.05
"""A shifted or mirrored image that fits better by this is what the file should have held."""
_STEP_MM, _FINE_MM, _COARSE_MM, _RIM_MM = 2.0, 1.5, 8.0, 6.0


def from_zero(image: Volume) -> Volume:
    """Return an image less the constant that fills its background, which a z-score may have moved away from 0."""
    values, counts = np.unique(image.data, return_counts=True)
    background = values[counts.argmax()]
    return image if counts.max() < 0.1 * image.data.size else image.with_data(image.data - background)


def check_visits(before: Volume, after: Volume) -> None:
    """Raise unless two images show the same brain, in the same place, with the same contrast.

    Parameters
    ----------
    before, after : Volume
        The visits, whatever the unit of their intensities.

    Raises
    ------
    ValueError
        Saying in which way they differ.
    """
    before, after = from_zero(before), from_zero(after)
    after = resample(after, np.maximum(after.spacing, _STEP_MM).tolist())
    before = resample_to(before, after.shape, after.affine)
    shared = brain_mask(after) & (before.data != 0)
    inner = ndimage.distance_transform_edt(shared, sampling=after.spacing) > _RIM_MM
    where = inner if inner.any() else shared
    first, second = (_details(image, shared, where) for image in (before, after))
    here = float((first * second).sum())
    shifted, steps = _best(first, second)
    mirrored, axes = max((_best(np.flip(first, axes), second)[0], axes) for axes in _mirrors())
    wrong = ""
    # A brain is nearly its own mirror image, and a shifted one fits its own mirror image too: the best fit tells.
    if mirrored > max(shifted, here, 0.5) + BETTER_ELSEWHERE:
        how = " and ".join(("left to right", "front to back", "top to bottom")[axis] for axis in axes)
        wrong = f"fits better mirrored {how} ({mirrored:.2f})"
    elif shifted > max(here, 0.5) + BETTER_ELSEWHERE:
        wrong = f"fits better about {np.linalg.norm(np.array(steps) * after.spacing):.0f} mm aside ({shifted:.2f})"
    elif not here >= LEAST_FIT:
        wrong = f"shows another patient or another contrast, or is not registered ({LEAST_FIT} or more is usual)"
    if wrong:
        wanted = "registered images of one patient and of one kind are wanted"
        raise ValueError(f"correlates by {here:.2f} with the second visit and {wrong}; {wanted}")


def _details(
    image: Volume, shared: Bool[np.ndarray, "i j k"], where: Bool[np.ndarray, "i j k"]
) -> Float[np.ndarray, "i j k"]:
    """Return what an image shows beyond noise and bias, of mean 0 and norm 1 in a mask, 0 elsewhere."""
    values = np.clip(normalise(image.data, shared), -3, 3)
    fine, coarse = (mean_within(values, shared, mm / np.array(image.spacing)) for mm in (_FINE_MM, _COARSE_MM))
    details = np.where(where, fine - coarse, 0)
    details[where] -= details[where].mean()
    return np.asarray(details / max(float(np.linalg.norm(details)), 1e-12))


def mean_within(
    values: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], sigma: ArrayLike
) -> Float[np.ndarray, "i j k"]:
    """Smooth inside a mask, as if there were nothing outside."""
    width = np.asarray(sigma).tolist()
    weight = ndimage.gaussian_filter(mask.astype(np.float32), width)
    total = ndimage.gaussian_filter(np.where(mask, values, 0).astype(np.float32), width)
    return np.asarray(total / np.maximum(weight, 1e-3))


def _best(first: Float[np.ndarray, "i j k"], second: Float[np.ndarray, "i j k"]) -> tuple[float, tuple[int, ...]]:
    """Return the largest correlation over all shifts of the first image, and that shift in voxels."""
    size = [fft.next_fast_len(2 * n, real=True) for n in first.shape]
    spectrum = fft.rfftn(second, size) * np.conj(fft.rfftn(first, size))
    fits = fft.irfftn(spectrum, size)
    place = np.unravel_index(int(fits.argmax()), fits.shape)
    return float(fits[place]), tuple(int(p) if 2 * p < n else int(p) - n for p, n in zip(place, size, strict=True))


def _mirrors() -> Iterator[tuple[int, ...]]:
    """All ways to mirror a box along its axes."""
    for n in (1, 2, 3):
        yield from combinations(range(3), n)
