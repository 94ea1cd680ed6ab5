"""Which slice of a map is shown: between the voxel at which the explorer looks and napari's sliders and camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lesionkit.placement import Placement

if TYPE_CHECKING:
    from napari.components import ViewerModel

WANDER = 250.0
"""A voxel farther than this from the middle of the picture, in pixels, is brought there."""
Position = tuple[float, ...]
"""A voxel, as a float index."""


def camera_of(viewer: ViewerModel) -> Any:
    """Return the camera, wherever this version of napari has it."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


class Slices:
    """The slices of one map in a viewer.

    Parameters
    ----------
    viewer : ViewerModel
        napari's viewer, or its model; the map must be in it.
    placement : Placement
        Of the map.
    changed : callable
        Called when a person has moved a slider or turned the axes.
    """

    def __init__(self, viewer: ViewerModel, placement: Placement, changed: Callable[[], object]) -> None:
        self._viewer, self._placement, self._changed = viewer, placement, changed
        self._moving = False
        self.displayed: tuple[int, ...] = ()
        """Axes of the layers that are shown as the picture."""
        self.hidden: tuple[int, ...] = ()
        """Axes of the layers that are sliced; one at most."""
        self._look()
        for event in self._events():
            event.connect(self._on_dims)

    def close(self) -> None:
        """Listen no more."""
        for event in self._events():
            event.disconnect(self._on_dims)

    def place(self, position: Position) -> tuple[float, ...]:
        """Return where in napari's world the slice of a voxel is: one number for each hidden axis."""
        world = self._placement.to_world(np.floor(np.array(position) + 0.5))[0]
        return tuple(world[list(self.hidden)].tolist())

    def plane(self, position: Position) -> tuple[int, float] | None:
        """Return the slice of a voxel in the map's own order, as axis and index; None if everything is shown."""
        if not self.hidden:
            return None
        axis = self._placement.voxel_axis(self.hidden[0])
        return axis, float(np.floor(position[axis] + 0.5))

    def position(self, position: Position) -> Position:
        """Return the voxel on which napari's sliders stand; along the axes of the picture, that of the given one."""
        placement = self._placement
        world = placement.to_world(position)[0]
        point = self._viewer.dims.point[-placement.ndim :]
        for axis in self.hidden:
            world[axis] = point[axis]
        voxel, shown = placement.from_world(world)[0], np.array(position)
        for axis in map(placement.voxel_axis, self.hidden):
            # a fitted centre inside the shown slice is that slice
            if np.floor(voxel[axis] + 0.5) != np.floor(shown[axis] + 0.5):
                shown[axis] = voxel[axis]
        return tuple(np.clip(shown, 0, np.array(placement.shape) - 1).tolist())

    def move_to(self, place: tuple[float, ...]) -> None:
        """Bring napari's sliders to a place of :meth:`place`."""
        more = self._viewer.dims.ndim - self._placement.ndim
        self._moving = True
        try:
            self._viewer.dims.set_point([axis + more for axis in self.hidden], list(place))
        finally:
            self._moving = False

    def centre(self, position: Position) -> None:
        """Bring a voxel into the picture if it is out of it, or close to its edge."""
        camera, ndim = camera_of(self._viewer), self._placement.ndim
        world = self._placement.to_world(position)[0]
        centre = np.array(camera.center[-ndim:], dtype=float)
        shown = list(self.displayed)
        if np.abs(world[shown] - centre[shown]).max() * camera.zoom > WANDER:
            centre[shown] = world[shown]
            camera.center = (*camera.center[: 3 - ndim], *centre)

    def _look(self) -> None:
        dims, ndim = self._viewer.dims, self._placement.ndim
        more = dims.ndim - ndim
        self.displayed = tuple(axis - more for axis in dims.displayed if axis >= more)
        self.hidden = tuple(axis for axis in range(ndim) if axis not in self.displayed)

    def _on_dims(self, event: Any = None) -> None:
        if not self._moving:
            self._look()
            self._changed()

    def _events(self) -> tuple[Any, ...]:
        events = self._viewer.dims.events
        return events.point, events.order, events.ndisplay
