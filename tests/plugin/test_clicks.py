"""True points by clicks, on napari's model: setting, dragging, removing, undo, the live label."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from plugin_cases import SIGMA, TRUTH, add_heatmap

from lesionkit.labels import gaussian_heatmap
from napari_lesionkit.session import ACTIONS, Session


def press(session, voxels, *, modifiers=(), displayed=(1, 2), button=1):
    """Press at the first voxel, drag over the others, release: what napari's mouse callbacks get."""
    event = SimpleNamespace(type="mouse_press", button=button, modifiers=modifiers, dims_displayed=list(displayed))
    event.position = tuple(session.placement.to_world(voxels[0])[0])
    generators = [callback(session.viewer, event) for callback in session.viewer.mouse_drag_callbacks]

    def go_on():
        for generator in generators:
            next(generator, None)

    go_on()
    for voxel in voxels[1:]:
        event.type, event.position = "mouse_move", tuple(session.placement.to_world(voxel)[0])
        go_on()
    event.type = "mouse_release"
    go_on()


def test_clicks_do_nothing_unless_annotating(session):
    press(session, [(5.0, 5.0, 5.0)])
    np.testing.assert_allclose(session.explorer.truth, TRUTH, atol=1e-6)


def test_a_click_adds_a_point_where_it_is(session):
    session.set_annotating(True)
    press(session, [(5.25, 6.5, 7.0)])
    np.testing.assert_allclose(session.explorer.truth[-1], (5.25, 6.5, 7.0), atol=1e-9)
    assert session.view.truth.layer.shown.sum() == 3
    session.do("undo")
    assert len(session.explorer.truth) == 2
    session.do("redo")
    assert len(session.explorer.truth) == 3


def test_a_drag_moves_a_point_and_is_undone_at_once(session):
    session.set_annotating(True)
    press(session, [(4.2, 8.1, 30.0), (4.5, 9.0, 30.0), (5.0, 10.0, 30.0)])
    np.testing.assert_allclose(session.explorer.truth, [TRUTH[0], (5.0, 10.0, 30.0)], atol=1e-6)
    session.do("undo")
    np.testing.assert_allclose(session.explorer.truth, TRUTH, atol=1e-6)
    assert session.viewer.scene.camera.mouse_pan


def test_dragging_beside_a_point_pans_and_adds_nothing(session):
    session.set_annotating(True)
    press(session, [(10.0, 30.0, 5.0), (11.0, 31.0, 5.0)])
    np.testing.assert_allclose(session.explorer.truth, TRUTH, atol=1e-6)


def test_shift_removes_the_point_under_the_click(session):
    session.set_annotating(True)
    press(session, [(4.1, 8.0, 30.0)], modifiers=("Shift",))
    np.testing.assert_allclose(session.explorer.truth, TRUTH[:1], atol=1e-6)
    press(session, [(15.0, 40.0, 5.0)], modifiers=("Shift",))
    assert len(session.explorer.truth) == 1


@pytest.mark.parametrize(
    ("voxel", "options"),
    [((-3.0, 5.0, 5.0), {}), ((5.0, 5.0, 5.0), {"button": 2}), ((5.0, 5.0, 5.0), {"displayed": (0, 1, 2)})],
)
def test_clicks_outside_with_another_button_or_in_3d_add_nothing(session, voxel, options):
    session.set_annotating(True)
    press(session, [voxel], **options)
    assert len(session.explorer.truth) == 2


def test_the_label_follows_clicks_and_sigma(session):
    session.show_label(True)
    session.set_annotating(True)
    press(session, [(5.0, 6.0, 7.0)])
    for sigma in (SIGMA, 2.0):
        session.explorer.set_sigma(sigma)
        expected = gaussian_heatmap([*TRUTH, (5.0, 6.0, 7.0)], session.placement.shape, sigma)
        shown = session.placement.shown(session.view.label.data)
        np.testing.assert_allclose(shown, expected, atol=1e-6)
        assert session.view.label.contrast_limits[1] == pytest.approx(float(expected.max()))
    session.show_label(False)
    assert not session.view.label.visible


def test_drafting_needs_no_heatmap(model, volume):
    image = add_heatmap(model, volume)
    session = Session(model, inline_s=np.inf)
    session.draft(image, truth=np.zeros((0, 3)))
    assert session.annotating
    assert session.drafting
    assert session.explorer.steps == ()
    assert image.visible
    press(session, [(5.0, 6.0, 7.0)])
    press(session, [(9.0, 20.0, 25.0)])
    assert session.view.label.data.max() > 0
    assert float(session.explorer.label.sum()) == pytest.approx(2.0, abs=1e-3)
    session.close()


def test_points_of_another_layer_are_the_truth(session):
    layer = session.viewer.add_points([(0.0, 0.0, 0.0)], scale=(2, 2, 2))
    session.set_truth_layer(layer)
    np.testing.assert_allclose(session.explorer.truth, session.placement.from_world((0.0, 0.0, 0.0)))
    flat = session.viewer.add_points([(0.0, 0.0)], name="flat")
    with pytest.raises(ValueError, match="'flat' has points of 2 axes; 3 are wanted"):
        session.set_truth_layer(flat)


def test_every_action_has_a_key_of_its_own_that_napari_does_not_use(model):
    from napari.utils.shortcuts import default_shortcuts

    keys = [action.key for action in ACTIONS.values()]
    assert len(set(keys)) == len(keys)
    taken = {str(key).replace("+", "-") for bindings in default_shortcuts.values() for key in bindings}
    assert not taken & set(keys)


def test_keys_act_and_are_given_back(session):
    session.bind_keys()
    bound = {str(key).replace("+", "-"): function for key, function in session.viewer.keymap.items()}
    assert set(bound) == {action.key for action in ACTIONS.values()}
    for key, cursor in (("K", 0), ("K", 1), ("Shift-K", 2), ("J", 1), ("Shift-J", -1), ("W", 8), ("Q", -1)):
        bound[key](session.viewer)
        assert session.explorer.cursor == cursor
    bound["Shift-W"](session.viewer)
    assert session.explorer.threshold == 0.25
    bound["N"](session.viewer)
    assert session.explorer.config.mode == "paper"
    bound["Shift-N"](session.viewer)
    assert session.explorer.comparing
    bound["H"](session.viewer)
    assert session.explorer.playing
    bound["Shift-H"](session.viewer)
    assert not session.explorer.follow
    bound["G"](session.viewer)
    assert session.annotating
    session.stop()
    assert not session.annotating
    bound["K"](session.viewer)  # nothing is looked at: nothing happens
    session.unbind_keys()
    assert not session.viewer.keymap


def test_removing_the_heatmap_or_the_residual_ends_the_session(model, volume):
    session = Session(model, inline_s=np.inf)
    for which in ("residual", "source"):
        layer = add_heatmap(model, volume)
        session.start(layer)
        model.layers.remove(session.view.residual if which == "residual" else layer)
        assert session.view is None
        assert list(model.layers) == ([layer] if which == "residual" else [])
        model.layers.clear()
    session.close()
