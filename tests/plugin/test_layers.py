"""Layers on napari's model, without Qt: what they show, how they are placed, and how little they update."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from napari.components import ViewerModel
from plugin_cases import POINTS, SIGMA, TRUTH, add_heatmap, volume_of

from lesionkit.detection import FitConfig
from lesionkit.explorer import Explorer, Phase, ellipsoid_sections
from lesionkit.figures import STATUS_COLOURS
from lesionkit.io import write_volume
from lesionkit.volume import Volume
from napari_lesionkit.colours import VERDICTS, rgba
from napari_lesionkit.placement import METADATA, Placement
from napari_lesionkit.reader import get_reader
from napari_lesionkit.rings import lines_of
from napari_lesionkit.session import Session


def test_importing_layers_and_session_loads_no_qt():
    code = (
        "import sys, napari_lesionkit.session, napari_lesionkit.reader, napari_lesionkit.samples; "
        "print(*(m for m in ('qtpy', 'PyQt6', 'PySide6', 'vispy', 'torch', 'plotly') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_verdicts_look_as_in_the_reports():
    assert {k: VERDICTS[v] for k, v in (("TP", "tp"), ("FP", "fp"), ("FN", "fn"), ("detected", "kept"))} == dict(
        STATUS_COLOURS
    )


# ---------------------------------------------------------------------- placement
@pytest.mark.parametrize("codes", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_nifti_lies_the_right_way_round(tmp_path, codes):
    data = np.zeros((10, 20, 30), np.float32)
    data[7, 15, 25] = 1.0  # right, front, top in a RAS+ file
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (5.0, -6.0, 7.0)
    turned = data
    for axis, sign in enumerate(codes):
        if sign < 0:
            turned = np.flip(turned, axis)
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
    path = tmp_path / "image.nii.gz"
    write_volume(path, Volume(turned, affine), native=False)
    reader = get_reader(str(path))
    assert reader is not None
    ((shown, options, kind),) = reader(str(path))
    z, y, x = np.unravel_index(int(shown.argmax()), shown.shape)
    assert (kind, shown.shape, options["scale"]) == ("image", (30, 20, 10), (3.0, 2.0, 1.0))
    assert z < 15  # the first slice is the top
    assert y < 10  # the front is up
    assert x < 5  # the patient's right is on the left
    world = np.array((z, y, x)) * options["scale"] + options["translate"]
    np.testing.assert_allclose(world, -np.array([5 + 7.0, -6 + 2 * 15.0, 7 + 3 * 25.0])[::-1])
    assert options["units"] == ("mm", "mm", "mm")
    assert get_reader("image.png") is None


def test_voxels_layers_and_world_agree(volume):
    viewer = ViewerModel()
    layer = add_heatmap(viewer, volume)
    placement = Placement.of_layer(layer)
    assert placement.shape == volume.shape
    np.testing.assert_allclose(placement.to_voxel(placement.to_layer(POINTS)), POINTS)
    np.testing.assert_allclose(placement.from_world(placement.to_world(POINTS)), POINTS)
    index = tuple(placement.to_layer([(9, 20, 25)])[0].astype(int))
    assert layer.data[index] == volume.data[9, 20, 25]
    np.testing.assert_allclose(placement.to_world(POINTS), -volume.to_mm(POINTS)[:, ::-1], atol=1e-9)
    np.testing.assert_array_equal(placement.volume(layer.data).data, volume.data)
    np.testing.assert_array_equal(placement.volume(layer.data).affine, volume.affine)


def test_layers_of_other_readers_stay_as_they_are(rng):
    viewer = ViewerModel()
    layer = viewer.add_image(rng.random((6, 7, 8)), scale=(3, 1, 1), translate=(1, 2, 3))
    placement = Placement.of_layer(layer)
    assert not placement.turned
    np.testing.assert_array_equal(placement.shown(layer.data), layer.data)
    np.testing.assert_allclose(placement.to_world([(1, 1, 1)]), [(4, 3, 4)])
    np.testing.assert_allclose(placement.affine, [[3, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [({}, (4, 4, 4, 4), "4 axes"), ({"rgb": True}, (4, 4, 3), "colours"), ({"rotate": 20}, (4, 4), "rotated")],
)
def test_layers_that_hold_no_map_are_refused(options, shape, message):
    layer = ViewerModel().add_image(np.random.default_rng(0).random(shape), name="odd", **options)
    with pytest.raises(ValueError, match=f"'odd'.*{message}"):
        Placement.of_layer(layer)


# ---------------------------------------------------------------------- what is shown
def test_the_residual_is_the_explorers_own_array(view):
    assert np.shares_memory(view.residual.data, view.explorer.residual)
    view.explorer.last()
    np.testing.assert_array_equal(view.residual.data, view.placement.shown(view.explorer.residual))
    low, high = view.residual.contrast_limits
    assert low == -high  # signed: 0 is the middle of the colours


def test_steps_show_and_hide_detections(view):
    explorer, layer = view.explorer, view.detections.layer
    assert not layer.shown.any()
    for cursor in (2, 5, 8, 5, -1):
        explorer.go_to(cursor)
        assert layer.shown.sum() == len(explorer.lesions)
        np.testing.assert_allclose(layer.data[layer.shown], view.placement.to_layer(explorer.lesions.mu))


def borders(spots):
    return spots.layer.border_color[spots.layer.shown]


def test_threshold_and_truth_colour_what_is_shown(view):
    explorer = view.explorer
    explorer.last()
    assert explorer.outcome.verdicts == ("tp", "fp", "fp")
    faces = view.detections.layer.face_color[view.detections.layer.shown]
    np.testing.assert_allclose(faces, [rgba(VERDICTS[v]) for v in ("tp", "fp", "fp")], atol=1e-6)
    np.testing.assert_allclose(borders(view.truth), [rgba(VERDICTS[v]) for v in ("tp", "fn")], atol=1e-6)
    explorer.set_threshold(0.6)
    assert tuple(view.detections.layer.face_color[2, :3]) == tuple(rgba(VERDICTS["below"])[:3])
    explorer.set_threshold(1.4)
    np.testing.assert_allclose(borders(view.truth), [rgba(VERDICTS["fn"])] * 2, atol=1e-6)
    explorer.set_truth(None)
    assert not view.truth.layer.shown.any()
    assert explorer.outcome.verdicts == ("below",) * 3


def test_following_moves_the_slice(view):
    view.viewer.dims.set_current_step(0, 0)
    view.explorer.go_to_step(2, Phase.MAXIMUM)
    step = view.explorer.steps[2]
    assert view.viewer.dims.current_step[0] == view.placement.shape[2] - 1 - step.voxel[2]
    view.explorer.set_follow(False)
    view.viewer.dims.set_current_step(0, 3)
    view.explorer.go_to_step(0, Phase.MAXIMUM)
    assert view.viewer.dims.current_step[0] == 3
    assert view.explorer.position[2] == view.placement.shape[2] - 1 - 3


def test_moving_the_slider_moves_the_position_along_the_hidden_axis_only(view):
    view.explorer.go_to_step(0, Phase.FIT)
    before = view.explorer.position
    view.viewer.dims.set_current_step(0, 5)
    assert view.explorer.position == (*before[:2], view.placement.shape[2] - 1 - 5)
    view.viewer.dims.order = (1, 0, 2)
    view.viewer.dims.set_current_step(1, 7)
    assert view.explorer.position[1] == view.placement.shape[1] - 1 - 7


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("away", [0, 1, -2])
def test_rings_are_exact_sections_in_every_plane(view, order, away):
    explorer = view.explorer
    view.viewer.dims.order = order
    explorer.go_to_step(0, Phase.FIT)
    explorer.set_follow(False)
    axis = view.placement.voxel_axis(order[0])
    place = np.array(explorer.position)
    place[axis] = np.rint(place[axis]) + away
    explorer.move_to(place)
    layer, n = view.lines.layer, view.lines._used
    start = layer.data[:n, 0] * layer.scale + layer.translate
    voxels = view.placement.from_world(start)
    np.testing.assert_allclose(voxels[:, axis], place[axis], atol=1e-9)  # in the slice that is shown
    expected = [
        ellipsoid_sections(explorer.fit.mu[None], explorer.detections.sigma, origin=place, normal=np.eye(3)[axis], k=k)
        for k in (1.0, 2.0)
    ]
    ends = np.concatenate([rings.outlines(64).reshape(-1, 3) for rings in expected])
    rings = voxels[: len(ends)]
    np.testing.assert_allclose(rings, ends, atol=1e-9)
    radius = np.linalg.norm((rings - explorer.fit.mu) / explorer.detections.sigma, axis=1)
    assert np.isclose(radius, 2.0).any() or np.isclose(radius, 1.0).any() or abs(away) > 2


def test_lines_are_equally_thick_in_every_direction(view):
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        view.viewer.dims.order = order
        scale = view.lines.layer.scale
        assert scale[order[1]] == scale[order[2]] == min(view.placement.scale)
        assert scale[order[0]] == view.placement.scale[order[0]]
        assert view.viewer.dims.range[order[0]].step == view.placement.scale[order[0]]  # the slider keeps its steps


def test_everything_at_once_in_three_dimensions(view):
    view.explorer.last()
    view.viewer.dims.ndisplay = 3
    assert view.lines._used == len(lines_of(view.explorer, None)) > 3 * 64
    view.explorer.step_back()
    assert view.lines._used == len(lines_of(view.explorer, None))


def test_nothing_is_drawn_outside_the_map():
    volume = volume_of(points=np.array([(0.2, 1.0, 0.4)]), alpha=np.array([1.0]))
    explorer = Explorer(volume, config=FitConfig(sigma=SIGMA), inline_s=np.inf)
    explorer.last()
    lines = lines_of(explorer, (2, 0.0))
    assert len(lines) > 0
    for ends in (lines.start, lines.end):
        assert (ends >= -0.5).all()
        assert (ends <= np.array(volume.shape) - 0.5).all()


# ---------------------------------------------------------------------- how little is done
def counts(view):
    layers = {"residual": view.residual, "rings": view.lines.layer, "detections": view.detections.layer,
              "truth": view.truth.layer}  # fmt: skip
    found = dict.fromkeys(layers, 0)
    for name, layer in layers.items():
        layer.events.set_data.connect(lambda event, name=name: found.__setitem__(name, found[name] + 1))

    def take():
        result = {name: n for name, n in found.items() if n}
        found.update(dict.fromkeys(layers, 0))
        return result

    return take


def test_each_layer_is_updated_once_a_step_and_only_if_it_changes(view):
    """Guards the cost of a step on any machine: it is napari's updates that take time."""
    explorer = view.explorer
    explorer.set_follow(False)
    take = counts(view)
    explorer.step_forward()
    assert take() == {"rings": 1}
    explorer.step_forward()
    assert take() == {"rings": 1}
    explorer.step_forward()
    assert take() == {"residual": 1, "rings": 1, "detections": 1}
    explorer.step_back()
    assert take() == {"residual": 1, "rings": 1, "detections": 1}
    explorer.set_threshold(0.21)
    assert take() == {}
    explorer.last()
    assert take() == {"residual": 1, "rings": 1, "detections": 1}
    explorer.set_threshold(0.6)
    assert take() == {"rings": 1, "detections": 1}
    explorer.set_threshold(1.4)  # now the truth has another verdict
    assert take() == {"rings": 1, "detections": 1, "truth": 1}


