"""What the viewer shows of an explorer: residual, lines, detections, truth and label, edited in place.

Works with napari's `ViewerModel`; no Qt. napari's own updates are what costs time, so each change of the explorer is
drawn once, when it has settled: arrays are edited in place and each layer is refreshed at most once, or not at all
where moving to another slice refreshes everything anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.explorer import Explorer
from napari_lesionkit.colours import RIVAL, TRUTH, VERDICTS, residual_colormap, rgba
from napari_lesionkit.placement import METADATA, Placement
from napari_lesionkit.rings import Lines, lines_of, rival_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points, Vectors

LIGHT = {"thumbnail": False, "highlight": False, "extent": False}
"""What a refresh may leave out."""
ROOM = 16
"""Lesions for which there is room from the start; for more, room is made in powers of two."""
WANDER = 250.0
"""A peak farther than this from the middle of the picture, in pixels, is brought there."""
POINTS_OPTIONS: dict[str, Any] = {"face_color": "transparent", "border_width": 0.1, "antialiasing": 1.0}


def camera_of(viewer: ViewerModel) -> Any:
    """Return the camera, wherever this version of napari has it."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


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

    def draw(self, mu: Float[np.ndarray, "n ndim"], colours: Float[np.ndarray, "n 4"]) -> None:
        """Write points and their colours, without refreshing unless there are more than ever."""
        n, layer = len(mu), self.layer
        if n > len(layer.data):
            room = 1 << (n - 1).bit_length()
            layer.data = np.zeros((room, self._placement.ndim))
            layer.shown = np.zeros(room, bool)
            self._paint()
        # a centre outside the map is marked at its border: beyond it napari's slider would show empty slices
        inside = np.clip(mu, 0.0, np.array(self._placement.shape) - 1.0)
        layer.data[:n] = self._placement.to_layer(inside)
        layer.data[n:] = 0.0
        (layer.face_color if self._filled else layer.border_color)[:n] = colours
        shown: Bool[np.ndarray, " m"] = layer.shown
        shown[:n], shown[n:] = True, False

    def refresh(self) -> None:
        """Show what was written."""
        self.layer.refresh(**LIGHT)


