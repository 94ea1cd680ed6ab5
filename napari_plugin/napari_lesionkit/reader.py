"""Opens NIfTI images in napari, with their orientation, voxel size and unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesionkit.io import read_volume
from napari_lesionkit.colours import heat_colormap
from napari_lesionkit.placement import volume_layer

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Layer = tuple[np.ndarray, dict[str, Any], str]
SMOOTH: Mapping[str, Any] = {"interpolation2d": "linear"}


def get_reader(path: Paths) -> Callable[[Paths], list[Layer]] | None:
    """Return a reader if all paths are called like NIfTI images."""
    return read_nifti if all(str(one).endswith((".nii", ".nii.gz")) for one in _each(path)) else None


def read_nifti(path: Paths) -> list[Layer]:
    """Read images as layers; `DataError` says what is wrong with a file."""
    return [nifti_layer(one) for one in _each(path)]


def nifti_layer(path: str | os.PathLike[str], **known: Any) -> Layer:
    """Read an image as a layer.

    Parameters
    ----------
    path : path
        NIfTI image. If its name says heatmap, it is shown as one.
    **known
        What else is known of it, for the layer's metadata: `sigma`, `threshold`, `truth_mm`, and `exact` for a map that
        is made of Gaussians, not predicted.
    """
    path = Path(path)
    volume = read_volume(path)
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    known = {"path": str(path), **known}
    if is_heatmap(name):
        return volume_layer(volume, name, metadata=known, **heat_options(volume.data))
    low, high = np.percentile(volume.data, (0.5, 99.9))
    limits = (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)
    return volume_layer(volume, name, metadata=known, colormap="gray", contrast_limits=limits, **SMOOTH)


def is_heatmap(name: str) -> bool:
    """Tell whether something is called like a predicted map."""
    return any(word in name.lower() for word in ("heat", "prob", "pred"))


def heat_options(data: np.ndarray) -> dict[str, Any]:
    """Return how a heatmap is shown: from 0 to its highest voxel."""
    top = float(data.max())
    return {
        "colormap": heat_colormap(),
        "blending": "translucent",
        "contrast_limits": (0.0, top if top > 0 else 1.0),
        **SMOOTH,
    }


def _each(path: Paths) -> list[str | os.PathLike[str]]:
    return [path] if isinstance(path, str | os.PathLike) else list(path)
