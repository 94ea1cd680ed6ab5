"""A detector that learns nothing: blobs by the Laplacian of Gaussian. What a trained network has to beat.

In: the normalised images of a case. Out: candidate points with a score, to be thresholded on validation like any other.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.components import Components


def log_candidates(
    images: Float[np.ndarray, "channels i j k"],
    mask: Bool[np.ndarray, "i j k"],
    *,
    sigmas: tuple[float, ...] = (1.0, 1.5, 2.2),
    max_candidates: int = 300,
) -> Components:
    """Find bright blobs by the scale-normalised Laplacian of Gaussian.

    Parameters
    ----------
    images : (channels, i, j, k) array
        Normalised channels; with two, the second is subtracted from the first (post- minus pre-contrast).
    mask : (i, j, k) array of bool
        The brain; blobs within 2 voxels of its border are left out, since the border itself responds.
    sigmas : tuple of float
        Scales, voxels; each voxel takes the strongest response.
    max_candidates : int
        The strongest local maxima that are kept.

    Returns
    -------
    Components
        Points (voxel indices), score (response) and size (1: a maximum has none).
    """
    contrast = images[0] - images[1] if len(images) > 1 else images[0]
    response = np.max([-(s**2) * ndimage.gaussian_laplace(contrast, s) for s in sigmas], axis=0)
    response[~ndimage.binary_erosion(mask, iterations=2)] = -np.inf
    peaks = np.flatnonzero((response == ndimage.maximum_filter(response, size=5)) & (response > 0))
    scores = response.ravel()[peaks]
    order = np.argsort(-scores, kind="stable")[:max_candidates]
    points = np.stack(np.unravel_index(peaks[order], response.shape), axis=1).astype(float)
    return Components(points=points, score=scores[order].astype(float), size=np.ones(len(order), dtype=np.int64))
