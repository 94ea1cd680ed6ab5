"""How a volume lies in napari: transposed and flipped at this edge only, so that everything else stays (i, j, k).

A RAS+ volume is shown as (z, y, x) with every axis reversed. With napari's default axes that is the radiological view:
axial slices first, from the top down, anterior up, the patient's right on the left; coronal and sagittal slices with
superior up; no negative scale, and no mirror image in 3-D. The world of napari is then mm along the volume's own axes,
pointing down, back and left. Layers of other readers are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.volume import NativeSpace, Volume

if TYPE_CHECKING:
    from jaxtyping import Float, Num
    from napari.layers import Image

METADATA = "lesionkit"
"""Key of what this plugin keeps in a layer's metadata."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Placement:
    """Where the voxels of an array are in napari."""

    shape: tuple[int, ...]
    """Shape of the array in its own axis order."""
    affine: Float[np.ndarray, "m m"]
    """Voxel index to mm, in the array's own axis order."""
    turned: bool
    """Whether napari shows the axes in reverse order and reversed."""
    scale: tuple[float, ...]
    """Voxel edges along napari's axes."""
    translate: tuple[float, ...]
    """Place of the first voxel that napari has, in its world."""
    units: Any = None
    """One unit an axis, as napari has them."""
    axis_labels: tuple[str, ...] | None = None
    native: NativeSpace | None = None
    """The grid of the file that the array came from."""

    @classmethod
    def of_volume(cls, volume: Volume) -> Placement:
        """Place a RAS+ volume."""
        middle = -volume.to_mm((np.array(volume.shape)[None] - 1) / 2)[0][::-1]
        scale = volume.spacing[::-1]
        half = (np.array(volume.shape[::-1]) - 1) / 2 * scale
        return cls(
            shape=volume.shape,
            affine=volume.affine,
            turned=True,
            scale=scale,
            translate=tuple((middle - half).tolist()),
            units=("mm",) * 3,
            axis_labels=("z", "y", "x"),
            native=volume.native,
        )

    @classmethod
    def of_layer(cls, layer: Image) -> Placement:
        """Find out how an image layer is placed.

        Raises
        ------
        ValueError
            If it is no 2-D or 3-D map of numbers, or is rotated or sheared.
        """
        known = layer.metadata.get(METADATA, {})
        if layer.rgb or layer.multiscale or layer.ndim not in (2, 3):
            kind = "colours" if layer.rgb else "several resolutions" if layer.multiscale else f"{layer.ndim} axes"
            raise ValueError(f"layer {layer.name!r} has {kind}; a 2-D or 3-D map of one number a voxel is wanted")
        linear = layer.affine.affine_matrix[:-1, :-1] @ layer.rotate
        if not np.allclose(linear, np.eye(layer.ndim), atol=1e-6) or np.any(np.abs(layer.shear) > 1e-6):
            raise ValueError(
                f"layer {layer.name!r} is rotated or sheared in napari; reset that, or open its file again"
            )
        scale, translate = np.abs(layer.scale), layer.translate + layer.affine.translate
        turned = "affine" in known
        if turned:
            affine = np.asarray(known["affine"], dtype=float)
        else:
            affine = np.eye(layer.ndim + 1)
            affine[:-1, :-1], affine[:-1, -1] = np.diag(scale), translate
        shape = tuple(layer.data.shape)
        return cls(
            shape=shape[::-1] if turned else shape,
            affine=affine,
            turned=turned,
            scale=tuple(scale.tolist()),
            translate=tuple(translate.tolist()),
            units=layer.units,
            axis_labels=tuple(layer.axis_labels),
            native=known.get("native"),
        )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def options(self) -> dict[str, Any]:
        """What a layer on this grid is told."""
        return {
            "scale": self.scale,
            "translate": self.translate,
            "units": self.units,
            "axis_labels": self.axis_labels,
        }

    def shown(self, array: Num[np.ndarray, " ..."]) -> Num[np.ndarray, " ..."]:
        """Return an array as napari shows it, and the other way round; a view, not a copy."""
        return np.flip(array.T) if self.turned else array

    def to_layer(self, points: Any) -> Float[np.ndarray, "n ndim"]:
        """Voxel index to the index in a layer's data; exact both ways."""
        index = np.asarray(points, dtype=float).reshape(-1, self.ndim)
        return (np.array(self.shape) - 1 - index)[:, ::-1] if self.turned else index

    def to_voxel(self, data: Any) -> Float[np.ndarray, "n ndim"]:
        """Index in a layer's data to voxel index."""
        index = np.asarray(data, dtype=float).reshape(-1, self.ndim)
        return np.array(self.shape) - 1 - index[:, ::-1] if self.turned else index

    def to_world(self, points: Any) -> Float[np.ndarray, "n ndim"]:
        """Voxel index to napari's world."""
        return self.to_layer(points) * self.scale + self.translate

    def from_world(self, world: Any) -> Float[np.ndarray, "n ndim"]:
        """Place in napari's world to voxel index."""
        place = np.asarray(world, dtype=float).reshape(-1, self.ndim)
        return self.to_voxel((place - self.translate) / self.scale)

    def voxel_axis(self, layer_axis: int) -> int:
        """Return which axis of the array an axis of the layer is."""
        return self.ndim - 1 - layer_axis if self.turned else layer_axis

    def volume(self, data: Num[np.ndarray, " ..."]) -> Volume:
        """Return a layer's data as a volume in mm.

        Raises
        ------
        ValueError
            If it is 2-D.
        """
        if self.ndim != 3:
            raise ValueError("a 2-D map has no place in a scanner; a 3-D volume is wanted")
        return Volume(self.shown(np.asarray(data)), self.affine, self.native)


def volume_layer(
    volume: Volume, name: str, *, metadata: Mapping[str, Any] | None = None, **options: Any
) -> tuple[np.ndarray, dict[str, Any], str]:
    """Return a volume as napari takes layers: data, options, kind."""
    placement = Placement.of_volume(volume)
    known = {"affine": volume.affine, "native": volume.native, **(metadata or {})}
    keywords = {"name": name, **placement.options, "metadata": {METADATA: known}, **options}
    return placement.shown(volume.data), keywords, "image"
