"""What a person sees: real pixels of the real canvas."""

from __future__ import annotations

import numpy as np
import pytest
from plugin_cases import POINTS, SIGMA, add_heatmap, volume_of

from lesionkit.explorer import Phase
from napari_lesionkit.colours import CURRENT, RIVAL, VERDICTS


def pixels(widget):
    return widget.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)


def like(picture, colour, tolerance=40):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(picture - rgb).max(-1) < tolerance


def zoom(widget):
    return widget.viewer.scene.camera.zoom


def extent_mm(mask, widget):
    rows, columns = np.nonzero(mask)
    return (np.ptp(rows) + 1) / zoom(widget), (np.ptp(columns) + 1) / zoom(widget)


@pytest.mark.parametrize(("order", "size"), [((0, 1, 2), (1.0, 3.0)), ((1, 0, 2), (2.0, 3.0)), ((2, 0, 1), (2.0, 1.0))])
def test_the_outer_ring_is_four_sigma_wide_in_mm_in_every_plane(widget, qtbot, order, size):
    """Voxels of 3 x 1 x 2 mm make ellipses of the spheres; away from the centre they are exactly smaller."""
    widget.viewer.dims.order = order
    widget.viewer.reset_view()
    widget.explorer.go_to_step(2, Phase.FIT)  # stands alone
    for layer in (widget.session.view.residual, widget.session.view.truth.layer):
        layer.visible = False
    qtbot.wait(20)
    axis = widget.session.placement.voxel_axis(order[0])
    fit = widget.explorer.fit
    off = (np.rint(fit.mu[axis]) - fit.mu[axis]) / SIGMA
    expected = 2 * np.sqrt(4.0 - off**2) * SIGMA * np.array(size)
    measured = extent_mm(like(pixels(widget), CURRENT, 30), widget)  # not the corners of the window
    np.testing.assert_allclose(measured, expected, atol=0.5)


def test_going_back_gives_the_same_pixels(widget):
    widget.explorer.move_to(POINTS[0])
    widget.explorer.set_follow(False)  # else the start is seen on the slice that one comes from
    seen = {}
    for cursor in (-1, 0, 1, 2, 5, 8):
        widget.explorer.go_to(cursor)
        seen[cursor] = pixels(widget)
    assert seen[-1].std() > 3  # not a black canvas
    for cursor in (5, 2, 1, 0, -1):
        widget.explorer.go_to(cursor)
        assert np.abs(pixels(widget) - seen[cursor]).max() <= 2, cursor


def test_subtracting_takes_the_warm_colours_away_and_marks_the_lesion(widget, qtbot):
    widget.explorer.go_to_step(2, Phase.MAXIMUM)
    widget.explorer.set_truth(None)
    before = pixels(widget)
    widget.explorer.go_to_step(2, Phase.SUBTRACT)
    after = pixels(widget)
    warm = [int(((p[..., 0] > 180) & (p[..., 1] > 60) & (p[..., 2] < 110) & ~like(p, CURRENT, 60)).sum())
            for p in (before, after)]  # fmt: skip
    assert warm[0] > 40
    assert warm[1] < 0.1 * warm[0]
    assert like(after, VERDICTS["kept"]).sum() > 20
    assert like(before, VERDICTS["kept"]).sum() == 0


def test_verdicts_are_seen_in_their_colours(widget):
    explorer = widget.explorer
    explorer.last()
    for row, verdict in enumerate(explorer.outcome.verdicts):
        explorer.move_to(explorer.outcome.mu[row])
        assert like(pixels(widget), VERDICTS[verdict]).sum() > 20, verdict
    missed = explorer.truth[1]
    explorer.move_to(missed)
    assert like(pixels(widget), VERDICTS["fn"]).sum() > 20
    explorer.set_threshold(1.4)
    explorer.move_to(explorer.outcome.mu[2])
    assert like(pixels(widget), VERDICTS["fp"]).sum() == 0


def test_subtracting_too_much_is_blue(viewer, dock):
    volume = volume_of(points=POINTS[2:], alpha=np.array([0.5]))
    dock.widget.begin(add_heatmap(viewer, volume, sigma=2.2))  # too wide: its flanks go below zero
    viewer.reset_view()
    dock.widget.explorer.last()
    picture = pixels(dock.widget)
    assert float(dock.widget.explorer.residual.min()) < 0
    assert ((picture[..., 2] > 70) & (picture[..., 0] < 40)).sum() > 40


def test_the_other_mode_is_seen_beside_the_one_that_is_shown(widget):
    widget.explorer.last()
    assert like(pixels(widget), RIVAL).sum() == 0
    widget.explorer.set_comparing(True)
    widget.explorer.move_to(widget.explorer.comparison.paper.mu[0])
    assert like(pixels(widget), RIVAL).sum() > 20
    widget.explorer.set_comparing(False)
    assert like(pixels(widget), RIVAL).sum() == 0


def test_layers_can_be_removed_and_drawn_again(widget, qtbot):
    """Without the window's OpenGL contexts being made current this ends the process with Mesa."""
    for _ in range(4):
        widget.explorer.go_to(2)
        qtbot.wait(10)
        widget.session.stop()
        qtbot.wait(10)
        widget.begin(widget.viewer.layers["heatmap"])
        qtbot.wait(10)
    widget.explorer.go_to(2)  # at the start the views look at an empty middle
    qtbot.waitUntil(lambda: pixels(widget).std() > 3, timeout=20_000)


def test_three_dimensions_are_drawn(widget, qtbot):
    widget.explorer.go_to_step(2, Phase.FIT)
    widget.viewer.dims.ndisplay = 3
    qtbot.wait(20)
    assert like(pixels(widget), CURRENT, 70).sum() > 20
    widget.viewer.dims.ndisplay = 2


def test_a_click_on_the_canvas_sets_a_point_there(widget, qtbot):
    """From the mouse to the truth, through Qt, vispy and napari."""
    from qtpy.QtCore import QPoint, Qt

    canvas = widget.viewer.window._qt_viewer.canvas
    widget.viewer.layers.selection.active = widget.session.view.residual
    widget.session.set_annotating(True)
    native = canvas.native
    place = QPoint(native.width() // 2 + 40, native.height() // 2 + 30)
    qtbot.mouseMove(native, place)
    qtbot.mouseClick(native, Qt.MouseButton.LeftButton, pos=place)
    qtbot.wait(20)
    assert len(widget.explorer.truth) == 3
    camera = widget.viewer.scene.camera
    world = np.array(camera.center[1:]) + np.array([30, 40]) / zoom(widget)
    clicked = widget.session.placement.to_world(widget.explorer.truth[2])[0, 1:]
    np.testing.assert_allclose(clicked, world, atol=2.5 / zoom(widget))
