"""What the browser is told, and what it may ask: the same state in two views, messages, recordings, lessons."""

from __future__ import annotations

import base64
import gzip
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lesionkit.checkpoints import load_checkpoint
from lesionkit.detection import FitConfig
from lesionkit.explorer import Explorer
from lesionkit.io import write_volume
from lesionkit.labels import gaussian_heatmap
from lesionkit.model import UNet
from lesionkit.samples import real_patients, sample
from lesionkit.training import load_case
from lesionkit.volume import Volume
from lesionkit.widgets import ExplorerWidget, compare_sigmas, explore, lessons
from lesionkit.widgets.cases import SAMPLES, SCENES, own_case, sample_case, user_case
from lesionkit.widgets.lesson import Drawing, Lesson, Line, Slider, chart
from lesionkit.widgets.live import compare_maps, loss_share
from lesionkit.widgets.packing import pack_case, pack_trajectory
from lesionkit.widgets.printing import print_explorer

POINTS = np.array([(8.2, 9.1, 7.7), (8.4, 9.0, 10.4), (14.0, 5.2, 12.3)])
HEATMAP = gaussian_heatmap(POINTS, (20, 18, 16), 1.0, weights=[1.0, 0.8, 0.4])


def explorer_of(**options) -> Explorer:
    return Explorer(HEATMAP, truth=POINTS[:2], inline_s=float("inf"), **options)


def say(widget: ExplorerWidget, command: str, value: object = None, ack: int = 1) -> None:
    widget._hear(widget, {"command": command, "value": value, "ack": ack}, [])


def lesions_of(packed: dict, n: int) -> dict:
    """Replay the changes as the browser does."""
    lesions: dict = {}
    for change in packed["changes"][:n]:
        for found in change["drop"]:
            del lesions[found]
        lesions.update({found: values for found, *values in change["set"]})
    return lesions


def test_volumes_survive_packing() -> None:
    scene, image, heat = pack_case(explorer_of(image=1000 * HEATMAP), "title")
    levels = np.frombuffer(gzip.decompress(heat), "<u2").reshape(scene["shape"])
    shown = levels / 65535 * (scene["heat_high"] - scene["heat_low"]) + scene["heat_low"]
    np.testing.assert_allclose(shown, HEATMAP, atol=HEATMAP.max() / 65535)
    assert np.frombuffer(gzip.decompress(image), np.uint8).max() == 255
    json.dumps(scene, allow_nan=False)


def test_large_volumes_are_thinned_and_positions_are_not(monkeypatch) -> None:
    monkeypatch.setattr("lesionkit.widgets.packing.MOST_VOXELS", 800)
    explorer = explorer_of(affine=np.diag([1.0, 2.0, 3.0, 1.0]))
    scene, _, _ = pack_case(explorer, "")
    assert scene["stride"] == 2
    assert scene["shape"] == [10, 9, 8]
    assert scene["spacing"] == [2.0, 4.0, 6.0]
    steps = pack_trajectory(explorer.trajectory)
    assert lesions_of(steps, len(explorer.steps))[0][0] == pytest.approx(explorer.detections.mu[0][0], abs=1e-3)


@pytest.mark.parametrize("mode", ["joint", "paper"])
def test_replayed_changes_are_the_lesions_of_each_moment(mode) -> None:
    explorer = explorer_of(config=FitConfig(mode=mode))
    packed = pack_trajectory(explorer.trajectory)
    json.dumps(packed, allow_nan=False)
    for n, moment in enumerate(explorer.trajectory.moments):
        lesions = lesions_of(packed, n)
        assert tuple(lesions) == moment.found
        for values, mu, alpha in zip(lesions.values(), moment.mu, moment.alpha, strict=True):
            np.testing.assert_allclose(values, [*mu, alpha], rtol=1e-4, atol=1e-4)


def test_two_views_show_one_state() -> None:
    explorer = explorer_of()
    first, second = ExplorerWidget(explorer), ExplorerWidget(explorer)
    say(first, "go_to", 4)
    say(first, "set_threshold", 0.6, ack=2)
    assert second.frame["cursor"] == explorer.cursor == 4
    assert second.frame["threshold"] == 0.6
    assert (first.frame["ack"], second.frame["ack"]) == (2, 0)
    first.close()
    explorer.go_to(1)
    assert (first.frame["cursor"], second.frame["cursor"]) == (4, 1)


