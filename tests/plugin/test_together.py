"""One state in two places at once: napari's dock and the widget of the notebooks move each other."""

from __future__ import annotations

import numpy as np
import pytest
from plugin_cases import add_heatmap, volume_of
from qtpy.QtCore import Qt

from lesionkit.widgets import ExplorerWidget

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def notebook(widget):
    """The view of a notebook on the state of the dock."""
    view = ExplorerWidget(widget.explorer)
    yield view
    view.close()


def ask(view: ExplorerWidget, command: str, value: object = None) -> None:
    """Send what the browser sends when a person moves something there."""
    view._hear(view, {"command": command, "value": value, "ack": view.frame["ack"] + 1}, [])


def residual(viewer) -> np.ndarray:
    return np.array(viewer.layers["residual"].data)


def test_what_is_moved_in_the_notebook_is_seen_in_napari(notebook, widget, viewer, qtbot):
    start = residual(viewer)
    ask(notebook, "go_to", 5)
    assert widget.steps.scrub.value() == 5
    assert "2 of 3, subtract" in widget.steps.status.text()
    assert np.abs(residual(viewer) - start).max() > 0.01
    ask(notebook, "set_threshold", 0.6)
    assert widget.threshold.threshold.value() == pytest.approx(0.6)
    assert notebook.frame["threshold"] == 0.6
    assert widget.explorer.lesions.kept.sum() == 2
    ask(notebook, "go_to", -1)
    np.testing.assert_array_equal(residual(viewer), start)


def test_what_is_moved_in_napari_is_seen_in_the_notebook(notebook, widget, qtbot):
    before = notebook._repr_mimebundle_()[0]["image/png"]
    qtbot.mouseClick(widget.steps.buttons["next"], LEFT)
    assert notebook.frame["cursor"] == 2
    assert notebook._repr_mimebundle_()[0]["image/png"] != before
    widget.threshold.threshold.setValue(0.5)
    assert notebook.frame["threshold"] == 0.5
    widget.explorer.set_sigma(1.5)
    assert notebook.trajectory["sigma"][0] == notebook.frame["sigma"] == 1.5


def test_another_map_in_napari_is_another_map_in_the_notebook(notebook, widget, viewer):
    smaller = volume_of(shape=(16, 40, 36))
    widget.begin(add_heatmap(viewer, smaller))
    assert notebook.scene["shape"] == list(widget.explorer.heatmap.shape)
    assert notebook.frame["cursor"] == widget.explorer.cursor == -1


def test_a_refusal_in_one_place_is_read_in_both(notebook, widget):
    ask(notebook, "set_window", 4)
    assert "odd" in notebook.frame["error"]
    widget.explorer.report_error("no layer is chosen")
    assert notebook.frame["error"] == widget.explorer.error == "no layer is chosen"
