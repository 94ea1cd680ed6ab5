"""The layers that show an explorer: residual, rings, detections, truth, the other mode and the label.

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
from napari_lesionkit.marks import LIGHT, LineLayer, SpotLayer
from napari_lesionkit.placement import METADATA, Placement
from napari_lesionkit.rings import lines_of, rival_of
from napari_lesionkit.slices import Slices, camera_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


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
        self.slices = Slices(viewer, placement, self._on_slice)
        explorer.settled.connect(self._on_settled)
        camera_of(viewer).events.zoom.connect(self._on_zoom)
        self.lines.fit_to(self.slices.displayed)
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
        self.slices.close()
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
        explorer, slices = self.explorer, self.slices
        if "comparing" in names:
            self._make_rival()
        dirty: list[Callable[[], None]] = []
        if "residual" in names:
            dirty.append(self._refresh_residual)
        if names & {"lesions", "trajectory"} and self._draw_detections():
            dirty.append(self.detections.refresh)
        if names & {"truth", "score"} and self._draw_truth():
            dirty.append(self.truth.refresh)
        if "comparison" in names and self.rival is not None and self._draw_rival(self.rival):
            dirty.append(self.rival.refresh)
        place = slices.place(explorer.position)
        moved = "position" in names and place != slices.place(slices.position(explorer.position))
        if names & {"cursor", "lesions", "trajectory", "comparison", "comparing", "position"}:
            self._draw_lines(place)
            dirty.append(self.lines.refresh)
        if "label" in names and self.label is not None and self.label.visible:
            self._draw_label()
        if "position" in names and explorer.follow:
            slices.centre(explorer.position)
        if moved:
            slices.move_to(place)  # refreshes every layer
        else:
            for refresh in dirty:
                refresh()

    def _on_slice(self) -> None:
        """Follow the person who moves a slider or turns the axes."""
        explorer, slices = self.explorer, self.slices
        self.lines.fit_to(slices.displayed)
        position = slices.position(explorer.position)
        if position != explorer.position:
            explorer.move_to(position)  # comes back as a signal
        else:
            self._draw_lines(slices.place(position))
            self.lines.refresh()

    def _on_zoom(self, event: Any = None) -> None:
        """Keep lines two pixels wide."""
        finest = min(self.placement.scale)
        width = float(np.clip(2.0 / (max(camera_of(self.viewer).zoom, 1e-3) * finest), 0.02, 3.0))
        if not np.isclose(self.lines.layer.edge_width, width, rtol=0.05):
            self.lines.layer.edge_width = width

    def _draw_all(self) -> None:
        position = self.explorer.position
        place = self.slices.place(position)
        self._draw_detections()
        self._draw_truth()
        self._make_rival()
        self._draw_lines(place)
        if place != self.slices.place(self.slices.position(position)):
            self.slices.move_to(place)
        for part in (self.detections, self.truth, self.lines):
            part.refresh()

    # ------------------------------------------------------------------ drawing
    def _refresh_residual(self) -> None:
        self.residual.refresh(**LIGHT)

    def _draw_detections(self) -> bool:
        lesions = self.explorer.lesions
        colours = [rgba(VERDICTS[mark], 0.7 if mark == "below" else 1.0) for mark in lesions.verdicts]
        return self.detections.draw(lesions.mu, np.array(colours).reshape(-1, 4))

    def _draw_truth(self) -> bool:
        truth, score = self.explorer.truth, self.explorer.score
        if truth is None or score is None:
            return self.truth.draw(np.zeros((0, self.placement.ndim)), np.zeros((0, 4)))
        searched = len(self.explorer.steps) > 0
        found = [VERDICTS["tp"] if hit else VERDICTS["fn"] for hit in score.matched_true]
        return self.truth.draw(truth, np.array([rgba(c if searched else TRUTH) for c in found]).reshape(-1, 4))

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
            self._draw_rival(self.rival)
            self.rival.layer.visible = self.explorer.comparing
            self.rival.refresh()

    def _draw_rival(self, spots: SpotLayer) -> bool:
        rival = rival_of(self.explorer)
        mu = np.zeros((0, self.placement.ndim)) if rival is None else rival
        return spots.draw(mu, np.tile(rgba(RIVAL), (len(mu), 1)))

    def _draw_lines(self, place: tuple[float, ...]) -> None:
        """Draw what the slice at a place cuts; it is the one that the explorer wants."""
        lines = lines_of(self.explorer, self.slices.plane(self.explorer.position))
        self.lines.draw(lines, dict(zip(self.slices.hidden, place, strict=True)))

    def _draw_label(self) -> None:
        if self.label is not None and self.label in self.viewer.layers:
            label = self.explorer.label
            self.label.data = self.placement.shown(label)
            self.label.contrast_limits = (0.0, float(label.max()) or 1.0)

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
