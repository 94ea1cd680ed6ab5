"""The dock with real events: buttons, sliders, charts, playing, closing, and the network in its thread."""

from __future__ import annotations

import gc
import math
import re
import threading
import weakref

import numpy as np
import pytest
from plugin_cases import SIGMA, TRUTH, add_heatmap, volume_of
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QComboBox, QListWidget, QWidget

from lesionkit.explorer import Phase
from lesionkit.samples import sample
from napari_lesionkit.chart import ticks
from napari_lesionkit.placement import volume_layer
from napari_lesionkit.reader import nifti_layer
from napari_lesionkit.session import ACTIONS
from napari_lesionkit.widget import LesionkitWidget

LEFT = Qt.MouseButton.LeftButton


def at(place: QPointF) -> QPoint:
    return QPoint(round(place.x()), round(place.y()))


# ---------------------------------------------------------------------- controls
def test_buttons_step_and_the_slider_follows(widget, qtbot):
    explorer, buttons = widget.explorer, widget.steps.buttons
    for name, cursor in (("forward", 0), ("next", 2), ("forward", 3), ("back", 2), ("last", 8), ("previous", 5),
                         ("first", -1)):  # fmt: skip
        qtbot.mouseClick(buttons[name], LEFT)
        assert explorer.cursor == widget.steps.scrub.value() == cursor
        assert widget.steps.status.text() == widget.steps.text()
    widget.steps.scrub.setValue(4)
    assert explorer.cursor == 4
    assert "2 of 3, fit" in widget.steps.status.text()


def test_threshold_slider_chart_and_state_agree(widget, qtbot):
    widget.threshold.threshold.setValue(0.6)
    assert widget.explorer.threshold == 0.6
    bars = widget.threshold.bars
    start, end = at(bars.to_pixel(2, 0.6)), at(bars.to_pixel(2, 0.9))
    qtbot.mousePress(bars, LEFT, pos=start)
    qtbot.mouseMove(bars, pos=end)
    qtbot.mouseRelease(bars, LEFT, pos=end)
    assert widget.explorer.threshold == pytest.approx(0.9, abs=0.02)
    assert widget.threshold.threshold.value() == pytest.approx(widget.explorer.threshold, abs=1e-3)
    qtbot.mouseMove(bars, pos=start)  # no button held: nothing is dragged
    assert widget.explorer.threshold == pytest.approx(0.9, abs=0.02)


def test_clicking_a_bar_goes_to_its_fit(widget, qtbot):
    bars = widget.threshold.bars
    qtbot.mouseClick(bars, LEFT, pos=at(bars.to_pixel(3, 0.3)))
    assert (widget.explorer.iteration, widget.explorer.phase) == (2, Phase.FIT)


def test_score_chart_moves_the_threshold(widget, qtbot):
    widget.charts.tabs.setCurrentWidget(widget.charts.scores)
    chart = widget.charts.scores
    qtbot.mouseClick(chart, LEFT, pos=at(chart.to_pixel(0.55, 0.5)))
    assert widget.explorer.threshold == pytest.approx(0.55, abs=0.01)


def test_clicking_a_dot_goes_to_its_lesion(widget, qtbot):
    widget.charts.tabs.setCurrentWidget(widget.charts.distances)
    chart = widget.charts.distances
    for row, place in enumerate(chart.places()):
        qtbot.mouseClick(chart, LEFT, pos=at(place))
        assert widget.explorer.iteration == widget.explorer.detections.found[row]


def test_settings_search_again(widget):
    search, explorer = widget.search, widget.explorer
    search.sigma.setValue(1.5)
    assert explorer.config.sigma == 1.5
    search.unit.setCurrentText("mm")
    search.sigma.setValue(2.4)
    np.testing.assert_allclose(explorer.config.sigma, (0.8, 2.4, 1.2))
    search.unit.setCurrentText("vox")
    search.window.setValue(9)
    search.lowest.setValue(0.5)
    search.patience.setValue(3)
    assert (explorer.config.window, explorer.config.min_alpha, explorer.config.patience) == (9, 0.5, 3)
    search.mode.setCurrentText("paper")
    assert explorer.config.mode == "paper"
    search.compare.setChecked(True)
    assert explorer.comparing
    search.estimate.click()
    assert explorer.config.sigma == "estimate"
    explorer.set_sigma(1.75)
    assert search.sigma.value() == pytest.approx(1.75, abs=0.01)