@pytest.mark.parametrize(
    ("command", "value", "read", "expected"),
    [("set_sigma", 1.2, "sigma", 1.2), ("set_window", 5, "window", 5), ("set_mode", "paper", "mode", "paper"),
     ("move_to", [1, 2, 3], "position", [1.0, 2.0, 3.0]), ("set_follow", False, "follow", False),
     ("set_speed", 7, "speed", 7.0), ("toggle_playing", None, "playing", True), ("jump_to_next", "kept", "cursor", 2),
     ("show_answer", True, "answer", True)],
)  # fmt: skip
def test_commands_reach_the_state_and_come_back(command, value, read, expected) -> None:
    widget = ExplorerWidget(explorer_of())
    say(widget, command, value, ack=7)
    assert widget.frame[read] == expected
    assert widget.frame["ack"] == 7
    assert widget.frame["error"] == ""


@pytest.mark.parametrize(
    ("command", "value", "message"),
    [("set_window", 4, "odd"), ("jump_to_next", "lost", "kind must be one of"), ("load", None, "command must be"),
     ("__init__", None, "command must be"), ("set_sigma", 0, "sigma")],
)  # fmt: skip
def test_whatever_goes_wrong_is_shown_and_answered(command, value, message) -> None:
    widget = ExplorerWidget(explorer_of())
    say(widget, command, value, ack=3)
    assert message in widget.frame["error"]
    assert widget.frame["ack"] == 3
    say(widget, "go_to", 2, ack=4)
    assert widget.frame["error"] == ""


def test_another_map_is_sent_once() -> None:
    explorer = explorer_of()
    widget = ExplorerWidget(explorer)
    heat = widget.heat
    say(widget, "go_to", 3)
    assert widget.heat is heat
    explorer.load(HEATMAP[:10], truth=None)
    assert widget.scene["shape"] == [10, 18, 16]
    assert widget.frame["truth"] is None


def test_a_flat_map_is_a_volume_of_one_slice() -> None:
    widget = explore(gaussian_heatmap([(8.0, 9.0)], (20, 18), 1.0), config=FitConfig(sigma=1.0))
    assert (widget.scene["ndim"], widget.scene["shape"]) == (2, [20, 18, 1])
    assert widget._repr_mimebundle_()[0]["image/png"]


def test_output_has_a_picture_that_is_the_same_each_time() -> None:
    widget = ExplorerWidget(explorer_of(image=HEATMAP), overlay="residual")
    say(widget, "go_to", 2)
    pictures = [widget._repr_mimebundle_()[0]["image/png"] for _ in range(2)]
    assert pictures[0] == pictures[1]
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")


def test_two_sigmas_share_position_and_threshold() -> None:
    box = compare_sigmas(explorer_of(), 1.0, 1.5)
    first, second = (view.explorer for view in box.children)
    assert first.config.sigma != second.config.sigma
    first.move_to((3, 4, 5))
    second.set_threshold(0.33)
    assert second.position == (3.0, 4.0, 5.0)
    assert first.threshold == 0.33


def test_picture_says_no_more_than_the_answer_allows() -> None:
    hidden, shown = explorer_of(image=HEATMAP), explorer_of(image=HEATMAP)
    for explorer in (hidden, shown):
        explorer.go_to_step(0)
    untold = print_explorer(hidden)
    shown.show_answer()
    assert print_explorer(shown) != untold
    hidden.set_truth(POINTS + 5)
    assert print_explorer(hidden) == untold


@pytest.mark.parametrize("name", [*SAMPLES, *SCENES])
def test_samples_can_be_shown(name) -> None:
    case = sample_case(name)
    assert case.heatmap.data.max() > 0
    assert case.truth is not None
    assert case.image is None or case.image.same_grid(case.heatmap)


