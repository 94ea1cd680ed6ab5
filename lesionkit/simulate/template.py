"""Brains to deform: the two that are shipped, and any T1 of one's own, taken apart into tissues.

In: a name, or the files of a T1. Out: a `Template`: fractions of the tissues and the head around them, on a 1 mm grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import resources

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from lesionkit.io import DataError, check_same_grid, read_volume
from lesionkit.volume import Volume

SHIPPED = ("colin27", "icbm152")
"""Names of the shipped anatomies: one person scanned 27 times, with a head; an average of 152, which blurs folds."""


@dataclass(frozen=True, eq=False)
class Template:
    """One brain on a grid of 1 mm, RAS+."""

    wm: Float[np.ndarray, "i j k"]
    """Fraction of white matter."""
    gm: Float[np.ndarray, "i j k"]
    """Fraction of grey matter."""
    csf: Float[np.ndarray, "i j k"]
    """Fraction of fluid; the three add up to 1 inside the brain, and to 0 outside."""
    head: Float[np.ndarray, "i j k"]
    """T1 intensity outside the brain, that of white matter being 1; 0 everywhere where the T1 was stripped."""
    ventricle_mm: Float[np.ndarray, "i j k"]
    """Distance to the ventricles: the largest deep body of fluid."""
    averaged: bool = False
    """Blurred by averaging persons: wants its borders sharpened and its cortex folded."""

    @cached_property
    def brain(self) -> Bool[np.ndarray, "i j k"]:
        """The brain with its fluid."""
        return np.asarray(self.wm + self.gm + self.csf > 0.5)


@cache
def load_template(anatomy: str, blur: float = 0.0) -> Template:
    """Return a shipped anatomy, or that of a T1.

    Parameters
    ----------
    anatomy : str
        One of `SHIPPED`, or `T1[,BRAIN[,LESIONS]]`: files of a T1-weighted image, of its brain mask (may be left out
        or empty where the T1 is stripped, that is 0 around the brain) and of its lesion mask, whose voxels become
        white matter.
    blur : float
        Standard deviation, mm: what a coarse grid blurs.

    Raises
    ------
    DataError
        If a file cannot be used.
    """
    if blur:
        sharp = load_template(anatomy)
        wm, gm, csf, head = (
            ndimage.gaussian_filter(a, blur, truncate=3) for a in (sharp.wm, sharp.gm, sharp.csf, sharp.head)
        )
        return replace(sharp, wm=wm, gm=gm, csf=csf, head=head)
    if anatomy in SHIPPED:
        with resources.files("lesionkit").joinpath(f"data/{anatomy}.npz").open("rb") as file, np.load(file) as stored:
            wm, csf = (stored[name].astype(np.float32) / 255 for name in ("wm", "csf"))
            head = stored["head"].astype(np.float32) / 100 if "head" in stored else np.zeros_like(wm)
            away = _ventricle_mm(stored["brain"], csf)
            return Template(wm, stored["brain"] - wm - csf, csf, head, away, averaged=anatomy == "icbm152")
    files = anatomy.split(",")
    if len(files) > 3:
        raise DataError(f"{anatomy}: is {len(files)} files; T1[,BRAIN[,LESIONS]] is wanted")
    t1 = read_volume(files[0])
    masks = [t1.data != 0, np.zeros(t1.shape, bool)]
    for place, path in enumerate(files[1:]):
        if path:
            mask = read_volume(path)
            check_same_grid(t1, mask, (files[0], path))
            masks[place] = mask.data > 0
    brain, lesions = masks
    if brain.mean() > 0.7:
        raise DataError(f"{files[0]}: is not stripped; give its brain mask too, as T1,BRAIN")
    try:
        return template_from_t1(t1, brain, lesions)
    except ValueError as error:
        raise DataError(f"{files[0]}: {error}") from error


def template_from_t1(t1: Volume, brain: Bool[np.ndarray, "i j k"], lesions: Bool[np.ndarray, "i j k"]) -> Template:
    """Take a T1 apart: bias field, the levels of three tissues, and the share of each in every voxel.

    Parameters
    ----------
    t1 : Volume
        T1-weighted, without contrast agent.
    brain, lesions : (i, j, k) array of bool
        On its grid. Lesions become white matter, and so do islands of grey matter inside white matter, which in T1
        look the same: an anatomy holds no lesions.

    Raises
    ------
    ValueError
        If the mask is not of the size of a brain, or the intensities are not those of a T1.
    """
    size = tuple(max(round(n * step), 1) for n, step in zip(t1.shape, t1.spacing, strict=True))
    place = [(np.arange(n) + 0.5) / step - 0.5 for n, step in zip(size, t1.spacing, strict=True)]

    def at_1mm(data: np.ndarray) -> np.ndarray:
        for axis, x in enumerate(place):
            low = np.clip(np.floor(x).astype(int), 0, data.shape[axis] - 1)
            weight = np.clip(x - low, 0, 1).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            high = np.minimum(low + 1, data.shape[axis] - 1)
            data = (1 - weight) * data.take(low, axis) + weight * data.take(high, axis)
        return data

    image = at_1mm(t1.data.astype(np.float32))
    inside = ndimage.binary_opening(at_1mm(brain.astype(np.float32)) > 0.5, iterations=2)
    parts, n = ndimage.label(inside)
    if n > 1:
        inside = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    inside = _filled(inside)
    if not 5e5 < inside.sum() < 2.5e6:
        raise ValueError(f"brain of {inside.sum() / 1e6:.2f} litres; 0.5 to 2.5 are wanted")
    image, (fluid, grey, white) = _even(image, inside)
    wm = _ramp((image - grey) / (white - grey)) * inside
    csf = _ramp((grey - image) / (grey - fluid)) * inside
    wm[(at_1mm(lesions.astype(np.float32)) > 0.3) & (csf < 0.5)] = 1
    islands, _ = ndimage.label(inside & (wm < 0.6) & (csf < 0.5))
    small = np.bincount(islands.ravel()) < 500
    wm[small[islands] & (csf < 0.2)] = 1
    csf = np.minimum(csf, 1 - wm)
    # A wall of a ventricle is half fluid, half white matter: its intensity is that of grey matter, which is not there.
    away = _ventricle_mm(inside, csf)
    band = inside & (away > 0) & (away < 2.5)
    _, nearest = ndimage.distance_transform_edt(~(inside & (away >= 2.5)), return_indices=True)
    wall = band & (wm[tuple(nearest)] > 0.5)
    csf[wall] = np.clip((white - image[wall]) / (white - fluid), 0, 1)
    wm[wall] = 1 - csf[wall]
    head = np.where(inside, 0, np.clip(image / white, 0, 2))
    if np.mean(head > 0.3) < 0.1 * inside.mean():  # crumbs that the stripping left
        head[:] = 0
    wm, gm, csf, head = (a.astype(np.float32) for a in (wm, inside - wm - csf, csf, head))
    return Template(wm, gm, csf, head, _ventricle_mm(inside, csf))


def _ramp(share: np.ndarray) -> np.ndarray:
    """Between two pure tissues; what is close to either counts as pure, for the noise."""
    return np.clip((share - 0.15) / 0.75, 0, 1)


def _filled(mask: np.ndarray) -> np.ndarray:
    """Close the sulci that a tight mask leaves open."""
    padded = np.pad(mask, 6)
    near = ndimage.distance_transform_edt(~padded) <= 4
    closed = ndimage.distance_transform_edt(near) > 4
    return np.asarray(ndimage.binary_fill_holes(closed)[6:-6, 6:-6, 6:-6] | mask)


def _even(
    image: Float[np.ndarray, "i j k"], inside: Bool[np.ndarray, "i j k"]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Divide by the bias field, which is where white matter is too bright; and the levels of fluid, grey and white."""
    coarse = tuple(slice(None, None, 3) for _ in range(3))
    levels = np.percentile(image[inside], [3, 35, 80])
    for _ in range(4):
        values = image[inside][::20]
        levels, label = kmeans2(values, np.sort(levels), minit="matrix", seed=0)
        levels = np.sort([np.median(values[label == part]) for part in range(3)])
        fluid, grey, white = (float(level) for level in levels)
        if not fluid < 0.85 * grey < 0.85 * 0.97 * white:
            raise ValueError(
                f"levels of fluid, grey and white matter are {fluid:.3g}, {grey:.3g} and {white:.3g}, not those of a T1"
            )
        sure = inside[coarse] & (np.abs(image[coarse] - white) < 0.6 * (white - grey))
        weight = ndimage.gaussian_filter(sure.astype(np.float32), 12) + 1e-3
        field = (ndimage.gaussian_filter(np.where(sure, image[coarse] / white, 0), 12) + 1e-3) / weight
        zoomed = ndimage.zoom(field, [n / m for n, m in zip(image.shape, field.shape, strict=True)], order=1)
        image = image / np.clip(zoomed, 0.3, 3)
    return image, (fluid, grey, white)


def _ventricle_mm(brain: Bool[np.ndarray, "i j k"], csf: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    deep = ndimage.distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1] > 22
    parts, n = ndimage.label((csf > 0.5) & deep)
    if n == 0:
        raise ValueError("no ventricles were found in the brain")
    ventricles = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.distance_transform_edt(~ventricles), np.float32)