def test_differences_of_the_modes_are_listed_and_lead_there(widget, qtbot):
    widget.explorer.set_comparing(True)
    listed = widget.charts.differences
    differences = widget.explorer.comparison.differences
    assert [listed.item(i).text() for i in range(listed.count())] == [str(one) for one in differences]
    assert differences  # two of the peaks overlap
    widget.charts._go_to(0)
    np.testing.assert_allclose(widget.explorer.position, differences[0].point)
    widget.explorer.set_comparing(False)
    assert "other mode too" in listed.item(0).text()


def test_profile_along_every_axis_paints_in_every_phase(widget, qtbot):
    chart = widget.charts.profile
    for axis in range(3):
        widget.charts.axis.setCurrentIndex(axis)
        assert chart.axis == axis
        for cursor in (-1, 0, 1, 2):
            widget.explorer.go_to(cursor)
            picture = chart.grab().toImage()
            places = ((x, y) for x in range(45, picture.width()) for y in range(20, picture.height()))
            colours = (picture.pixelColor(*place) for place in places)
            yellow = sum(abs(c.red() - 255) + abs(c.green() - 213) + abs(c.blue() - 74) < 60 for c in colours)
            assert (yellow > 20) == (cursor >= 1), (axis, cursor)


def test_the_score_is_shown_live(widget):
    assert "precision 0.33" in widget.truth.score.text()
    assert "1 found, 2 false alarms, 1 missed" in widget.truth.score.text()
    widget.explorer.set_threshold(0.9)
    assert "precision 1.00" in widget.truth.score.text()
    widget.explorer.set_truth(None)
    assert "No truth" in widget.truth.score.text()


def test_every_control_has_a_tooltip_and_every_key_is_named(widget):
    kinds = (QAbstractButton, QAbstractSlider, QComboBox, QListWidget)
    inside = {widget.charts.tabs, *widget.charts.tabs.findChildren(QWidget)} - {
        widget.charts.axis, widget.charts.differences, widget.charts.profile, widget.charts.scores,
        widget.charts.distances,
    }  # fmt: skip
    bare = [
        part
        for part in widget.findChildren(QWidget)
        if isinstance(part, kinds)
        and not part.toolTip()
        and part not in inside
        and not part.objectName().startswith("qt_")
        and not isinstance(part.parentWidget(), kinds)
        and "ScrollBar" not in type(part).__name__
        and "Slider" not in type(part.parentWidget()).__name__
    ]
    assert bare == []
    tips = " ".join(part.toolTip() for part in widget.findChildren(QWidget)).replace("+", "-")
    for action in ACTIONS.values():
        assert re.search(rf"(?<![\w-]){action.key}(?![\w-])", tips), action


def test_a_chosen_points_layer_is_the_truth_at_once(viewer, widget, qtbot):
    placement = widget.session.placement
    viewer.add_points(placement.to_world(TRUTH[:1]), name="mine")
    row = widget.points.findText("mine")
    widget.points.setCurrentIndex(row)
    widget.points.activated.emit(row)  # what a person's choice leads to
    np.testing.assert_allclose(widget.explorer.truth, TRUTH[:1], atol=1e-6)


# ---------------------------------------------------------------------- playing
def test_playing_goes_on_by_itself_and_stops_at_the_end(widget, qtbot):
    widget.steps.speed.setValue(30)
    qtbot.mouseClick(widget.steps.buttons["play"], LEFT)
    assert widget.timer.isActive()
    assert widget.steps.buttons["play"].icon_name == "pause"
    qtbot.waitUntil(lambda: not widget.explorer.playing, timeout=20_000)
    assert widget.explorer.cursor == widget.explorer.trajectory.last
    assert not widget.timer.isActive()
    assert widget.steps.buttons["play"].icon_name == "play"


def test_hiding_the_dock_pauses(dock, widget):
    widget.explorer.play()
    dock.outer.hide()
    assert not widget.explorer.playing
    assert not widget.timer.isActive()
    dock.outer.show()


# ---------------------------------------------------------------------- worker
def test_a_drag_of_sigma_in_a_worker_shows_results_and_ends_with_the_newest(widget, qtbot):
    widget.explorer._refitter.inline_s = 0.0
    shown = []
    widget.explorer.trajectory_changed.connect(lambda: shown.append(widget.explorer.detections.sigma[0]))
    for sigma in np.linspace(1.0, 1.6, 25):
        widget.search.sigma.setValue(round(float(sigma), 2))
        qtbot.wait(5)
    qtbot.waitUntil(lambda: not widget.explorer.busy, timeout=20_000)
    assert widget.explorer.detections.sigma[0] == widget.explorer.config.sigma == 1.6
    assert len(shown) >= 3  # in between, too
    assert shown[-1] == 1.6
    assert "searching" not in widget.steps.status.text()


