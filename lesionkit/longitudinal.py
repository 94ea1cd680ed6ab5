"""Two visits of a patient -> a heatmap of new lesions, on the images' own, often anisotropic, voxels.

In: a FLAIR of each visit, registered to each other. Out: a map in mass a voxel whose Gaussians are as wide in mm as
`LongitudinalConfig` says, one sigma an axis in voxels, on which `detect` runs as on a predicted heatmap.

New-lesion activity is the clinical question of the paper's introduction. Nothing here is learned: the map is the
difference of the visits, seen through a Gaussian, drawn as a network would draw it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.detection import FitConfig, detect
from lesionkit.labels import gaussian_heatmap
from lesionkit.pipeline import CaseResult
from lesionkit.preprocessing import brain_mask, check_image, normalise
from lesionkit.visits import check_visits, from_zero, mean_within
from lesionkit.volume import Volume, resample_to


@dataclass(frozen=True, kw_only=True)
class LongitudinalConfig:
    """Settings of the reading of two visits."""

    sigma_mm: float = 2.0
    """Standard deviation of a new lesion in the map, mm, the same along every axis."""
    certain: float = 10.0
    """Rise that counts as a lesion for certain (alpha 1), in standard deviations of the change around it."""
    brightness: float = 0.5
    """A new lesion is brighter than the brain's median by this at the second visit, in spreads of its intensities."""
    around_mm: float = 8.0
    """How far around a place its noise is measured: changes are larger along folds and ventricles than elsewhere."""
    drift_mm: float = 20.0
    """Changes wider than this are differences of coil and bias, and are taken out."""
    rim_mm: float = 5.0
    """Nothing is looked for this close to the border of the brain, where images never fit exactly."""
    threshold: float = 0.5
    """Smallest alpha of a new lesion."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("sigma_mm", "certain", "around_mm", "drift_mm"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("rim_mm", "threshold"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not np.isfinite(self.brightness):
            raise ValueError(f"brightness must be finite, got {self.brightness}")


def sigma_per_axis(image: Volume, sigma_mm: float) -> tuple[float, float, float]:
    """Return a standard deviation in mm as voxels of an image, one number an axis."""
    i, j, k = (sigma_mm / length for length in image.spacing)
    return i, j, k


def change_map(
    before: Volume,
    after: Volume,
    config: LongitudinalConfig | None = None,
    *,
    mask: Bool[np.ndarray, "i j k"] | None = None,
) -> Volume:
    """Say of every place how much brighter it has become, where a new lesion may be.

    Parameters
    ----------
    before, after : Volume
        FLAIR of the first and the second visit, registered; the first is resampled onto the grid of the second.
    config : LongitudinalConfig, optional
        Settings.
    mask : (i, j, k) array of bool, optional
        The brain of the second visit, where it is known.

    Returns
    -------
    Volume
        On the grid of `after`, in standard deviations of the change around; 0 at the rim of the brain and where the
        second visit is not bright.

    Raises
    ------
    ValueError
        If there can be no brain in an image, or they do not show the same place.

    Notes
    -----
    Both images are normalised in the brain that they share. Their difference, less what varies over `drift_mm`, is
    smoothed by the lesion's Gaussian (a matched filter) and divided by its noise, which is greater along folds.
    """
    config = config or LongitudinalConfig()
    for image in (before, after):
        check_image(image)
    before, after = from_zero(before), from_zero(after)
    mask = brain_mask(after) if mask is None else mask
    moved = before if before.same_grid(after) else resample_to(before, after.shape, after.affine)
    shared = mask & (moved.data != 0)
    if shared.sum() < 0.5 * mask.sum():
        share = shared.sum() / mask.sum()
        wanted = "registered images of one patient are wanted"
        raise ValueError(f"the first visit covers {share:.0%} of the brain of the second; {wanted}")
    shared = np.asarray(ndimage.binary_fill_holes(shared))
    first, second = normalise(moved.data, shared), normalise(after.data, shared)
    change = (second - first) - mean_within(second - first, shared, sigma_per_axis(after, config.drift_mm))
    width = sigma_per_axis(after, config.sigma_mm)
    rise = ndimage.gaussian_filter(np.where(shared, change, 0), width)
    inner = ndimage.distance_transform_edt(shared, sampling=after.spacing) > config.rim_mm
    bright = ndimage.gaussian_filter(second, np.array(width) / 2) > config.brightness
    score = rise / _noise(rise, shared, sigma_per_axis(after, config.around_mm))
    score /= _deviation(score[shared])
    return after.with_data(np.where(inner & bright, score, 0).astype(np.float32))


def new_lesion_heatmap(
    before: Volume,
    after: Volume,
    config: LongitudinalConfig | None = None,
    *,
    mask: Bool[np.ndarray, "i j k"] | None = None,
) -> Volume:
    """Render what is new at the second visit.

    Parameters
    ----------
    before, after : Volume
        As for `change_map`.
    config : LongitudinalConfig, optional
        Settings.
    mask : (i, j, k) array of bool, optional
        The brain of the second visit, where it is known.

    Returns
    -------
    Volume
        On the grid of `after`, mass a voxel: a rise of `certain` standard deviations or more is a Gaussian of mass 1.

    Raises
    ------
    ValueError
        As `change_map` does.

    Notes
    -----
    Each maximum of the change within 3 sigma is drawn as a label Gaussian of its height. What that finds on real
    patients is in ``docs/longitudinal.md``: what rises above the noise of two visits, as few small lesions do.
    """
    config = config or LongitudinalConfig()
    score = change_map(before, after, config, mask=mask).data / config.certain
    width = sigma_per_axis(after, config.sigma_mm)
    reach = np.maximum(np.rint(np.array(width) * 3).astype(int), 1)  # one lesion, one maximum
    grid = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    ball = sum((axis / n) ** 2 for axis, n in zip(grid, reach, strict=True)) <= 1
    peaks = np.argwhere((score == ndimage.maximum_filter(score, footprint=ball)) & (score > 0.1))
    weights = np.minimum(score[tuple(peaks.T)], 1.0)
    return after.with_data(gaussian_heatmap(peaks, after.shape, width, weights=weights))


def read_two_visits(
    before: Volume,
    after: Volume,
    config: LongitudinalConfig | None = None,
    *,
    mask: Bool[np.ndarray, "i j k"] | None = None,
    force: bool = False,
) -> CaseResult:
    """Find the new lesions of a patient.

    Parameters
    ----------
    before, after : Volume
        As for `new_lesion_heatmap`.
    config : LongitudinalConfig, optional
        Settings.
    mask : (i, j, k) array of bool, optional
        The brain of the second visit, where it is known.
    force : bool
        Go on though `lesionkit.visits.check_visits` finds that the images do not fit, with a warning.

    Returns
    -------
    CaseResult
        With the heatmap of new lesions; `lesionkit.pipeline.write_result` writes map, table and page.

    Raises
    ------
    ValueError
        As `new_lesion_heatmap` and `lesionkit.visits.check_visits` do.
    """
    config = config or LongitudinalConfig()
    heatmap = new_lesion_heatmap(before, after, config, mask=mask)
    try:
        check_visits(before, after)
    except ValueError as error:
        if not force:
            raise
        warnings.warn(str(error), stacklevel=2)
    fit = FitConfig(sigma=sigma_per_axis(after, config.sigma_mm), min_alpha=0.1, max_lesions=200, patience=20)
    return CaseResult(
        source=after,
        image=after,
        heatmap=heatmap,
        detections=detect(heatmap.data, fit),
        threshold=config.threshold,
        checkpoint="difference of two visits",
    )


def _deviation(values: Float[np.ndarray, " n"]) -> float:
    """Return a standard deviation that lesions do not change: of the median absolute deviation."""
    return max(1.4826 * float(np.median(np.abs(values - np.median(values)))), 1e-6)


def _noise(
    rise: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], around: tuple[float, float, float]
) -> Float[np.ndarray, "i j k"]:
    """Return how noisy a change is: the mean of the variances of the whole brain and of what is around.

    A lesion must not hide itself: what is beyond 3 standard deviations of the brain counts as 3.
    """
    everywhere = _deviation(rise[mask])
    cut = np.clip(rise, -3 * everywhere, 3 * everywhere)
    return np.asarray(np.sqrt((everywhere**2 + mean_within(cut**2, mask, around)) / 2))
