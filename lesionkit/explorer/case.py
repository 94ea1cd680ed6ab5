"""What is looked at: a heatmap, what it was predicted from, where it lies, and what is known to be true of it.

In: what a caller has, `Volume`s or arrays. Out: a :class:`Case` and the :class:`Annotation` to start with, or what is
wrong with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.detection.residual import as_heatmap
from lesionkit.explorer.annotation import Annotation
from lesionkit.volume import Volume

if TYPE_CHECKING:
    from jaxtyping import Float, Num


@dataclass(frozen=True, eq=False)
class Case:
    """What is looked at; nothing of it changes."""

    heatmap: Num[np.ndarray, " ..."]
    """The predicted map."""
    image: Num[np.ndarray, " ..."] | None
    """What it was predicted from."""
    affine: Float[np.ndarray, "m m"]
    """Voxel index to mm."""

    @property
    def spacing(self) -> tuple[float, ...]:
        """Edge lengths of a voxel, in mm."""
        return tuple(np.sqrt((self.affine[:-1, :-1] ** 2).sum(axis=0)).tolist())


def looked_at(
    heatmap: Volume | Num[np.ndarray, " ..."],
    image: Volume | Num[np.ndarray, " ..."] | None,
    truth: Any,
    affine: Float[np.ndarray, "m m"] | None,
) -> tuple[Case, Annotation]:
    """Check that a map and what belongs to it fit together: the arguments of :meth:`Explorer.load`."""
    if isinstance(heatmap, Volume):
        if affine is not None:
            raise ValueError("affine must be left out where heatmap is a Volume, which has its own")
        data, matrix = as_heatmap(heatmap.data), heatmap.affine
    else:
        data = as_heatmap(heatmap)
        matrix = np.eye(data.ndim + 1) if affine is None else np.array(affine, dtype=float)
    size = data.ndim + 1
    if matrix.shape != (size, size) or not (np.isfinite(matrix).all() and np.linalg.det(matrix) != 0):
        raise ValueError(f"affine must be a finite {size} x {size} matrix that can be inverted, got {matrix.tolist()}")
    if not data.size:
        raise ValueError(f"heatmap must hold at least one voxel, got shape {data.shape}")
    annotation = Annotation.of([] if truth is None else truth, data.ndim)
    case = Case(data, on_grid(image, data, matrix), matrix)
    return case, annotation if truth is not None else replace(annotation, known=False)


def on_grid(
    image: Volume | Num[np.ndarray, " ..."] | None,
    heatmap: Num[np.ndarray, " ..."],
    affine: Float[np.ndarray, "m m"],
) -> Num[np.ndarray, " ..."] | None:
    """Check that an image lies on the heatmap's grid."""
    if image is None:
        return None
    if isinstance(image, Volume) and not np.allclose(image.affine, affine, rtol=0.0, atol=1e-3):
        raise ValueError("image must have the affine of the heatmap; resample_to() brings it to the same grid")
    data = np.asarray(image.data if isinstance(image, Volume) else image)
    if data.shape != heatmap.shape:
        raise ValueError(f"image must have the shape of the heatmap, {heatmap.shape}, got {data.shape}")
    return data