# ---------------------------------------------------------------------- layers come and go
def test_likely_heatmaps_are_chosen_and_images_are_listed(viewer, dock, volume):
    image = viewer.add_image(volume.data, name="T1")
    assert dock.widget.heatmap.listed == [image]
    assert dock.widget.heatmap.layer is None
    heatmap = add_heatmap(viewer, volume)
    assert dock.widget.heatmap.layer is heatmap
    dock.widget.begin()
    assert dock.widget.heatmap.listed == [image, heatmap]  # none of the plugin's own layers
    heatmap.name = "other"
    assert dock.widget.heatmap.itemText(2) == "other"
    viewer.layers.remove(heatmap)
    assert dock.widget.heatmap.layer is None
    assert dock.widget.session.view is None


def test_starting_without_a_layer_or_on_colours_says_so(viewer, dock, rng):
    dock.widget.begin()
    assert "no layer is chosen" in dock.widget.error.text()
    assert dock.widget.error.isVisibleTo(dock.widget)
    colours = viewer.add_image(rng.random((5, 5, 3)), rgb=True, name="photo")
    dock.widget.begin(colours)
    assert "'photo' has colours" in dock.widget.error.text()


def test_starting_again_and_again_leaves_one_set_of_layers(viewer, widget, volume, qtbot):
    names = [layer.name for layer in viewer.layers]
    for _ in range(4):
        widget.start.click()
        widget.explorer.step_forward()
        qtbot.wait(5)
    assert [layer.name for layer in viewer.layers] == names
    other = add_heatmap(viewer, volume_of(points=TRUTH, alpha=np.ones(2)))
    widget.begin(other)
    assert len(widget.explorer.steps) == 2
    assert len(viewer.layers) == len(names) + 1


# ---------------------------------------------------------------------- the end
def close_with_x(outer):
    """What the small cross of a dock does."""
    outer.destroyOnClose()


def test_closing_with_the_x_leaves_nothing_behind(viewer, dock, widget, qtbot):
    callbacks = len(viewer.mouse_drag_callbacks)
    widget.explorer.play()
    widget.search.compare.setChecked(True)
    assert viewer.keymap
    assert widget.timer.isActive()
    close_with_x(dock.outer)
    qtbot.wait(20)
    assert [layer.name for layer in viewer.layers] == ["heatmap"]
    assert viewer.layers["heatmap"].visible
    assert not viewer.keymap
    assert not widget.timer.isActive()
    assert not widget.explorer.playing
    assert len(viewer.mouse_drag_callbacks) == callbacks - 1
    for event in (viewer.dims.events.point, viewer.layers.events.inserted, viewer.layers.events.removed):
        owners = [callback[0]() for callback in event.callbacks if isinstance(callback, tuple)]
        assert not [owner for owner in owners if type(owner).__module__.startswith("napari_lesionkit")]


def test_a_closed_dock_is_forgotten(viewer, volume, qtbot):
    outer, inner = viewer.window.add_plugin_dock_widget("lesionkit", "Step through lesion detection")
    inner.begin(add_heatmap(viewer, volume))
    inner.explorer.step_forward()
    gone = weakref.ref(inner.session), weakref.ref(inner.explorer), weakref.ref(inner.session.view)
    close_with_x(outer)
    inner.deleteLater()
    del outer, inner
    for _ in range(3):
        qtbot.wait(20)
        gc.collect()
    assert [reference() for reference in gone] == [None, None, None]


def test_the_dock_can_be_opened_again(viewer, volume, qtbot):
    for _ in range(3):
        outer, inner = viewer.window.add_plugin_dock_widget("lesionkit", "Step through lesion detection")
        assert isinstance(inner, LesionkitWidget)
        inner.begin(viewer.layers[0] if len(viewer.layers) else add_heatmap(viewer, volume))
        inner.explorer.last()
        assert len(viewer.layers) == 5
        close_with_x(outer)
        qtbot.wait(10)
    assert len(viewer.layers) == 1


# ---------------------------------------------------------------------- the network
@pytest.fixture
def images(viewer):
    _, case = sample("gad")
    found = []
    for path in reversed(case.images):
        data, options, _ = nifti_layer(path)
        found.append(viewer.add_image(data, **options))
    return found[::-1]


