"""Lines and spots of changing number in layers of fixed size, which are edited in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lesionkit.placement import METADATA, Placement
from napari_lesionkit.rings import Lines

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from napari.components import ViewerModel
    from napari.layers import Points, Vectors

LIGHT = {"thumbnail": False, "highlight": False, "extent": False}
"""What a refresh may leave out."""
ROOM = 16
"""Lesions for which there is room from the start; for more, room is made in powers of two."""
POINTS_OPTIONS: dict[str, Any] = {"face_color": "transparent", "border_width": 0.1, "antialiasing": 1.0}


class LineLayer:
    """Line segments of changing number in one vectors layer; those that are not needed are parked, invisible.

    In the plane that is shown the layer counts in the finest voxel edge, so that lines are equally thick in all
    directions; across it in slices, so that napari's slider keeps its steps.
    """

    def __init__(self, viewer: ViewerModel, placement: Placement, name: str) -> None:
        self._placement, self._used = placement, 0
        self.layer: Vectors = viewer.add_vectors(
            np.zeros((64 * ROOM, 2, placement.ndim)),
            name=name,
            edge_color=np.zeros((64 * ROOM, 4)),
            edge_width=0.5,
            vector_style="line",
            opacity=1.0,
            metadata={METADATA: {"view": True}},
            **placement.options,
        )

    def fit_to(self, displayed: tuple[int, ...]) -> None:
        """Count in the units of the axes that are shown."""
        scale = np.array(self._placement.scale)
        scale[list(displayed)] = scale.min()
        if not np.allclose(self.layer.scale, scale):
            self.layer.scale = scale

    def draw(self, lines: Lines, hidden: dict[int, float]) -> None:
        """Write lines, without refreshing.

        Parameters
        ----------
        lines : Lines
            In voxel coordinates.
        hidden : dict
            Axis of the layer -> place of the shown slice in napari's world.
        """
        n = len(lines)
        if n > len(self.layer.data):
            room = 1 << (n - 1).bit_length()
            self.layer.edge_color = np.zeros(4)
            self.layer.data = np.zeros((room, 2, self._placement.ndim))
            self.layer.edge_color = np.zeros((room, 4))
        data, colour = self.layer.data, self.layer.edge_color
        start, end = self._placement.to_world(lines.start), self._placement.to_world(lines.end)
        for axis, place in hidden.items():
            start[:, axis] = end[:, axis] = place
        scale, translate = self.layer.scale, self._placement.translate
        data[:n, 0] = (start - translate) / scale
        data[:n, 1] = (end - start) / scale
        colour[:n] = lines.colour
        data[n : self._used] = 0.0
        colour[n : self._used] = 0.0
        self._used = n

    def refresh(self) -> None:
        """Show what was written."""
        self.layer.refresh(**LIGHT)


class SpotLayer:
    """Points of changing number in one points layer; those that are not needed are not shown.

    Filled ones get a dark edge, the others are hollow.
    """

    def __init__(
        self, viewer: ViewerModel, placement: Placement, name: str, *, filled: bool = False, **options: Any
    ) -> None:
        self._placement, self._filled = placement, filled
        self.layer: Points = viewer.add_points(
            np.zeros((ROOM, placement.ndim)),
            ndim=placement.ndim,
            name=name,
            shown=np.zeros(ROOM, bool),
            metadata={METADATA: {"view": True}},
            **{**POINTS_OPTIONS, **placement.options, **options},
        )
        self.layer.editable = False
        self._paint()

    def _paint(self) -> None:
        """Give every point colours of its own, which can then be edited in place."""
        n = len(self.layer.data)
        self.layer.border_color = np.tile([0.0, 0.0, 0.0, 0.8], (n, 1))
        self.layer.face_color = np.zeros((n, 4))

    def draw(self, mu: Float[np.ndarray, "n ndim"], colours: Float[np.ndarray, "n 4"]) -> bool:
        """Write points and their colours, without refreshing; return whether they are others than before."""
        n, layer = len(mu), self.layer
        if n > len(layer.data):
            room = 1 << (n - 1).bit_length()
            layer.data = np.zeros((room, self._placement.ndim))
            layer.shown = np.zeros(room, bool)
            self._paint()
        # a centre outside the map is marked at its border: beyond it napari's slider would show empty slices
        places = self._placement.to_layer(np.clip(mu, 0.0, np.array(self._placement.shape) - 1.0))
        data, painted = layer.data, layer.face_color if self._filled else layer.border_color
        shown: Bool[np.ndarray, " m"] = layer.shown
        same = np.count_nonzero(shown) == n and np.array_equal(data[:n], places)
        if same and np.array_equal(painted[:n], colours):
            return False
        data[:n], data[n:] = places, 0.0
        painted[:n] = colours
        shown[:n], shown[n:] = True, False
        return True

    def refresh(self) -> None:
        """Show what was written."""
        self.layer.refresh(**LIGHT)