class LayerView:
    """Layers of one map, in step with its explorer.

    Parameters
    ----------
    viewer : ViewerModel
        napari's viewer, or its model.
    explorer : Explorer
        The state; a map must be loaded.
    placement : Placement
        Of that map.
    over_image : bool
        Whether there is an image below, which should shine through the residual.
    """

    def __init__(
        self, viewer: ViewerModel, explorer: Explorer, placement: Placement, *, over_image: bool = False
    ) -> None:
        self.viewer, self.explorer, self.placement = viewer, explorer, placement
        self._moving = False
        size = self._mark_size
        active = viewer.layers.selection.active
        self.residual: Image = viewer.add_image(
            placement.shown(explorer.residual),
            name="residual",
            colormap=residual_colormap(see_through=over_image),
            blending="translucent",
            contrast_limits=self._limits,
            interpolation2d="linear",
            projection_mode="none",
            metadata={METADATA: {"view": True}},
            **placement.options,
        )
        self.label: Image | None = None
        self.lines = LineLayer(viewer, placement, "rings")
        self.truth = SpotLayer(viewer, placement, "truth", size=1.6 * size, symbol="diamond", border_width=0.05)
        self.detections = SpotLayer(viewer, placement, "detections", size=0.6 * size, symbol="disc", filled=True)
        self.rival: SpotLayer | None = None
        viewer.layers.selection.active = active if active in viewer.layers else self.residual
        explorer.settled.connect(self._on_settled)
        for event in self._dims_events():
            event.connect(self._on_dims)
        camera_of(viewer).events.zoom.connect(self._on_zoom)
        self.lines.fit_to(self._displayed)
        self._on_zoom()
        self._draw_all()

    # ------------------------------------------------------------------ life
    @property
    def layers(self) -> list[Layer]:
        """The layers of this view that the viewer still has."""
        spots = [self.truth, self.detections, *([self.rival] if self.rival else [])]
        mine = [self.residual, *([self.label] if self.label else []), self.lines.layer, *(one.layer for one in spots)]
        return [layer for layer in mine if layer in self.viewer.layers]

    def close(self) -> None:
        """Listen no more and remove the layers."""
        self.explorer.settled.disconnect(self._on_settled, missing_ok=True)
        for event in self._dims_events():
            event.disconnect(self._on_dims)
        camera_of(self.viewer).events.zoom.disconnect(self._on_zoom)
        for layer in self.layers:
            self.viewer.layers.remove(layer)

    def show_label(self, shown: bool) -> None:
        """Show the heatmap that a network would learn from the true points, or hide it."""
        if shown and self.label is None:
            self.label = self.viewer.add_image(
                self.placement.shown(self.explorer.label),
                name="label",
                colormap="cyan",
                blending="additive",
                opacity=0.8,
                contrast_limits=(0.0, float(self.explorer.label.max()) or 1.0),
                interpolation2d="linear",
                projection_mode="none",
                metadata={METADATA: {"view": True}},
                **self.placement.options,
            )
            self.viewer.layers.move(self.viewer.layers.index(self.label), self.viewer.layers.index(self.lines.layer))
            self.viewer.layers.selection.active = self.residual
        elif self.label is not None and self.label in self.viewer.layers:
            self.label.visible = shown
            if shown:
                self._draw_label()

    # ------------------------------------------------------------------ from the explorer
    def _on_settled(self, names: frozenset[str]) -> None:
        if "case" in names:
            return  # another map: the session makes another view
        if "comparing" in names:
            self._make_rival()
        dirty: list[Callable[[], None]] = []
        if "residual" in names:
            dirty.append(self._refresh_residual)
        if names & {"lesions", "trajectory"}:
            self._draw_detections()
            dirty.append(self.detections.refresh)
        if "truth" in names or ("score" in names and len(self.explorer.truth if self._known else ())):
            self._draw_truth()
            dirty.append(self.truth.refresh)
        if "comparison" in names and self.rival is not None:
            self._draw_rival()
            dirty.append(self.rival.refresh)
        moved = "position" in names and self._wanted_point() != self._shown_point()
        if moved or names & {"cursor", "lesions", "trajectory", "comparison", "comparing", "position"}:
            self._draw_lines()
            dirty.append(self.lines.refresh)
        if "label" in names and self.label is not None and self.label.visible:
            self._draw_label()
        if "position" in names and self.explorer.follow:
            self._centre()
        if moved:
            self._move()  # refreshes every layer
        else:
            for refresh in dirty:
                refresh()

    def _on_dims(self, event: Any = None) -> None:
        """Follow the person who moves a slider or turns the axes."""
        if self._moving:
            return
        self.lines.fit_to(self._displayed)
        position = self._position_shown()
        if position != self.explorer.position:
            self.explorer.move_to(position)  # comes back as a signal
        else:
            self._draw_lines()
            self.lines.refresh()

    def _on_zoom(self, event: Any = None) -> None:
        """Keep lines two pixels wide."""
        finest = min(self.placement.scale)
        width = float(np.clip(2.0 / (max(camera_of(self.viewer).zoom, 1e-3) * finest), 0.02, 3.0))
        if not np.isclose(self.lines.layer.edge_width, width, rtol=0.05):
            self.lines.layer.edge_width = width

    def _draw_all(self) -> None:
        self._draw_detections()
        self._draw_truth()
        self._make_rival()
        self._draw_lines()
        if self._wanted_point() != self._shown_point():
            self._move()
        for part in (self.detections, self.truth, self.lines):
            part.refresh()

    # ------------------------------------------------------------------ drawing
    def _refresh_residual(self) -> None:
        self.residual.refresh(**LIGHT)

    def _draw_detections(self) -> None:
        lesions = self.explorer.lesions
        colours = [rgba(VERDICTS[mark], 0.7 if mark == "below" else 1.0) for mark in lesions.verdicts]
        self.detections.draw(lesions.mu, np.array(colours).reshape(-1, 4))

    def _draw_truth(self) -> None:
        truth, score = self.explorer.truth, self.explorer.score
        if truth is None or score is None:
            self.truth.draw(np.zeros((0, self.placement.ndim)), np.zeros((0, 4)))
            return
        searched = len(self.explorer.steps) > 0
        found = [VERDICTS["tp"] if hit else VERDICTS["fn"] for hit in score.matched_true]
        self.truth.draw(truth, np.array([rgba(c if searched else TRUTH) for c in found]).reshape(-1, 4))

    def _make_rival(self) -> None:
        if self.explorer.comparing and self.rival is None:
            self.rival = SpotLayer(
                self.viewer,
                self.placement,
                "other mode",
                size=0.6 * self._mark_size,
                symbol="square",
                border_width=0.13,
            )
            self.viewer.layers.selection.active = self.residual
        if self.rival is not None:
            self._draw_rival()
            self.rival.layer.visible = self.explorer.comparing
            self.rival.refresh()

    def _draw_rival(self) -> None:
        rival = rival_of(self.explorer)
        mu = np.zeros((0, self.placement.ndim)) if rival is None else rival
        if self.rival is not None:
            self.rival.draw(mu, np.tile(rgba(RIVAL), (len(mu), 1)))

    def _draw_lines(self) -> None:
        """Draw what the slice that the explorer wants cuts."""
        hidden = self._hidden
        if not hidden:
            self.lines.draw(lines_of(self.explorer, None), {})
            return
        point = self._wanted_point()
        axis = hidden[0]
        index = self.placement.to_voxel(self.placement.to_layer(self.explorer.position))[0]
        voxel_axis = self.placement.voxel_axis(axis)
        plane = (voxel_axis, float(np.floor(index[voxel_axis] + 0.5)))
        self.lines.draw(lines_of(self.explorer, plane), {axis: point[0]})

    def _draw_label(self) -> None:
        if self.label is not None and self.label in self.viewer.layers:
            label = self.explorer.label
            self.label.data = self.placement.shown(label)
            self.label.contrast_limits = (0.0, float(label.max()) or 1.0)

    # ------------------------------------------------------------------ which slice
    @property
    def _known(self) -> bool:
        return self.explorer.truth is not None

    @property
    def _displayed(self) -> tuple[int, ...]:
        """Axes of the layers that are shown as the picture."""
        more = self.viewer.dims.ndim - self.placement.ndim
        return tuple(axis - more for axis in self.viewer.dims.displayed if axis >= more)

    @property
    def _hidden(self) -> tuple[int, ...]:
        """Axes of the layers that are sliced; one at most."""
        return tuple(axis for axis in range(self.placement.ndim) if axis not in self._displayed)

    def _wanted_point(self) -> tuple[float, ...]:
        """Place in napari's world of the slice that the explorer wants; one number for each hidden axis."""
        voxel = np.floor(np.array(self.explorer.position) + 0.5)
        world = self.placement.to_world(voxel)[0]
        return tuple(world[list(self._hidden)].tolist())

    def _shown_point(self) -> tuple[float, ...]:
        """Place of the slice that is shown, as the centre of its voxels."""
        world = self.placement.to_world(np.floor(np.array(self._position_shown()) + 0.5))[0]
        return tuple(world[list(self._hidden)].tolist())

    def _position_shown(self) -> tuple[float, ...]:
        """Voxel that napari's sliders stand on; along the axes of the picture, the explorer's."""
        world = self.placement.to_world(self.explorer.position)[0]
        point = self.viewer.dims.point[-self.placement.ndim :]
        for axis in self._hidden:
            world[axis] = point[axis]
        voxel = self.placement.from_world(world)[0]
        position = np.array(self.explorer.position)
        for axis in self._hidden:
            mine = self.placement.voxel_axis(axis)
            # a fitted centre inside the shown slice is that slice
            if np.floor(voxel[mine] + 0.5) != np.floor(position[mine] + 0.5):
                position[mine] = voxel[mine]
        return tuple(np.clip(position, 0, np.array(self.placement.shape) - 1).tolist())

    def _move(self) -> None:
        """Bring napari's sliders to the slice that the explorer wants."""
        more = self.viewer.dims.ndim - self.placement.ndim
        self._moving = True
        try:
            self.viewer.dims.set_point([axis + more for axis in self._hidden], list(self._wanted_point()))
        finally:
            self._moving = False

    def _centre(self) -> None:
        """Bring the explorer's position into the picture if it is out of it, or close to its edge."""
        camera = camera_of(self.viewer)
        world = self.placement.to_world(self.explorer.position)[0]
        centre = np.array(camera.center[-self.placement.ndim :], dtype=float)
        shown = list(self._displayed)
        if np.abs(world[shown] - centre[shown]).max() * camera.zoom > WANDER:
            centre[shown] = world[shown]
            camera.center = (*camera.center[: 3 - self.placement.ndim], *centre)

    def _dims_events(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.point, events.order, events.ndisplay

    # ------------------------------------------------------------------ looks
    @property
    def _limits(self) -> tuple[float, float]:
        top = float(self.explorer.heatmap.max())
        top = top if np.isfinite(top) and top > 0 else 1.0
        return -top, top

    @property
    def _mark_size(self) -> float:
        """Diameter of a cross: two sigma, in voxels of the last axis, as napari counts sizes."""
        sigma_mm = np.array(self.explorer.label_sigma) * self.explorer.spacing
        return max(2.0 * float(sigma_mm.mean()) / self.placement.scale[-1], 2.0)