def test_a_network_runs_beside_the_window(viewer, dock, images, qtbot, monkeypatch):
    panel = dock.widget.network
    panel.use("gad")
    assert [picker.layer for picker in panel._pickers] == images  # found by their names
    parts, threads = [], []
    original = panel._progressed
    monkeypatch.setattr(panel, "_progressed", lambda part: (parts.append(part), original(part)))
    panel.run.click()
    threads += [thread for thread in threading.enumerate() if thread.name == "lesionkit-network"]
    assert len(threads) == 1
    assert not panel.run.isEnabled()
    assert panel.stop.isEnabled()
    qtbot.waitUntil(lambda: panel.prediction is None, timeout=120_000)
    assert dock.widget.error.text() == ""
    assert parts[0] == 0.0
    assert parts[-1] == 1.0
    assert parts == sorted(parts)
    heatmap = viewer.layers["sub-01_ce-gad_T1w heatmap"]
    source = dock.widget.session.source
    assert getattr(source, "__wrapped__", source) is heatmap  # plugins see layers through a proxy
    assert dock.widget.explorer.config.sigma == SIGMA
    shipped = nifti_layer(sample("gad")[0].folder / "derivatives/lesionkit/sub-01/anat/sub-01_heatmap.nii.gz")[0]
    np.testing.assert_allclose(heatmap.data, shipped, atol=0.05 * shipped.max())


def test_a_network_can_be_cancelled(viewer, dock, images, qtbot):
    panel = dock.widget.network
    panel.use("gad")
    panel.start()
    prediction = panel.prediction
    panel.stop.click()
    qtbot.waitUntil(lambda: panel.prediction is None, timeout=60_000)
    assert prediction.wait(30)
    assert len(viewer.layers) == 2  # no heatmap
    assert panel.run.isEnabled()
    assert dock.widget.error.text() == ""


def test_what_a_network_cannot_use_is_said(viewer, dock, rng, tmp_path):
    panel, error = dock.widget.network, dock.widget.error
    panel.use("flair")
    panel.start()
    assert "wants a FLAIR image" in error.text()
    layer = viewer.add_image(rng.random((8, 8, 8)), name="foreign")
    panel._pickers[0].choose(layer)
    panel.start()
    assert "'foreign' does not say its orientation" in error.text()
    (tmp_path / "odd.safetensors").write_bytes(b"\x80\x04 no weights")
    panel.use(str(tmp_path / "odd.safetensors"))
    assert "is a pickle" in error.text()
    assert panel.checkpoint.currentText() == "flair"
    assert panel.prediction is None


def test_a_network_that_fails_says_why(viewer, dock, images, qtbot, volume):
    data, options, _ = volume_layer(volume, "of another grid")
    panel = dock.widget.network
    panel.use("gad")
    panel._pickers[1].choose(viewer.add_image(data, **options))
    panel.start()
    qtbot.waitUntil(lambda: panel.prediction is None, timeout=120_000)
    assert "grid" in dock.widget.error.text()
    assert panel.run.isEnabled()


def test_a_network_whose_process_is_lost_says_so(viewer, dock, images, qtbot):
    panel = dock.widget.network
    panel.use("gad")
    panel.start()
    qtbot.waitUntil(lambda: panel.prediction._process._process is not None, timeout=60_000)
    panel.prediction._process._process.kill()
    qtbot.waitUntil(lambda: panel.prediction is None, timeout=60_000)
    assert "process ended" in dock.widget.error.text()
    assert panel.run.isEnabled()


def test_closing_the_dock_stops_the_network(viewer, dock, images, qtbot):
    panel = dock.widget.network
    panel.use("gad")
    panel.start()
    prediction = panel.prediction
    close_with_x(dock.outer)
    assert prediction.wait(60)
    qtbot.wait(10)
    assert len(viewer.layers) == 2


@pytest.mark.parametrize(("low", "high", "most"), [(0, 1, 3), (-0.03, 0.02, 4), (0.5, 120.5, 8), (3, 3, 5), (-7, 9, 6)])
def test_ticks_are_round_and_few(low, high, most):
    found = ticks(low, high, most)
    assert 1 <= len(found) <= most + 1
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    if len(found) > 1:
        steps = np.diff(found)
        np.testing.assert_allclose(steps, steps[0])
        lead = steps[0] / 10 ** math.floor(math.log10(steps[0]))
        assert min(abs(lead - nice) for nice in (1, 2, 5, 10)) < 1e-6
