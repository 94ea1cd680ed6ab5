"""One viewer, one explorer: starting on a layer, keys, clicks. No Qt, so that tests and scripts can use it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from lesionkit.detection import FitConfig, fit_config
from lesionkit.explorer import Explorer
from napari_lesionkit.layers import LayerView
from napari_lesionkit.placement import METADATA, Placement
from napari_lesionkit.slices import camera_of

if TYPE_CHECKING:
    from jaxtyping import Float, Num
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points

NEAR_SIGMA = 1.0
"""A click this close to a true point, in sigma, means that point."""
THRESHOLD_STEP = 0.05
FIRST_S = 0.5
"""So long the first search is waited for, in seconds, so that one can step at once."""


@dataclass(frozen=True)
class Action:
    """Something that a person can do with a key."""

    key: str
    tip: str
    """What it does, in a few words."""
    run: Callable[[Session], object]

    @property
    def help(self) -> str:
        """What it does, and its key."""
        return f"{self.tip} ({self.key.replace('Shift-', 'Shift+')})"


ACTIONS: dict[str, Action] = {
    "forward": Action("K", "On by one phase: maximum, fit, subtract", lambda s: s.explorer.step_forward()),
    "back": Action("J", "Back by one phase; the residual comes back exactly", lambda s: s.explorer.step_back()),
    "next": Action("Shift-K", "On to the end of the iteration", lambda s: s.explorer.step_forward(whole=True)),
    "previous": Action("Shift-J", "Back by one iteration", lambda s: s.explorer.step_back(whole=True)),
    "play": Action("H", "Play or pause", lambda s: s.explorer.toggle_playing()),
    "first": Action("Q", "To the start: nothing is subtracted", lambda s: s.explorer.first()),
    "last": Action("W", "To the end: everything is subtracted", lambda s: s.explorer.last()),
    "follow": Action("Shift-H", "Follow the peak from slice to slice, or stay", lambda s: s.toggle_follow()),
    "mode": Action("N", "Paper mode or joint mode", lambda s: s.toggle_mode()),
    "compare": Action("Shift-N", "Show the other mode too", lambda s: s.toggle_comparing()),
    "stricter": Action("Shift-W", f"Threshold up by {THRESHOLD_STEP}", lambda s: s.shift_threshold(THRESHOLD_STEP)),
    "laxer": Action("Shift-Q", f"Threshold down by {THRESHOLD_STEP}", lambda s: s.shift_threshold(-THRESHOLD_STEP)),
    "annotate": Action("G", "Set true points by clicks, or stop doing so", lambda s: s.toggle_annotating()),
    "undo": Action("U", "Take back the last change of the true points", lambda s: s.explorer.undo()),
    "redo": Action("Shift-U", "Take back the last undo", lambda s: s.explorer.redo()),
}
"""Everything that has a key; none of the keys means anything to napari itself."""


class Session:
    """What the plugin does in one viewer.

    Parameters
    ----------
    viewer : ViewerModel
        napari's viewer, or its model.
    before_removal : callable
        Called before layers are removed: with a window, its OpenGL contexts must be made current then.
    inline_s : float
        See :class:`~lesionkit.explorer.Explorer`.
    """

    source_changed = Signal(description="another map is looked at, or none")
    annotating_changed = Signal(bool)
    label_changed = Signal(bool, description="whether the label of the true points is shown")

    def __init__(
        self, viewer: ViewerModel, *, before_removal: Callable[[], object] = lambda: None, inline_s: float = 0.05
    ) -> None:
        self.viewer = viewer
        self.explorer = Explorer(inline_s=inline_s)
        self.view: LayerView | None = None
        self.source: Image | None = None
        """The layer whose map is taken apart."""
        self.placement: Placement | None = None
        self.annotating = False
        self.drafting = False
        """Whether there is no map, only true points on an image."""
        self._before_removal = before_removal
        self._was_visible = True
        self._keys_bound = False
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.mouse_drag_callbacks.append(self._on_press)

    # ------------------------------------------------------------------ starting and stopping
    def start(
        self,
        layer: Image,
        *,
        truth: Float[np.ndarray, "n ndim"] | Points | None = None,
        config: FitConfig | None = None,
        threshold: float | None = None,
    ) -> None:
        """Take a heatmap apart.

        Parameters
        ----------
        layer : napari.layers.Image
            The heatmap.
        truth : points layer, or (n, ndim) array, optional
            True points: a layer, or voxel indices. By default what the layer's metadata know.
        config, threshold : optional
            Settings; by default what the metadata know, otherwise sigma is estimated.

        Raises
        ------
        ValueError
            If the layer holds no 2-D or 3-D map.
        """
        placement = Placement.of_layer(layer)
        known = layer.metadata.get(METADATA, {})
        points = self._points(truth, placement, known.get("truth_mm"))
        sigma = known.get("sigma", "estimate")
        # networks give one lesion two peaks at times, and fit_config() takes close ones together; exact maps do not
        settings = config or (FitConfig(sigma=sigma) if known.get("exact") else fit_config(sigma))
        heatmap = placement.shown(np.asarray(layer.data))
        self._open(layer, placement, heatmap, points, settings)
        wanted = known.get("threshold") if threshold is None else threshold
        if wanted is not None:
            self.explorer.set_threshold(wanted)
        layer.visible = False  # the residual starts as the same map

    def draft(self, layer: Image, *, truth: Float[np.ndarray, "n ndim"] | Points | None = None) -> None:
        """Set true points on an image that has no heatmap, and watch the label that a network would learn.

        Raises
        ------
        ValueError
            If the layer holds no 2-D or 3-D image.
        """
        placement = Placement.of_layer(layer)
        points = self._points(truth, placement, layer.metadata.get(METADATA, {}).get("truth_mm"))
        config = self.explorer.config if isinstance(self.explorer.config.sigma, float) else fit_config(1.25)
        nothing = np.zeros(placement.shape, np.float32)
        self._open(layer, placement, nothing, np.zeros((0, placement.ndim)) if points is None else points, config)
        self.drafting = True
        self.show_label(True)
        self.set_annotating(True)
        self.source_changed.emit()

    def stop(self) -> None:
        """Remove the layers of the view; the heatmap is shown again."""
        if self.view is None:
            return
        self.set_annotating(False)
        self.label_changed.emit(False)
        self.explorer.pause()
        view, self.view = self.view, None
        self._before_removal()
        view.close()
        if self.source is not None and self.source in self.viewer.layers:
            self.source.visible = self._was_visible
        self.source = self.placement = None
        self.drafting = False
        self.source_changed.emit()

    def close(self) -> None:
        """Leave the viewer as if nothing had been there."""
        self.stop()
        self.unbind_keys()
        self.explorer.set_dispatch(None)
        self.explorer.close()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        if self._on_press in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._on_press)

    # ------------------------------------------------------------------ what keys and buttons do
    def bind_keys(self) -> None:
        """Bind every action to its key."""
        for action in ACTIONS.values():
            self.viewer.bind_key(action.key, self._pressed(action), overwrite=True)
        self._keys_bound = True

    def unbind_keys(self) -> None:
        """Give the keys back."""
        if self._keys_bound:
            for action in ACTIONS.values():
                self.viewer.bind_key(action.key, None)
        self._keys_bound = False

    def do(self, name: str) -> None:
        """Do an action by its name, if a map is looked at."""
        if self.view is not None:
            ACTIONS[name].run(self)

    def toggle_follow(self) -> None:
        """Follow the peak, or stay."""
        self.explorer.set_follow(not self.explorer.follow)

    def toggle_mode(self) -> None:
        """Search in the other mode."""
        self.explorer.set_mode("paper" if self.explorer.config.mode == "joint" else "joint")

    def toggle_comparing(self) -> None:
        """Show the other mode too, or stop doing so."""
        self.explorer.set_comparing(not self.explorer.comparing)

    def shift_threshold(self, by: float) -> None:
        """Move the threshold, not below 0."""
        self.explorer.set_threshold(max(round(self.explorer.threshold + by, 3), 0.0))

    def set_annotating(self, annotating: bool) -> None:
        """Let clicks set true points, or not."""
        wanted = bool(annotating) and self.view is not None
        if wanted != self.annotating or wanted != bool(annotating):  # a button that asked in vain is told too
            self.annotating = wanted
            self.annotating_changed.emit(wanted)

    def toggle_annotating(self) -> None:
        """Let clicks set true points, or not."""
        self.set_annotating(not self.annotating)

    def show_label(self, shown: bool) -> None:
        """Show the label heatmap of the true points, or hide it."""
        if self.view is not None:
            self.view.show_label(shown)
        self.label_changed.emit(shown and self.view is not None)

    def set_truth_layer(self, layer: Points) -> None:
        """Take a points layer as the truth."""
        if self.placement is not None:
            self.explorer.set_truth(self._points(layer, self.placement, None))

    # ------------------------------------------------------------------ inside
    def _open(
        self,
        layer: Image,
        placement: Placement,
        heatmap: Num[np.ndarray, " ..."],
        truth: Float[np.ndarray, "n ndim"] | None,
        config: FitConfig,
    ) -> None:
        self.stop()
        self.explorer.load(heatmap, truth=truth, affine=placement.affine, config=config)
        self.explorer.wait(FIRST_S)
        if config.sigma == "estimate" and not self.explorer.steps and not self.explorer.busy:
            self.explorer.set_sigma(FitConfig().sigma)  # no peak stands alone, whose width could be told
        self.source, self.placement = layer, placement
        self._was_visible = layer.visible
        images = [one for one in self.viewer.layers if type(one).__name__ == "Image" and one.visible]
        below = any(one is not layer for one in images)
        self.view = LayerView(self.viewer, self.explorer, placement, over_image=below)
        self.source_changed.emit()

    def _points(
        self, truth: Float[np.ndarray, "n ndim"] | Points | None, placement: Placement, known: Any
    ) -> Float[np.ndarray, "n ndim"] | None:
        if truth is None and known is None:
            return None
        if truth is None:
            inverse = np.linalg.inv(placement.affine)
            return np.asarray(known, dtype=float).reshape(-1, placement.ndim) @ inverse[:-1, :-1].T + inverse[:-1, -1]
        if isinstance(truth, np.ndarray):
            return truth
        if truth.ndim != placement.ndim:
            raise ValueError(f"layer {truth.name!r} has points of {truth.ndim} axes; {placement.ndim} are wanted")
        return placement.from_world(np.asarray(truth.data) * truth.scale + truth.translate)

    def _pressed(self, action: Action) -> Callable[[Any], None]:
        def press(viewer: Any) -> None:
            if self.view is not None:
                action.run(self)

        return press

    def _on_removed(self, event: Any) -> None:
        """End with the map; without the residual there is nothing to look at either."""
        if self.view is not None and event.value in (self.source, self.view.residual):
            self.stop()

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """Set, move (drag) or remove (Shift) a true point; one generator a click, as napari wants it."""
        if not self.annotating or self.placement is None or event.button != 1 or len(event.dims_displayed) != 2:
            return
        point = self._clicked(event)
        near = None if point is None else self.explorer.nearest_truth(point, within_mm=self._reach_mm())
        removing = "Shift" in event.modifiers
        camera = camera_of(self.viewer)
        panning = camera.mouse_pan
        camera.mouse_pan = panning and near is None
        moved = dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            place = self._clicked(event)
            if near is not None and not removing and place is not None:
                self.explorer.move_truth(near, place, amend=moved)
                moved = True
            yield
        camera.mouse_pan = panning
        if dragged or point is None:
            return
        if near is None and not removing:
            self.explorer.add_truth(point)
        elif near is not None and removing:
            self.explorer.remove_truth(near)

    def _clicked(self, event: Any) -> Float[np.ndarray, " ndim"] | None:
        """Voxel index of a click; None outside the map."""
        assert self.placement is not None
        voxel = self.placement.from_world(event.position[-self.placement.ndim :])[0]
        inside = ((voxel >= -0.5) & (voxel <= np.array(self.placement.shape) - 0.5)).all()
        return voxel if inside else None

    def _reach_mm(self) -> float:
        widest = np.array(self.explorer.label_sigma) * self.explorer.spacing
        return NEAR_SIGMA * float(widest.mean())


def own_layers(layers: list[Layer]) -> list[Layer]:
    """Return the layers that belong to a view, not to the person."""
    return [layer for layer in layers if layer.metadata.get(METADATA, {}).get("view")]