def test_a_step_to_another_slice_updates_everything_once(view):
    view.explorer.go_to_step(0, Phase.SUBTRACT)
    view.viewer.dims.set_current_step(0, 0)
    take = counts(view)
    view.explorer.go_to_step(2, Phase.FIT)
    assert set(take().values()) == {1}


def test_no_layer_is_made_or_replaced_while_stepping(view):
    before = list(view.viewer.layers)
    arrays = view.residual.data, view.lines.layer.data, view.detections.layer.data
    view.explorer.last()
    kept = view.residual.data, view.lines.layer.data
    view.explorer.first()
    view.explorer.last()
    assert list(view.viewer.layers) == before
    assert view.residual.data is arrays[0] is kept[0]
    assert view.lines.layer.data is kept[1]


# ---------------------------------------------------------------------- two dimensions, end
def test_two_dimensional_maps_are_stepped_through(rng):
    from lesionkit.labels import gaussian_heatmap

    viewer = ViewerModel()
    layer = viewer.add_image(gaussian_heatmap([(10.3, 12.1), (20.0, 24.0)], (32, 40), 1.5), name="flat")
    session = Session(viewer, inline_s=np.inf)
    session.start(layer, config=FitConfig(sigma=1.5))
    session.explorer.last()
    assert len(session.explorer.lesions) == 2
    assert session.view.lines._used == 2 * 64 + 2 * 64
    session.close()
    assert list(viewer.layers) == [layer]


