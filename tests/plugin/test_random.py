"""Five hundred random actions on the real dock: no exception, and no view that disagrees with the state."""

from __future__ import annotations

import numpy as np
from plugin_cases import POINTS, add_heatmap, volume_of
from qtpy.QtCore import QPoint, Qt

from napari_lesionkit.colours import VERDICTS, rgba
from napari_lesionkit.rings import lines_of
from napari_lesionkit.session import ACTIONS

LEFT = Qt.MouseButton.LeftButton


def agree(widget):
    """Hold everything that is shown against the state."""
    explorer, session = widget.explorer, widget.session
    assert widget.error.text() == explorer.error == ""
    assert widget.timer.isActive() == explorer.playing
    if session.view is None:
        assert session.source is None
        return
    view, placement = session.view, session.placement
    assert widget.steps.scrub.value() == explorer.cursor
    assert widget.steps.status.text() == widget.steps.text()
    assert abs(widget.threshold.threshold.value() - explorer.threshold) < 1e-3
    assert widget.search.mode.currentText() == explorer.config.mode
    assert widget.search.compare.isChecked() == explorer.comparing
    assert widget.truth.score.text() == widget.truth.text()
    assert widget.truth.annotate.isChecked() == session.annotating
    assert widget.steps.follow.isChecked() == explorer.follow
    assert np.shares_memory(view.residual.data, explorer.residual)
    if view.residual.visible and len(widget.viewer.dims.displayed) == 2:
        hidden = view.slices.hidden[0]
        index = round(float(placement.to_layer(np.floor(np.array(explorer.position) + 0.5))[0][hidden]))
        slices = [slice(None)] * 3
        slices[hidden] = index
        expected = view.residual.data[tuple(slices)]
        if list(view.slices.displayed) != sorted(view.slices.displayed):
            expected = expected.T
        np.testing.assert_array_equal(view.residual._slice.image.view, expected)
    spots = view.detections.layer
    lesions = explorer.lesions
    assert spots.shown.sum() == len(lesions)
    marked = np.clip(lesions.mu, 0, np.array(placement.shape) - 1)
    np.testing.assert_allclose(spots.data[spots.shown], placement.to_layer(marked))
    colours = np.array([rgba(VERDICTS[mark])[:3] for mark in lesions.verdicts]).reshape(-1, 3)
    np.testing.assert_allclose(spots.face_color[spots.shown][:, :3], colours, atol=1e-6)
    assert view.truth.layer.shown.sum() == (0 if explorer.truth is None else len(explorer.truth))
    plane = None
    if view.slices.hidden:
        axis = placement.voxel_axis(view.slices.hidden[0])
        plane = axis, float(np.floor(explorer.position[axis] + 0.5))
    assert view.lines._used == len(lines_of(explorer, plane))
    if view.label is not None and view.label.visible:
        np.testing.assert_array_equal(placement.shown(view.label.data), explorer.label)


def actions(widget, layers, rng, qtbot):
    """Everything that hands can do, as functions without arguments."""
    explorer, session, viewer = widget.explorer, widget.session, widget.viewer
    bound = list(ACTIONS)
    bars = widget.threshold.bars

    def number(low, high):
        return float(rng.uniform(low, high))

    def click_chart():
        chart = (bars, widget.charts.scores, widget.charts.distances)[rng.integers(3)]
        place = QPoint(int(number(0, chart.width())), int(number(0, chart.height())))
        qtbot.mousePress(chart, LEFT, pos=place)
        qtbot.mouseMove(chart, pos=QPoint(int(number(0, chart.width())), int(number(0, chart.height()))))
        qtbot.mouseRelease(chart, LEFT, pos=place)

    def click_canvas():
        native = viewer.window._qt_viewer.canvas.native
        place = QPoint(int(number(50, native.width() - 50)), int(number(50, native.height() - 50)))
        shift = Qt.KeyboardModifier.ShiftModifier if rng.random() < 0.3 else Qt.KeyboardModifier.NoModifier
        qtbot.mouseMove(native, place)
        qtbot.mouseClick(native, LEFT, shift, pos=place)

    return [
        lambda: session.do(bound[rng.integers(len(bound))]),
        lambda: session.do(bound[rng.integers(8)]),
        lambda: qtbot.mouseClick(list(widget.steps.buttons.values())[rng.integers(7)], LEFT),
        lambda: widget.steps.scrub.setValue(int(rng.integers(-1, 12))),
        lambda: widget.threshold.threshold.setValue(round(number(0, 1.2), 3)),
        lambda: widget.search.sigma.setValue(round(number(0.9, 1.8), 2)),
        lambda: widget.search.unit.setCurrentIndex(int(rng.integers(2))),
        lambda: widget.search.window.setValue(int(rng.choice([5, 7, 9]))),
        lambda: widget.search.mode.setCurrentIndex(int(rng.integers(2))),
        lambda: widget.search.compare.toggle(),
        lambda: widget.steps.follow.toggle(),
        lambda: widget.steps.speed.setValue(int(rng.integers(1, 31))),
        lambda: widget.charts.tabs.setCurrentIndex(int(rng.integers(4))),
        lambda: widget.charts.axis.setCurrentIndex(int(rng.integers(3))),
        lambda: widget.truth.annotate.toggle(),
        lambda: widget.truth.label.toggle(),
        lambda: widget.truth.gate.setValue(round(number(1, 12), 1)),
        click_chart,
        click_canvas,
        lambda: viewer.dims.set_current_step(viewer.dims.order[0], int(rng.integers(0, 18))),
        lambda: setattr(viewer.dims, "order", tuple(rng.permutation(3).tolist())),
        lambda: setattr(viewer, "theme", str(rng.choice(["dark", "light"]))),
        lambda: qtbot.wait(20),
        lambda: widget.begin(layers[rng.integers(2)]) if rng.random() < 0.2 else None,
        lambda: session.stop() if rng.random() < 0.1 else None,
        lambda: explorer.set_truth(POINTS[:2] if rng.random() < 0.7 else None),
    ]


def test_views_agree_with_the_state_whatever_one_does(viewer, dock, volume, qtbot):
    rng = np.random.default_rng(7)
    other = volume_of(points=POINTS[1:], alpha=np.array([0.9, 0.6]))
    layers = [add_heatmap(viewer, volume), add_heatmap(viewer, other)]
    dock.widget.begin(layers[0])
    can = actions(dock.widget, layers, rng, qtbot)
    for count in range(500):
        chosen = int(rng.integers(len(can)))
        can[chosen]()
        if not dock.widget.explorer.playing:
            agree(dock.widget)
        if dock.widget.session.view is None and rng.random() < 0.5:
            dock.widget.begin(layers[count % 2])
    dock.widget.explorer.pause()
    agree(dock.widget)
