"""Take the pictures of docs/napari.md from the real window: `python scripts/napari_pictures.py [FOLDER]`.

Needs napari and a screen; without one: `xvfb-run -a -s "-screen 0 1920x1200x24" python scripts/napari_pictures.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

# napari's saved window size and theme must not show
os.environ["NAPARI_CONFIG"] = os.path.join(tempfile.mkdtemp(), "settings.yaml")
warnings.simplefilter("ignore")

import napari  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402 (after the environment is set)
from PIL import Image  # noqa: E402 (after the environment is set)
from qtpy.QtCore import QEvent  # noqa: E402 (after the environment is set)
from qtpy.QtWidgets import QApplication  # noqa: E402 (after the environment is set)

from lesionkit.explorer import Phase  # noqa: E402 (after the environment is set)
from napari_lesionkit.launch import dock  # noqa: E402 (after the environment is set)
from napari_lesionkit.widget import LesionkitWidget  # noqa: E402 (after the environment is set)

SIZE = (1500, 1020)
"""Of the window, in pixels."""


def settle(times: int = 12) -> None:
    """Let Qt lay out and draw."""
    for _ in range(times):
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)  # napari's old sliders
        time.sleep(0.02)


def start_on(viewer: napari.Viewer, widget: LesionkitWidget, sample: str, zoom: float) -> None:
    """Open a sample afresh and start on its heatmap."""
    widget.session.stop()
    viewer.layers.clear()
    settle()
    viewer.open_sample("lesionkit", sample)
    widget.heatmap.refresh()
    widget.begin([layer for layer in viewer.layers if "heatmap" in layer.name][-1])
    viewer.reset_view()
    settle()
    viewer.scene.camera.zoom = zoom
    viewer.layers.selection.active = widget.session.view.residual if widget.session.view else None


def look_at(viewer: napari.Viewer, widget: LesionkitWidget, voxel: np.ndarray) -> None:
    """Bring a voxel to the middle of the picture."""
    assert widget.session.placement is not None
    viewer.scene.camera.center = tuple(widget.session.placement.to_world(voxel)[0])


def moments(viewer: napari.Viewer, widget: LesionkitWidget) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each picture's name and what brings it about."""
    explorer = widget.explorer
    start_on(viewer, widget, "gad", 6.5)
    brightest = 1

    def go(phase: Phase) -> Callable[[], None]:
        def step() -> None:
            explorer.go_to_step(brightest, phase)
            look_at(viewer, widget, explorer.steps[brightest].mu)
            widget.charts.tabs.setCurrentIndex(0)

        return step

    def start() -> None:
        explorer.first()
        explorer.move_to(explorer.steps[brightest].mu)
        look_at(viewer, widget, explorer.steps[brightest].mu)

    yield "start", start
    yield "maximum", go(Phase.MAXIMUM)
    yield "fit", go(Phase.FIT)
    yield "subtract", go(Phase.SUBTRACT)
    start_on(viewer, widget, "pair", 26.0)

    def both() -> None:
        explorer.last()
        explorer.set_comparing(True)
        explorer.wait()
        explorer.move_to(explorer.detections.mu.mean(axis=0))
        look_at(viewer, widget, explorer.detections.mu.mean(axis=0))
        widget.charts.tabs.setCurrentIndex(3)

    yield "modes", both
    start_on(viewer, widget, "flair", 5.0)

    def truth() -> None:
        explorer.set_comparing(False)
        explorer.last()
        centre = np.array(explorer.heatmap.shape) / 2
        explorer.move_to((*centre[:2], 82))
        look_at(viewer, widget, centre)
        widget.charts.tabs.setCurrentIndex(1)

    yield "truth", truth


def main() -> None:
    """Take every picture in both themes."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "napari")
    folder.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer(show=True, title="lesionkit")
    viewer.window._qt_window.resize(*SIZE)
    widget = dock(viewer)
    settle()
    for name, bring_about in moments(viewer, widget):
        for theme in ("dark", "light"):
            viewer.theme = theme
            bring_about()
            settle()
            picture = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)[..., :3])
            path = folder / f"{name}_{theme}.webp"
            picture.save(path, quality=88, method=6)
            print(f"{path}: {path.stat().st_size // 1024} KiB")
    viewer.close()


if __name__ == "__main__":
    main()