def test_closing_leaves_the_viewer_as_it_was(model, volume):
    layer = add_heatmap(model, volume)
    session = Session(model, inline_s=np.inf)
    session.bind_keys()
    listeners = [len(e.callbacks) for e in (model.dims.events.point, model.layers.events.removed)]
    session.start(layer)
    session.explorer.set_comparing(True)
    session.show_label(True)
    assert not layer.visible
    session.close()
    assert list(model.layers) == [layer]
    assert layer.visible
    assert not model.keymap
    assert session._on_press not in model.mouse_drag_callbacks
    after = [len(e.callbacks) for e in (model.dims.events.point, model.layers.events.removed)]
    assert after == [listeners[0], listeners[1] - 1]
    session.explorer.go_to(3)  # and nobody listens


def test_metadata_say_how_a_map_is_searched(session, volume):
    assert session.explorer.config.sigma == SIGMA
    assert session.explorer.threshold == 0.2
    np.testing.assert_allclose(session.explorer.truth, TRUTH, atol=1e-6)
    assert session.source.metadata[METADATA]["sigma"] == SIGMA


def test_sigma_is_estimated_where_nothing_is_known(model):
    apart = np.array([(6.0, 12.2, 10.0), (12.3, 30.0, 28.0)])
    layer = model.add_image(volume_of(points=apart, alpha=np.ones(2), sigma=1.6).data, name="heatmap")
    session = Session(model, inline_s=np.inf)
    session.start(layer)
    assert session.explorer.config.sigma == "estimate"
    assert session.explorer.label_sigma[0] == pytest.approx(1.6, abs=0.05)
    session.close()