def test_a_real_patient_is_shown_where_one_was_fetched_and_the_users_image_before_it(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LESIONKIT_DATA", raising=False)
    assert own_case() is None
    assert "lesionkit fetch ljubljana" in capsys.readouterr().out
    patient = tmp_path / "ljubljana" / "cross" / "patient07"
    patient.mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])  # not RAS+
    lesions = np.zeros((40, 36, 32), np.int16)
    lesions[10:13, 20:24, 15:18] = 1
    lesions[30:33, 8:10, 6:8] = 2
    image = (100 + 5 * rng.standard_normal(lesions.shape) + 80 * (lesions > 0)).astype(np.float32)
    image[np.pad(np.zeros((32, 28, 24), bool), 4, constant_values=True)] = 0  # skull-stripped
    for name, data in (("FLAIR", image), ("lesions", lesions)):
        write_volume(patient / f"{name}.nii.gz", Volume(data, affine))
    case = own_case()
    assert case is not None
    assert case.title.startswith("patient07")
    assert case.image is not None
    # the truth is where the image is bright, whichever way the axes run
    assert (case.image.data[tuple(np.rint(case.truth).astype(int).T)] > 150).all()
    assert case.explorer().score is not None
    assert own_case(patient / "FLAIR.nii.gz").title == "FLAIR"
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path / "ljubljana"))
    assert real_patients() == [patient]


def test_lines_and_rings_keep_their_colours_beside_an_mri() -> None:
    image = 100 + 20 * np.random.default_rng(0).standard_normal(HEATMAP.shape)
    explorer = explorer_of(image=image)
    explorer.last()
    for png in (
        print_explorer(explorer),
        lessons.sigma_on_a_case(sample_case("flair"))._repr_mimebundle_()[0]["image/png"],
    ):
        data = png if isinstance(png, bytes) else base64.b64decode(png)
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3).astype(int)
        assert (pixels == 255).all(axis=1).any()
        blue_or_green = [(47, 191, 143), (74, 168, 255)]
        assert min(np.abs(pixels - colour).max(axis=1).min() for colour in blue_or_green) <= 6


def test_loss_of_a_whole_case_is_a_share_of_predicting_nothing() -> None:
    case, shipped = load_case(sample("gad")[1]), load_checkpoint("gad")
    share = loss_share(shipped.model, case, sigma=1.25)
    assert 0 < share < 1
    torch.manual_seed(0)
    assert loss_share(UNet(shipped.model.config).eval(), case, sigma=1.25) > 1
    picture = compare_maps({"shipped": shipped}, case)
    assert picture.data == compare_maps({"shipped": shipped}, case).data
    assert Image.open(io.BytesIO(picture.data)).width > 400


def test_unknown_sample_and_missing_image_say_what_is_wanted() -> None:
    with pytest.raises(ValueError, match="name must be one of"):
        sample_case("nothing")
    with pytest.raises(ValueError, match="an image or --heatmap"):
        user_case([])


def test_a_lesson_refuses_what_its_controls_do_not_have() -> None:
    lesson = lessons.gating()
    with pytest.raises(ValueError, match="distance must lie between"):
        lesson.change(distance=99.0)
    with pytest.raises(ValueError, match="gate must be one of"):
        lesson.change(gate="sometimes")
    with pytest.raises(ValueError, match="no control 'x'"):
        lesson.change(x=1)
    lesson._hear(lesson, {"values": {"distance": 99.0}, "ack": 2}, [])
    assert "distance must lie" in lesson.error
    lesson._hear(lesson, {"values": {"distance": 9.0}, "ack": 3}, [])
    assert (lesson.error, lesson.values["distance"], lesson.ack) == ("", 9.0, 3)


def test_a_lesson_that_fails_says_so() -> None:
    def draw(x: float) -> Drawing:
        if x > 1:
            raise RuntimeError("out of luck")
        return Drawing([chart("", [Line(x=[0, 1], y=[x, np.nan])], x=(0, 1), y=(0, 1))], "")

    lesson = Lesson(draw, x=Slider(label="x", value=0.0, low=0.0, high=2.0, step=1.0))
    lesson._hear(lesson, {"values": {"x": 2.0}, "ack": 1}, [])
    assert lesson.error == "out of luck"
    assert lesson.values == {"x": 0.0}
    assert lesson.panels[0]["spec"]["series"][0]["y"] == [0.0, None]


def test_two_peaks_two_sigma_apart_have_one_maximum_and_joint_mode_tells_them_apart() -> None:
    lesson = lessons.fused_peaks(separation=2.0)
    assert lesson.note.endswith("1 maximum")
    assert lesson.panels[1]["title"].startswith("joint refit: 2 found")
    lesson.change(separation=3.0)
    assert lesson.note.endswith("2 maxima")
