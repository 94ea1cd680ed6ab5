"""The baseline detector: threshold a map, take its connected components ("CC" in the paper's section 4).

In: a heatmap (or a segmentation probability) and a :class:`ComponentConfig`. Out: :class:`Components`, one point a
component, the highest score first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Real

# Neighbours of a voxel -> along how many axes it may differ from them (what scipy.ndimage asks for).
_RANK = {1: {2: 1}, 2: {4: 1, 8: 2}, 3: {6: 1, 18: 2, 26: 3}}
_DEFAULT_CONNECTIVITY = {1: 2, 2: 8, 3: 18}


@dataclass(frozen=True, kw_only=True)
class ComponentConfig:
    """Settings of the connected-component detector."""

    threshold: float
    """Binarisation threshold tau, in units of the map; voxels at or above it count (paper: chosen on validation)."""
    min_size: int = 1
    """Components of fewer voxels are dropped (paper: lesions have at least 3 voxels)."""
    centre: Literal["maximum", "mass"] = "maximum"
    """The point that stands for a component: its highest voxel (paper, for detection maps) or its centre of mass,
    weighted by the map (paper, for segmentations)."""
    connectivity: int | None = None
    """Number of neighbours of a voxel: 6, 18 or 26 in 3-D, 4 or 8 in 2-D; None: 18 and 8 (paper's code: 18)."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot mean anything."""
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError(f"threshold: got {self.threshold!r}, wanted a finite number above 0")
        if self.min_size < 1:
            raise ValueError(f"min_size: got {self.min_size!r}, wanted 1 voxel or more")
        if self.centre not in ("maximum", "mass"):
            raise ValueError(f"centre: got {self.centre!r}, wanted 'maximum' or 'mass'")
        known = sorted({n for ranks in _RANK.values() for n in ranks})
        if self.connectivity is not None and self.connectivity not in known:
            raise ValueError(f"connectivity: got {self.connectivity!r}, wanted None or one of {known}")

    @classmethod
    def for_label(cls, label: str, threshold: float) -> ComponentConfig:
        """Return how components of a map stand for lesions, by the label that its network has learned.

        Parameters
        ----------
        label : str
            `segmentation`: the centre of mass, and components below the 3 voxels of the smallest lesions are dropped
            (paper, section 4.2). Any other: the maximum.
        threshold : float
            Tau, in units of the map.
        """
        segmented = label == "segmentation"
        return cls(threshold=threshold, min_size=3 if segmented else 1, centre="mass" if segmented else "maximum")


@dataclass(frozen=True, eq=False)
class Components:
    """What :func:`detect_components` found, the highest score first; empty arrays where nothing was found."""

    points: Float[np.ndarray, "n ndim"]
    """One point a component: voxel index in array order, 0-based, float."""
    score: Float[np.ndarray, " n"]
    """The map's maximum inside the component, in units of the map."""
    size: Int[np.ndarray, " n"]
    """Number of voxels of the component."""

    def __len__(self) -> int:
        """Return the number of components."""
        return len(self.score)


def detect_components(heatmap: Real[np.ndarray, "*shape"], config: ComponentConfig) -> Components:
    """Find the connected components of a thresholded map.

    Parameters
    ----------
    heatmap
        Map in one, two or three dimensions, in array order ``(i, j, k)``; never changed.
    config
        Threshold, smallest size, representing point, connectivity.

    Returns
    -------
    Components
        Points (voxel index), score and size, sorted by falling score; equal scores keep raster order.

    Raises
    ------
    ValueError
        If the map is not one- to three-dimensional, holds NaN or infinities, or the connectivity does not exist in its
        number of dimensions.

    References
    ----------
    Paper, section 4 (experiments and implementation details): "binarize the output at threshold tau, cluster connected
    components", represented by the maximum or the centre of mass.

    Examples
    --------
    >>> import numpy as np
    >>> heatmap = np.zeros((5, 5))
    >>> heatmap[1, 1:3] = 0.2, 0.9
    >>> detect_components(heatmap, ComponentConfig(threshold=0.1)).points
    array([[1., 2.]])
    """
    values = np.asarray(heatmap)
    structure_rank = _structure_rank(values.ndim, config.connectivity)
    if values.dtype.kind not in "buif":
        raise ValueError(f"heatmap: got dtype {values.dtype}, wanted real numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("heatmap: got NaN or infinite voxels, wanted finite numbers")

    from scipy import ndimage  # about 100 ms to load: only where it is used

    structure = ndimage.generate_binary_structure(values.ndim, structure_rank)
    labels, n_components = ndimage.label(values >= config.threshold, structure=structure)
    inside = np.flatnonzero(labels)  # everything below looks at the foreground alone
    label, mass = labels.ravel()[inside] - 1, values.ravel()[inside].astype(np.float64)
    index = np.stack(np.unravel_index(inside, values.shape), axis=-1).astype(np.float64)

    size = np.bincount(label, minlength=n_components)
    # The first entry of every label after sorting by (label, falling mass, raster order) is the label's maximum.
    order = np.lexsort((inside, -mass, label))
    highest = order[np.searchsorted(label[order], np.arange(n_components))]
    score = mass[highest]
    if config.centre == "maximum":
        points = index[highest]
    else:
        share = mass / np.bincount(label, mass, minlength=n_components)[label]  # mass >= threshold > 0
        moments = [np.bincount(label, share * axis, minlength=n_components) for axis in index.T]
        points = np.stack(moments, axis=-1)

    kept = np.flatnonzero(size >= config.min_size)
    kept = kept[np.argsort(-score[kept], kind="stable")]
    return Components(points[kept], score[kept], size[kept])


def _structure_rank(ndim: int, connectivity: int | None) -> int:
    if ndim not in _RANK:
        raise ValueError(f"heatmap: got {ndim} dimensions, wanted 1, 2 or 3")
    neighbours = _DEFAULT_CONNECTIVITY[ndim] if connectivity is None else connectivity
    if neighbours not in _RANK[ndim]:
        raise ValueError(f"connectivity: got {neighbours} for a {ndim}-D map, wanted one of {sorted(_RANK[ndim])}")
    return _RANK[ndim][neighbours]
