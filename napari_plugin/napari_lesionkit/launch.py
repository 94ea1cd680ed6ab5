"""`lesionkit napari`: a viewer with the dock, ready to step."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionkit.checkpoints import read_card
from lesionkit.io import import_points
from napari_lesionkit.placement import METADATA
from napari_lesionkit.reader import Layer, heat_options, nifti_layer
from napari_lesionkit.samples import gad

if TYPE_CHECKING:
    import napari

    from napari_lesionkit.widget import LesionkitWidget

ROOM = (1400, 950)
"""Width and height for pictures and the whole dock, in pixels, where the screen has them."""


def launch(
    images: Sequence[str | Path] = (),
    *,
    heatmap: str | Path | None = None,
    checkpoint: str | None = None,
    truth: str | Path | None = None,
) -> tuple[napari.Viewer, LesionkitWidget]:
    """Open napari with images, a heatmap and the dock; `napari.run()` then hands it to the person.

    Parameters
    ----------
    images : sequence of path
        NIfTI images, in the order of the network's channels; the first is shown. Without images and heatmap the sample
        case `gad` is opened.
    heatmap : path, optional
        Predicted heatmap (NIfTI), which is stepped through.
    checkpoint : str, optional
        A shipped checkpoint or a file. With a heatmap it says sigma and threshold; without one it is run on the images.
    truth : path, optional
        True points, in any format of the kit.

    Raises
    ------
    DataError
        If a file cannot be used; no window is opened then.
    OSError
        If there is no screen.
    """
    card = None if checkpoint is None else read_card(checkpoint)
    layers: list[Layer] = [nifti_layer(path) for path in reversed(images)]
    for _, options, _ in layers[:-1]:
        options["visible"] = False
    if heatmap is not None:
        data, options, kind = nifti_layer(heatmap)
        known = options["metadata"][METADATA]
        if card is not None:
            known |= {"sigma": card.sigma, "threshold": card.threshold}
        layers.append((data, {**options, **heat_options(data)}, kind))
    elif not layers:
        layers = gad()
    if truth is not None:
        frame = import_points(truth).frame
        layers[-1][1]["metadata"][METADATA]["truth_mm"] = frame[["x", "y", "z"]].to_numpy(dtype=float)
    _check_screen()

    import napari

    viewer = napari.Viewer(title="lesionkit")
    added = [viewer.add_image(data, **options) for data, options, _ in layers]
    widget = dock(viewer)
    if heatmap is not None or not images:
        widget.begin(added[-1])
        _make_room(viewer, widget)
        return viewer, widget
    widget.predict.setChecked(True)
    if checkpoint is None:
        widget.heatmap.choose(added[-1])
    else:
        widget.network.use(checkpoint, added[::-1])
        widget.network.start()
    _make_room(viewer, widget)
    return viewer, widget


def dock(viewer: napari.Viewer) -> LesionkitWidget:
    """Open the dock in a viewer."""
    widget: Any = viewer.window.add_plugin_dock_widget("lesionkit", "Step through lesion detection")[1]
    return widget


def _make_room(viewer: napari.Viewer, widget: LesionkitWidget) -> None:
    """Enlarge a window that is too small for the dock beside a picture, and show the whole picture."""
    from qtpy.QtWidgets import QApplication

    window = widget.window()
    screen = window.screen().availableSize()
    wide, high = ROOM
    viewer.window.resize(
        max(window.width(), min(wide, screen.width())), max(window.height(), min(high, screen.height()))
    )
    QApplication.processEvents()  # the picture gets its size
    viewer.reset_view()


def _check_screen() -> None:
    """Qt ends the process where there is no screen; say so instead."""
    lacking = not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
    if sys.platform.startswith("linux") and lacking:
        raise OSError("napari needs a screen: DISPLAY is not set (over ssh: ssh -X, or xvfb-run for scripts)")
