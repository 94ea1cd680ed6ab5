"""The explorer: exactness, signals, worker, readings, and random actions against a fresh search."""

from __future__ import annotations

import math
import queue
import subprocess
import sys
import threading
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lesionkit.detection import FitConfig, detect
from lesionkit.explorer import Explorer, Phase, Trajectory, ellipsoid_sections
from lesionkit.explorer import refit as refit_module
from lesionkit.explorer import trajectory as trajectory_module
from lesionkit.labels import gaussian_heatmap
from lesionkit.matching import match_points
from lesionkit.simulate.scenes import pair
from lesionkit.volume import Volume

POINTS = np.array([(8.2, 9.1, 7.7), (8.4, 9.0, 9.9), (14.0, 5.2, 12.3), (4.1, 15.0, 14.2)])
ALPHA = np.array([1.0, 0.8, 0.5, 0.15])
SIGNALS = sorted(name.removesuffix("_changed") for name in dir(Explorer) if name.endswith("_changed"))


def crowded(shape=(20, 20, 20), sigma=1.0, seed=0):
    rng = np.random.default_rng(seed)
    weights = ALPHA if len(shape) == 3 else ALPHA * 1.1
    points = POINTS[:, : len(shape)]
    heatmap = gaussian_heatmap(points, shape, sigma, weights=weights, border="truncate", dtype=np.float32)
    return heatmap + np.float32(0.02 * heatmap.max()) * rng.standard_normal(shape).astype(np.float32)


HEATMAP = crowded()


def explorer_of(heatmap=HEATMAP, **options) -> Explorer:
    return Explorer(heatmap, **({"inline_s": math.inf} | options))


class Recorder:
    """Counts what fires, and copies what it is told: a view."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.fired: list[str] = []
        self.arguments: dict[str, tuple] = {}
        self.residual = explorer.residual.copy()
        for name in SIGNALS:
            getattr(explorer, f"{name}_changed").connect(self.listener(name), check_nargs=False)

    def listener(self, name):
        def hear(*arguments) -> None:
            self.fired.append(name)
            self.arguments[name] = arguments
            if name == "residual":
                if self.residual.shape != self.explorer.residual.shape:
                    self.residual = np.zeros_like(self.explorer.residual)
                for box in arguments[0]:
                    self.residual[box] = self.explorer.residual[box]

        return hear

    def take(self) -> list[str]:
        fired, self.fired = self.fired, []
        return fired


# ---------------------------------------------------------------------- walking
def test_phases_follow_each_other_and_signals_fire_once():
    explorer = explorer_of()
    view = Recorder(explorer)
    assert (explorer.cursor, explorer.phase, explorer.step, explorer.fit) == (-1, None, None, None)
    explorer.step_forward()
    assert explorer.phase is Phase.MAXIMUM
    assert view.take() == ["cursor", "position"]
    assert explorer.position == tuple(map(float, explorer.steps[0].voxel))
    explorer.step_forward()
    assert explorer.phase is Phase.FIT
    np.testing.assert_array_equal(explorer.fit.mu, explorer.steps[0].mu)
    assert view.take() == ["cursor", "position"]
    explorer.step_forward()
    assert explorer.phase is Phase.SUBTRACT
    assert view.take() == ["residual", "cursor", "lesions"]
    assert view.arguments["residual"] == ((explorer.patch.box,),)
    explorer.step_forward(whole=True)
    assert (explorer.iteration, explorer.phase, explorer.n_subtracted) == (1, Phase.SUBTRACT, 2)
    explorer.step_back(whole=True)
    assert (explorer.iteration, explorer.n_subtracted) == (0, 1)


def test_going_back_is_exact():
    explorer = explorer_of()
    seen = {}
    for cursor in range(-1, explorer.trajectory.last + 1):
        explorer.go_to(cursor)
        seen[cursor] = explorer.residual.copy()
    for cursor in reversed(range(-1, explorer.trajectory.last + 1)):
        explorer.go_to(cursor)
        np.testing.assert_array_equal(explorer.residual, seen[cursor])
    np.testing.assert_array_equal(explorer.residual, HEATMAP)


@pytest.mark.parametrize("mode", ["joint", "paper"])
@pytest.mark.parametrize("scale", ["mass", "peak"])
def test_residual_is_that_of_a_replay_bit_for_bit(mode, scale):
    heatmap = HEATMAP * np.float32((2 * np.pi) ** 1.5) if scale == "peak" else HEATMAP
    config = FitConfig(sigma=1.1, mode=mode, scale=scale)
    explorer = explorer_of(heatmap, config=config)
    found = detect(heatmap, config)
    assert any(step.refits for step in found.steps) == (mode == "joint")
    for i in range(len(found.steps)):
        explorer.go_to_step(i)
        np.testing.assert_array_equal(explorer.residual, found.replay(i).residual)


def test_patches_beyond_the_budget_are_made_again(monkeypatch):
    kept = explorer_of()
    monkeypatch.setattr(trajectory_module, "MOST_BYTES", 0)
    explorer = explorer_of()
    for cursor in (explorer.trajectory.last, 4, -1, 7):
        explorer.go_to(cursor)
        kept.go_to(cursor)
        np.testing.assert_array_equal(explorer.residual, kept.residual)


def test_cursor_stays_in_range_and_repeated_commands_fire_nothing():
    explorer = explorer_of()
    view = Recorder(explorer)
    explorer.go_to(10**6)
    assert explorer.cursor == explorer.trajectory.last
    view.take()
    for command in (explorer.last, explorer.step_forward, lambda: explorer.set_threshold(explorer.threshold),
                    lambda: explorer.set_sigma(1.0), explorer.pause, explorer.undo, explorer.redo, explorer.refit,
                    lambda: explorer.set_follow(True), explorer.clear_error, lambda: explorer.set_truth(None),
                    lambda: explorer.set_comparing(False), explorer.poll, explorer.tick):  # fmt: skip
        command()
        assert view.take() == []
    explorer.first()
    assert explorer.cursor == -1


def test_jumping_to_a_lesion_shows_its_fit():
    explorer = explorer_of()
    for row, found in enumerate(explorer.detections.found):
        explorer.jump_to_lesion(row)
        assert (explorer.iteration, explorer.phase) == (found, Phase.FIT)
        assert explorer.position == tuple(explorer.steps[found].mu)
    with pytest.raises(IndexError, match="lesion 99"):
        explorer.jump_to_lesion(99)


def test_position_can_be_left_alone():
    explorer = explorer_of()
    explorer.set_follow(False)
    explorer.move_to((3, 100, -2))
    explorer.step_forward()
    assert explorer.position == (3.0, 19.0, 0.0)
    explorer.set_follow(True)
    assert explorer.position == tuple(map(float, explorer.step.voxel))


def test_status_names_iteration_phase_and_alpha():
    explorer = explorer_of()
    n = len(explorer.steps)
    assert explorer.status == f"start, {n} steps"
    explorer.go_to_step(1, Phase.FIT)
    assert explorer.status == f"2 of {n}, fit: alpha {explorer.steps[1].alpha:.2f}, kept"


# ---------------------------------------------------------------------- playing
def test_playing_walks_to_the_end_and_stops():
    explorer = explorer_of()
    explorer.set_speed(4.0)
    explorer.play()
    assert not explorer.tick(10.0)  # the clock starts
    assert not explorer.tick(10.2)
    assert explorer.tick(10.25)
    assert explorer.cursor == 0
    for i in range(2, 400):
        explorer.tick(10.0 + 0.25 * i)
    assert explorer.cursor == explorer.trajectory.last
    assert not explorer.playing
    explorer.play()
    assert (explorer.cursor, explorer.playing) == (-1, True)
    explorer.toggle_playing()
    assert not explorer.playing


def test_many_timers_do_not_play_faster():
    explorer = explorer_of()
    explorer.set_speed(2.0)
    explorer.play()
    for i in range(41):
        for _ in range(3):
            explorer.tick(0.05 * i)
    assert explorer.cursor == 3


def test_a_player_that_was_held_up_does_not_rush():
    explorer = explorer_of()
    explorer.set_speed(8.0)
    explorer.play()
    explorer.tick(0.0)
    explorer.tick(60.0)
    assert explorer.cursor == 1
    explorer.tick(60.125)
    assert explorer.cursor == 2


def test_nothing_to_play():
    explorer = explorer_of(np.zeros((5, 5, 5)))
    explorer.play()
    explorer.step_forward()
    assert (explorer.playing, explorer.cursor, explorer.steps) == (False, -1, ())


# ---------------------------------------------------------------------- settings
def test_sigma_refits_and_the_cursor_stays():
    explorer = explorer_of(truth=POINTS)
    explorer.go_to_step(1, Phase.FIT)
    view = Recorder(explorer)
    explorer.set_sigma(1.2)
    assert sorted(view.take()) == sorted(
        ["config", "trajectory", "residual", "cursor", "lesions", "label", "score", "curve", "position"]
    )
    assert (explorer.iteration, explorer.phase) == (1, Phase.FIT)
    expected = detect(HEATMAP, FitConfig(sigma=1.2))
    np.testing.assert_array_equal(explorer.detections.alpha, expected.alpha)
    np.testing.assert_array_equal(explorer.residual, expected.replay(0).residual)
    explorer.set_mode("paper")
    explorer.set_window(5)
    assert explorer.config == FitConfig(sigma=1.2, mode="paper", window=5)


def test_cursor_comes_back_after_a_shorter_search():
    explorer = explorer_of()
    explorer.go_to_step(2, Phase.FIT)
    explorer.set_config(FitConfig(max_lesions=1))
    assert explorer.cursor == explorer.trajectory.last < 7
    explorer.set_config(FitConfig())
    assert (explorer.iteration, explorer.phase) == (2, Phase.FIT)
    explorer.last()
    explorer.set_config(FitConfig(max_lesions=1))
    explorer.set_config(FitConfig())
    assert explorer.cursor == explorer.trajectory.last


@pytest.mark.parametrize(
    ("command", "value"),
    [("set_sigma", 0), ("set_sigma", (1, 1)), ("set_window", 4), ("set_mode", "fast"), ("set_threshold", math.nan),
     ("set_speed", 0), ("go_to_step", 1.5), ("add_truth", (1, 2)), ("add_truth", (1, 2, math.nan)),
     ("move_to", (1, 2))],
)  # fmt: skip
def test_wrong_values_are_refused_and_change_nothing(command, value):
    explorer = explorer_of()
    view = Recorder(explorer)
    with pytest.raises((ValueError, TypeError)):
        getattr(explorer, command)(value) if command != "go_to_step" else explorer.go_to_step(0, value)
    assert view.take() == []
    assert explorer.config == FitConfig()


def test_estimated_sigma_is_the_width_of_labels():
    heatmap = crowded(sigma=1.4)
    explorer = explorer_of(heatmap, config=FitConfig(sigma="estimate"))
    assert explorer.label_sigma == explorer.detections.sigma
    assert explorer.label_sigma[0] == pytest.approx(1.4, abs=0.2)


# ---------------------------------------------------------------------- worker
class Loop:
    """An event loop of the poorest kind."""

    def __init__(self) -> None:
        self.queue: queue.Queue = queue.Queue()

    def run_one(self) -> None:
        self.queue.get(timeout=30)()


@pytest.fixture
def gate(monkeypatch):
    """Searches wait for the semaphore, and are listed."""
    release, made = threading.Semaphore(0), []
    original = Trajectory.of

    def slow(heatmap, config):
        assert release.acquire(timeout=30)
        made.append(config.sigma)
        if config.sigma == 3.0:
            raise RuntimeError("out of luck")
        return original(heatmap, config)

    monkeypatch.setattr(refit_module.Trajectory, "of", slow)
    release.made = made
    return release


def test_latest_value_wins_and_nothing_is_cancelled(gate):
    gate.release()
    explorer, loop = explorer_of(inline_s=0.0), Loop()
    assert explorer.busy
    explorer.wait()
    assert not explorer.busy
    explorer.set_dispatch(loop.queue.put)
    view = Recorder(explorer)
    for sigma in (1.1, 1.2, 1.3, 1.4):
        explorer.set_sigma(sigma)
    assert view.take().count("busy") == 1
    assert explorer.config.sigma == 1.4
    assert explorer.detections.sigma == (1.0, 1.0, 1.0)  # the old steps stay meanwhile
    explorer.last()
    assert explorer.cursor == explorer.trajectory.last > 0
    view.take()
    gate.release()
    loop.run_one()
    assert explorer.detections.sigma[0] == 1.1  # shown although newer values wait
    assert explorer.busy
    assert "busy" not in view.take()
    assert gate.made == [1.0, 1.1]
    loop.run_one()  # the views have drawn: on with the newest
    assert explorer.busy
    gate.release()
    loop.run_one()
    assert (explorer.detections.sigma[0], explorer.busy) == (1.4, False)
    assert view.take().count("trajectory") == 1
    assert gate.made == [1.0, 1.1, 1.4]
    np.testing.assert_array_equal(explorer.residual, detect(HEATMAP, FitConfig(sigma=1.4)).replay(-1).residual)


def test_a_dispatcher_that_comes_late_is_served(gate):
    explorer, loop = explorer_of(inline_s=0.0), Loop()
    gate.release()
    explorer._refitter._worker.join()
    explorer.set_dispatch(loop.queue.put)
    loop.run_one()
    assert explorer.steps


def test_failed_refit_keeps_the_last_good_steps(gate):
    gate.release(3)
    explorer = explorer_of(inline_s=0.0)
    explorer.wait()
    explorer.go_to(5)
    good, residual = explorer.trajectory, explorer.residual.copy()
    explorer.set_sigma(3.0)
    view = Recorder(explorer)
    explorer.wait()
    assert explorer.error == "RuntimeError: out of luck"
    assert sorted(view.take()) == ["busy", "error"]
    assert explorer.trajectory is good
    np.testing.assert_array_equal(explorer.residual, residual)
    explorer.set_sigma(1.0)  # the steps are still there: nothing to search
    explorer.wait()
    assert explorer.error == ""
    assert explorer.trajectory is good
    assert gate.made == [1.0, 3.0]


def test_steps_of_another_map_are_not_taken_over(gate):
    explorer = explorer_of(inline_s=0.0)
    other = crowded((18, 18, 18), seed=1)
    explorer.load(other)
    gate.release(2)
    explorer.wait()
    assert explorer.trajectory.heatmap is other
    assert explorer.steps
    explorer.set_sigma(1.3)
    gate.release()
    explorer.close()
    explorer.wait()
    assert explorer.detections.sigma[0] == 1.0


def test_waiting_has_an_end(gate):
    explorer = explorer_of(inline_s=0.0)
    assert not explorer.wait(timeout=0.01)
    gate.release()
    assert explorer.wait(timeout=30)


def test_fast_searches_need_no_thread():
    before = threading.active_count()
    explorer = Explorer(HEATMAP, inline_s=10.0)
    explorer.set_sigma(1.1)
    assert not explorer.busy
    assert threading.active_count() == before


def test_an_event_loop_searches_in_one_turn_and_draws_in_another():
    explorer, loop = Explorer(HEATMAP, inline_s=10.0), Loop()
    explorer.set_dispatch(loop.queue.put)
    for sigma in (1.1, 1.2, 1.3):
        explorer.set_sigma(sigma)
    assert (explorer.detections.sigma[0], explorer.busy) == (1.0, True)
    loop.run_one()
    assert (explorer.detections.sigma[0], explorer.busy) == (1.0, True)  # searched, not shown
    explorer.set_sigma(1.4)
    loop.run_one()
    assert (explorer.detections.sigma[0], explorer.busy) == (1.3, True)
    loop.run_one()
    loop.run_one()
    assert (explorer.detections.sigma[0], explorer.busy) == (1.4, False)
    assert loop.queue.empty()


def test_a_map_with_nan_shows_a_message():
    heatmap = HEATMAP.copy()
    heatmap[1, 2, 3] = np.nan
    explorer = explorer_of(heatmap)
    assert "voxel (1, 2, 3)" in explorer.error
    assert explorer.steps == ()
    explorer.load(HEATMAP)
    assert explorer.error == ""


# ---------------------------------------------------------------------- listeners
def test_two_listeners_see_the_same():
    explorer = explorer_of(truth=POINTS)
    views = [Recorder(explorer), Recorder(explorer)]
    explorer.last()
    explorer.set_sigma(1.15)
    explorer.add_truth((3, 3, 3))
    explorer.set_threshold(0.6)
    explorer.step_back()
    explorer.load(crowded((12, 20, 16)))
    explorer.go_to(8)
    assert views[0].fired == views[1].fired != []
    assert views[0].arguments == views[1].arguments
    for view in views:
        np.testing.assert_array_equal(view.residual, explorer.residual)


def test_listeners_may_change_the_explorer():
    explorer = explorer_of()
    first = []

    def push(cursor: int) -> None:
        first.append(cursor)
        if cursor < 4:
            explorer.step_forward()

    explorer.cursor_changed.connect(push)
    view = Recorder(explorer)
    explorer.step_forward()
    assert explorer.cursor == 4
    assert first == [0, 1, 2, 3, 4]
    assert view.arguments["cursor"] == (4,)
    np.testing.assert_array_equal(view.residual, explorer.residual)


def test_a_drag_is_one_change():
    explorer = explorer_of(truth=POINTS)
    for k in range(4):
        explorer.move_truth(1, (3.0 + k, 4.0, 5.0), amend=k > 0)
    np.testing.assert_array_equal(explorer.truth[1], (6.0, 4.0, 5.0))
    explorer.undo()
    np.testing.assert_array_equal(explorer.truth, POINTS)


def test_settled_comes_once_and_last_with_all_names():
    explorer = explorer_of(truth=POINTS)
    view, settled = Recorder(explorer), []
    explorer.settled.connect(lambda names: settled.append((names, view.take())))
    explorer.go_to(4)
    explorer.set_threshold(0.6)
    explorer.set_threshold(0.6)
    assert len(settled) == 2
    for names, fired in settled:
        assert sorted(names) == sorted(fired)
    assert {"residual", "cursor", "lesions", "position"} <= settled[0][0]


def test_a_change_made_when_all_is_settled_is_announced_too():
    explorer = explorer_of()
    heard = []

    def finish(names: frozenset[str]) -> None:
        heard.append((explorer.cursor, "cursor" in names))
        if explorer.cursor == 0:
            explorer.go_to(3)

    explorer.settled.connect(finish)
    explorer.go_to(0)
    assert heard == [(0, True), (3, True)]


def test_listeners_that_never_rest_are_stopped():
    explorer = explorer_of()
    explorer.threshold_changed.connect(lambda value: explorer.set_threshold(1.0 - value))
    with pytest.raises(RuntimeError, match="rounds"):
        explorer.set_threshold(0.3)
    explorer.threshold_changed.disconnect()
    explorer.go_to(1)  # and the rest still works
    assert explorer.cursor == 1


def test_a_listener_that_fails_does_not_stop_the_others():
    explorer = explorer_of()

    def fail(cursor: int) -> None:
        raise KeyError(cursor)

    explorer.cursor_changed.connect(fail)
    view = Recorder(explorer)
    with pytest.raises(Exception, match="KeyError"):
        explorer.last()
    assert {"residual", "lesions", "position"} <= set(view.take())
    explorer.cursor_changed.disconnect(fail)
    explorer.first()
    assert "cursor" in view.take()


# ---------------------------------------------------------------------- threshold and truth
def test_threshold_keeps_without_fitting(monkeypatch):
    explorer = explorer_of(truth=POINTS)
    monkeypatch.setattr(refit_module, "run", None)
    view = Recorder(explorer)
    explorer.set_threshold(0.21)
    assert view.take() == ["threshold"]  # no lesion between 0.2 and 0.21
    explorer.last()
    view.take()
    explorer.set_threshold(0.7)
    assert view.take() == ["lesions", "threshold", "score"]
    np.testing.assert_array_equal(explorer.kept.alpha, explorer.detections.alpha[explorer.detections.alpha >= 0.7])
    assert (explorer.score.tp, explorer.score.fp, explorer.score.fn) == (2, 0, 2)
    assert (explorer.score.precision, explorer.score.recall) == (1.0, 0.5)
    assert explorer.outcome.verdicts.count("tp") == 2
    explorer.set_truth(None)
    assert explorer.score is explorer.curve is explorer.spread is None
    assert set(explorer.outcome.verdicts) == {"kept", "below"}


def test_annotation_can_be_undone_and_redone():
    explorer = explorer_of()
    view = Recorder(explorer)
    assert explorer.truth is None
    explorer.add_truth(POINTS[0])
    assert sorted(view.take()) == ["curve", "label", "lesions", "score", "truth"]
    explorer.add_truth(POINTS[2])
    explorer.move_truth(1, (1, 2, 3))
    explorer.remove_truth(0)
    np.testing.assert_array_equal(explorer.truth, [(1, 2, 3)])
    explorer.undo()
    explorer.undo()
    np.testing.assert_array_equal(explorer.truth, POINTS[[0, 2]])
    explorer.redo()
    np.testing.assert_array_equal(explorer.truth, [POINTS[0], (1, 2, 3)])
    assert explorer.nearest_truth((2, 2, 2)) == 1
    assert explorer.nearest_truth((2, 2, 2), within_mm=1.0) is None
    for _ in range(5):
        explorer.undo()
    assert explorer.truth is None
    assert not explorer.can_undo
    assert explorer.can_redo
    with pytest.raises(IndexError, match="true point 7"):
        explorer.remove_truth(7)
    with pytest.raises(ValueError, match="read-only"):
        explorer_of(truth=POINTS).truth[0] = 0


def test_label_follows_points_and_sigma():
    explorer = explorer_of()
    assert explorer.label.sum() == 0
    explorer.add_truth((9.5, 9.0, 8.0))
    np.testing.assert_array_equal(explorer.label, gaussian_heatmap([(9.5, 9.0, 8.0)], HEATMAP.shape, 1.0))
    narrow = explorer.label.max()
    explorer.set_sigma(2.0)
    assert explorer.label.sum() == pytest.approx(1.0, abs=1e-5)
    assert explorer.label.max() < narrow / 6
    assert explorer.label is explorer.label


@pytest.mark.parametrize("gate_name", ["before", "after"])
def test_curve_is_that_of_the_metrics(gate_name):
    from lesionkit.metrics import CasePoints, precision_recall

    affine = np.diag([1.0, 2.0, 1.5, 1.0])
    truth = np.vstack([POINTS[:3], [(17.0, 17.0, 2.0)]])
    explorer = explorer_of(truth=truth, affine=affine, config=FitConfig(mode="paper"))
    explorer.set_matching(max_distance=2.5, gate=gate_name)
    found, scale = explorer.detections, np.array(explorer.spacing)
    case = CasePoints(predicted=found.mu * scale, score=found.alpha, true=truth * scale, sizes=np.ones(len(truth)))
    table = precision_recall([case], max_distance=2.5, gate=gate_name)
    for name in ("threshold", "tp", "fp", "fn", "precision", "recall", "f1"):
        np.testing.assert_array_equal(getattr(explorer.curve, name), table[name])
    for threshold, f1 in zip(explorer.curve.threshold, explorer.curve.f1, strict=True):
        explorer.set_threshold(threshold)
        assert explorer.score.f1 == f1


def test_spread_measures_to_the_nearest_true_point():
    explorer = explorer_of(truth=POINTS[:2], affine=np.diag([1.0, 2.0, 1.0, 1.0]))
    spread = explorer.spread
    assert spread.found == explorer.detections.found
    best = int(spread.alpha.argmax())
    assert spread.nearest[best] == 0
    offset = (explorer.detections.mu[best] - POINTS[0]) * (1, 2, 1)
    assert spread.distance_mm[best] == pytest.approx(np.linalg.norm(offset))
    explorer.set_truth([])
    assert np.isinf(explorer.spread.distance_mm).all()
    assert explorer.score.fp == len(explorer.kept)


# ---------------------------------------------------------------------- both modes
def test_modes_are_compared_on_a_pair():
    scene = pair(1.6, 0.8, rng=np.random.default_rng(3))
    explorer = explorer_of(scene.heatmap)
    view = Recorder(explorer)
    assert explorer.comparison is None
    explorer.set_comparing(True)
    assert view.take() == ["comparing", "comparison"]
    comparison = explorer.comparison
    np.testing.assert_array_equal(comparison.joint.alpha, explorer.kept.alpha)
    paper = detect(scene.heatmap, FitConfig(mode="paper", sigma=1.0))
    np.testing.assert_array_equal(comparison.paper.alpha, paper.filter(explorer.threshold).alpha)
    assert len(comparison.joint) == 2
    kinds = [one.kind for one in comparison.differences]
    assert kinds
    assert all(isinstance(str(one), str) and str(one).startswith("(") for one in comparison.differences)
    explorer.set_mode("paper")
    assert explorer.comparison.joint.config.mode == "joint"
    assert [one.kind for one in explorer.comparison.differences] == kinds
    explorer.set_threshold(5.0)
    assert explorer.comparison.differences == ()
    explorer.set_comparing(False)
    assert explorer.comparison is None


def test_modes_agree_on_a_lesion_that_stands_alone():
    heatmap = gaussian_heatmap([(9.3, 10.1, 8.8)], (20, 20, 20), 1.0)
    explorer = explorer_of(heatmap)
    explorer.set_comparing(True)
    assert explorer.comparison.differences == ()
    assert explorer.comparison.pairs.tolist() == [[0, 0]]


# ---------------------------------------------------------------------- profile and rings
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_profile_is_the_same_before_and_after_subtracting(axis):
    explorer = explorer_of(affine=np.diag([1.0, 1.0, 3.0, 1.0]))
    assert explorer.profile(axis) is None
    for i, step in enumerate(explorer.steps):
        before = explorer.trajectory.moments[i]
        explorer.go_to_step(i, Phase.FIT)
        one = explorer.profile(axis)
        residual = explorer.residual.copy()
        explorer.go_to_step(i, Phase.SUBTRACT)
        other = explorer.profile(axis)
        line = tuple(one.index if a == axis % 3 else step.voxel[a] for a in range(3))
        np.testing.assert_array_equal(one.residual, residual[line])
        np.testing.assert_array_equal(one.after, explorer.residual[line])
        for name in ("index", "offset_mm", "residual", "fit", "after", "window"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        if step.status == "kept" and not step.refits:
            inside = one.window
            np.testing.assert_allclose((one.residual - one.fit)[inside], one.after[inside], atol=1e-6)
            assert before.found == explorer.moment.found[:-1]
    with pytest.raises(ValueError, match="axis"):
        explorer.profile(3)


@given(
    st.floats(0.4, 4.0),
    st.tuples(*[st.floats(0.3, 3.0)] * 3),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda n: np.linalg.norm(n) > 0.1),
    st.tuples(*[st.floats(-4, 4)] * 3),
)
def test_rings_lie_on_the_ellipsoid_and_in_the_plane(k, sigma, normal, origin):
    mu = np.array([(0.0, 0.0, 0.0), (2.0, 1.0, -1.5), (np.nan, 0.0, 0.0)])
    rings = ellipsoid_sections(mu, sigma, origin=origin, normal=normal, k=k)
    unit = np.array(normal) / np.linalg.norm(normal)
    support = k * np.linalg.norm(unit * sigma)  # how far the ellipsoid reaches along the normal
    met = np.abs((np.array(origin) - mu[:2]) @ unit) < support * (1 - 1e-9)
    assert set(np.flatnonzero(met)) <= set(rings.rows.tolist()) <= {0, 1}
    outlines = rings.outlines(16)
    np.testing.assert_allclose((outlines - origin) @ unit, 0.0, atol=1e-9)
    radius = np.linalg.norm((outlines - mu[rings.rows][:, None]) / sigma, axis=2)
    np.testing.assert_allclose(radius, k, rtol=1e-6)
    long, short = np.moveaxis(rings.semi_axes, 1, 0)
    np.testing.assert_allclose((long * short).sum(1), 0.0, atol=1e-9)
    assert (np.linalg.norm(long, axis=1) >= np.linalg.norm(short, axis=1) - 1e-12).all()


def test_rings_of_the_explorer():
    explorer = explorer_of(truth=[(5.0, 5.0, 5.0)])
    assert len(explorer.rings(0, of="fit")) == len(explorer.rings(0)) == 0
    explorer.last()
    rings = explorer.rings(0, through=(8.0, 0.0, 0.0), k=1.5)
    mu = explorer.moment.mu[rings.rows]
    np.testing.assert_allclose(rings.centres[:, 1:], mu[:, 1:], atol=1e-12)
    expected = np.sqrt(1.5**2 - (mu[:, 0] - 8.0) ** 2)
    np.testing.assert_allclose(np.linalg.norm(rings.semi_axes, axis=2), np.stack([expected] * 2, 1))
    assert len(explorer.rings(2, through=(0, 0, 5.0), of="truth")) == 1
    explorer.go_to_step(0, Phase.FIT)
    assert len(explorer.rings(1, of="fit")) == 1  # the position is at its centre
    assert len(explorer.rings((1, 1, 0), of="fit")) == 1
    with pytest.raises(ValueError, match="of must"):
        explorer.rings(0, of="all")


# ---------------------------------------------------------------------- what is looked at
def test_two_dimensional_maps():
    explorer = explorer_of(crowded((20, 20)), truth=POINTS[:, :2])
    explorer.last()
    assert len(explorer.rings(0)) == len(explorer.lesions)
    assert explorer.profile(1) is not None
    assert explorer.score.tp > 0


def test_volumes_bring_their_grid():
    affine = np.array([[0, 2.0, 0, 5], [1.0, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    explorer = explorer_of(Volume(HEATMAP, affine), image=Volume(HEATMAP, affine))
    assert explorer.spacing == (1.0, 2.0, 3.0)
    explorer.set_image(None)
    assert explorer.image is None
    with pytest.raises(ValueError, match="affine of the heatmap"):
        explorer.set_image(Volume(HEATMAP, np.eye(4)))
    with pytest.raises(ValueError, match="shape of the heatmap"):
        explorer.set_image(HEATMAP[1:])
    with pytest.raises(ValueError, match="affine must be left out"):
        explorer.load(Volume(HEATMAP, affine), affine=affine)
    with pytest.raises(TypeError, match="real numbers"):
        explorer.load(np.zeros((3, 3), complex))
    with pytest.raises(ValueError, match="inverted"):
        explorer.load(HEATMAP, affine=np.zeros((4, 4)))
    assert explorer.spacing == (1.0, 2.0, 3.0)  # nothing of it was taken over


def test_an_empty_explorer_waits_for_a_map():
    explorer = Explorer()
    explorer.last()
    assert explorer.steps == ()
    view = Recorder(explorer)
    explorer.load(HEATMAP, truth=POINTS, config=FitConfig(sigma=1.1))
    fired = view.take()
    assert len(fired) == len(set(fired))
    assert {"case", "config", "trajectory", "residual", "truth", "score", "label"} <= set(fired)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16])
def test_heatmaps_of_other_types_are_walked_exactly(dtype):
    heatmap = (HEATMAP * 1000).astype(dtype)
    heatmap.setflags(write=False)
    explorer = explorer_of(heatmap, config=FitConfig(scale="peak", min_alpha=5.0))
    start = explorer.residual.copy()
    explorer.last()
    np.testing.assert_array_equal(explorer.residual, explorer.detections.replay(-1).residual)
    explorer.first()
    np.testing.assert_array_equal(explorer.residual, start)


def test_importing_it_loads_no_viewer_and_nothing_heavy():
    heavy = ("qtpy", "PyQt5", "PyQt6", "PySide6", "vispy", "napari", "ipywidgets", "torch", "lightning", "plotly",
             "pandas", "nibabel", "scipy.optimize", "matplotlib")  # fmt: skip
    code = f"import sys, lesionkit.explorer; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---------------------------------------------------------------------- anything at all
MAPS = {"crowd": HEATMAP, "plane": crowded((20, 20)), "zero": np.zeros((6, 7, 8), np.float32)}


@cache
def fresh(name: str, config: FitConfig):
    return detect(MAPS[name], config)


def same(one, other) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def test_the_answer_is_hidden_until_the_end_or_until_somebody_asks() -> None:
    explorer = explorer_of(truth=POINTS[:3])
    seen: list[bool] = []
    explorer.answer_changed.connect(seen.append)
    explorer.go_to_step(1)
    assert not explorer.answer
    assert set(explorer.told) <= {"kept", "below"}
    assert explorer.lesions.verdicts[0] == "tp"
    explorer.show_answer()
    assert explorer.told == explorer.lesions.verdicts
    explorer.show_answer(False)
    explorer.last()
    explorer.first()  # who has seen it has seen it
    assert explorer.answer
    assert seen == [True, False, True]
    explorer.show_answer(False)
    explorer.last()
    explorer.load(HEATMAP, truth=POINTS)
    assert not explorer.answer
    explorer.set_truth(None)
    explorer.show_answer()
    assert not explorer.answer


def test_without_steps_there_is_nothing_to_predict() -> None:
    given = Trajectory.given(HEATMAP, FitConfig(sigma=(1.0, 1.0, 1.0)), POINTS[:2], ALPHA[:2])
    explorer = explorer_of(truth=POINTS[:3], found=given)
    assert explorer.answer
    assert explorer.told == ("tp", "tp")
    assert (explorer.score.tp, explorer.score.fn, explorer.status) == (2, 1, "2 lesions")
    assert explorer.last() is None
    assert explorer.cursor == -1


def test_what_was_found_already_is_not_searched_again(monkeypatch) -> None:
    config = FitConfig(sigma=1.0)
    trajectory = Trajectory.of(HEATMAP, config)
    monkeypatch.setattr(refit_module.Trajectory, "of", None)
    explorer = explorer_of(config=config, found=trajectory)
    assert explorer.trajectory is trajectory
    monkeypatch.undo()
    explorer.set_sigma(1.2)
    assert explorer.trajectory is not trajectory
    assert explorer.detections.config.sigma == 1.2


def test_jumps_to_the_next_kept_false_and_missed() -> None:
    explorer = explorer_of(truth=[POINTS[0], (17.0, 17.0, 3.0), (2.0, 2.0, 2.0)], threshold=0.1)
    kept = [step.number for step in explorer.steps if step.status == "kept"]
    assert explorer.jump_to_next("kept")
    assert (explorer.iteration, explorer.phase, explorer.answer) == (kept[0], Phase.SUBTRACT, False)
    explorer.jump_to_next("kept")
    assert explorer.iteration == kept[1]
    verdicts = zip(explorer.outcome.found, explorer.outcome.verdicts, strict=True)
    false = sorted(found for found, verdict in verdicts if verdict == "fp")
    explorer.first()
    for number in [*false, false[0]]:
        assert explorer.jump_to_next("fp")
        assert explorer.iteration == number
    assert explorer.answer
    where = explorer.cursor
    for place in ((17.0, 17.0, 3.0), (2.0, 2.0, 2.0), (17.0, 17.0, 3.0)):
        assert explorer.jump_to_next("fn")
        assert explorer.position == place
    assert explorer.cursor == where
    explorer.set_truth(POINTS[:0])
    assert not explorer.jump_to_next("fn")
    with pytest.raises(ValueError, match="kind must be one of kept, fp, fn"):
        explorer.jump_to_next("best")


@pytest.mark.parametrize("mode", ["joint", "paper"])
def test_changes_are_what_a_step_did_to_earlier_lesions(mode) -> None:
    explorer = explorer_of(config=FitConfig(mode=mode))
    told = 0
    for cursor in range(-1, explorer.trajectory.last + 1):
        explorer.go_to(cursor)
        assert explorer.phase is Phase.SUBTRACT or not explorer.changes
        for found, before, after in explorer.changes:
            told += 1
            assert explorer.trajectory.moments[explorer.iteration].lesion(found).alpha == before.alpha
            now = explorer.moment.lesion(found)
            assert now is after is None or (now.alpha == after.alpha and after.alpha != before.alpha)
            assert f"lesion {found + 1} {before.alpha:.2f} → " in explorer.status or "more refitted" in explorer.status
    assert bool(told) == (mode == "joint")


class RandomActions(RuleBasedStateMachine):
    """Whatever a person does, views agree with the state and the state with a fresh search."""

    @initialize(name=st.sampled_from(sorted(MAPS)), truth=st.booleans())
    def begin(self, name, truth):
        self.name = name
        self.explorer = explorer_of(MAPS[name], truth=POINTS[:3, : MAPS[name].ndim] if truth else None)
        self.clock = 0.0
        self.views = [Recorder(self.explorer), Recorder(self.explorer)]
        self.before = self.snapshot()
        self.loop = None

    def snapshot(self) -> dict[str, object]:
        e = self.explorer
        return {
            "config": e.config,
            "cursor": (e.cursor, e.trajectory),
            "trajectory": e.trajectory,
            "residual": e.residual.tobytes(),
            "threshold": e.threshold,
            "truth": None if e.truth is None else e.truth.tobytes(),
            "label": e.label.tobytes(),
            "lesions": (e.lesions.mu.tobytes(), e.lesions.alpha.tobytes(), e.lesions.verdicts),
            "score": (e.outcome.mu.tobytes(), e.outcome.alpha.tobytes(), e.outcome.verdicts),
            "position": e.position,
            "follow": e.follow,
            "playing": e.playing,
            "speed": e.speed,
            "comparing": e.comparing,
            "comparison": None if e.comparison is None else tuple(map(str, e.comparison.differences)),
            "busy": e.busy,
            "error": e.error,
        }

    # -------------------------------------------------------------- actions
    @rule(cursor=st.integers(-5, 40))
    def scrub(self, cursor):
        self.explorer.go_to(cursor)

    @rule(command=st.sampled_from(["step_forward", "step_back"]), whole=st.booleans())
    def step(self, command, whole):
        getattr(self.explorer, command)(whole=whole)

    @rule(command=st.sampled_from(
        ["first", "last", "play", "pause", "toggle_playing", "undo", "redo", "refit", "clear_error"]))  # fmt: skip
    def press(self, command):
        getattr(self.explorer, command)()

    @rule(row=st.integers(0, 5))
    def jump(self, row):
        if row < len(self.explorer.detections):
            self.explorer.jump_to_lesion(row)

    @rule(seconds=st.floats(0.0, 2.0))
    def let_time_pass(self, seconds):
        self.clock += seconds
        self.explorer.tick(self.clock)

    @rule(sigma=st.sampled_from([0.8, 1.0, 1.1, 1.5]))
    def drag_sigma(self, sigma):
        self.explorer.set_sigma(sigma)

    @rule(mode=st.sampled_from(["joint", "paper"]), window=st.sampled_from([5, 7]))
    def choose(self, mode, window):
        self.explorer.set_mode(mode)
        self.hear()
        self.explorer.wait()
        self.hear()
        self.explorer.set_window(window)

    @rule(threshold=st.floats(0.0, 1.5))
    def drag_threshold(self, threshold):
        self.explorer.set_threshold(threshold)

    @rule(point=st.tuples(*[st.integers(0, 19)] * 3))
    def annotate(self, point):
        self.explorer.add_truth(point[: self.explorer.heatmap.ndim])

    @rule(index=st.integers(0, 4), point=st.none() | st.tuples(*[st.integers(0, 19)] * 3))
    def correct(self, index, point):
        if self.explorer.truth is not None and index < len(self.explorer.truth):
            if point is None:
                self.explorer.remove_truth(index)
            else:
                self.explorer.move_truth(index, point[: self.explorer.heatmap.ndim])

    @rule(known=st.booleans())
    def replace_truth(self, known):
        self.explorer.set_truth(POINTS[:, : self.explorer.heatmap.ndim] if known else None)

    @rule(point=st.tuples(*[st.floats(-3, 25)] * 3), follow=st.booleans())
    def look(self, point, follow):
        self.explorer.move_to(point[: self.explorer.heatmap.ndim])
        self.hear()
        self.explorer.set_follow(follow)

    @rule(comparing=st.booleans())
    def compare(self, comparing):
        self.explorer.set_comparing(comparing)

    @rule(speed=st.floats(0.5, 20.0))
    def hurry(self, speed):
        self.explorer.set_speed(speed)

    @rule(name=st.sampled_from(sorted(MAPS)))
    def load(self, name):
        self.name = name
        self.explorer.load(MAPS[name])

    @rule(inline_s=st.sampled_from([0.0, 10.0, math.inf]), loop=st.booleans())
    def think_elsewhere_or_later(self, inline_s, loop):
        self.explorer.wait()
        self.explorer._refitter.inline_s = inline_s
        self.loop = Loop() if loop else None
        self.explorer.set_dispatch(self.loop.queue.put if self.loop else None)

    # -------------------------------------------------------------- what must hold
    def hear(self) -> None:
        """Signals fired once at most, and just for what has changed."""
        first, second = (view.take() for view in self.views)
        assert first == second
        assert len(first) == len(set(first))
        now = self.snapshot()
        for name, value in now.items():
            if value != self.before[name]:
                assert name in first, name
            elif name not in ("residual", "lesions", "score", "comparison", "truth", "label", "position"):
                assert name not in first, name
        for view in self.views:
            np.testing.assert_array_equal(view.residual, self.explorer.residual)
            for name, arguments in view.arguments.items():
                if arguments and name != "residual":
                    assert arguments == (getattr(self.explorer, name),)
        self.before = now

    @invariant()
    def all_holds(self):
        self.hear()
        if self.explorer.busy:
            while self.loop is not None and self.explorer.busy:
                self.loop.run_one()
            self.explorer.wait()
            self.hear()
        self.state_is_that_of_a_fresh_search()
        self.scores_are_those_of_a_fresh_matching()
        self.readings_never_fail()

    def state_is_that_of_a_fresh_search(self):
        e = self.explorer
        assert e.heatmap is MAPS[self.name]
        found = fresh(self.name, e.config)
        assert e.detections.config == e.config
        assert -1 <= e.cursor <= e.trajectory.last == 3 * len(found.steps) - 1
        np.testing.assert_array_equal(e.detections.alpha, found.alpha)
        kept = found.filter(e.threshold)
        np.testing.assert_array_equal(e.kept.mu, kept.mu)
        assert e.kept.found == kept.found
        if e.n_subtracted:
            moment = found.replay(e.n_subtracted - 1)
            np.testing.assert_array_equal(e.residual, moment.residual)
            np.testing.assert_array_equal(e.lesions.mu, moment.mu)
            np.testing.assert_array_equal(e.lesions.alpha, moment.alpha)
            assert e.lesions.found == moment.found
        else:
            np.testing.assert_array_equal(e.residual, e.heatmap)
            assert len(e.lesions) == 0
        np.testing.assert_array_equal(e.lesions.kept, e.lesions.alpha >= e.threshold)

    def scores_are_those_of_a_fresh_matching(self):
        e = self.explorer
        if e.truth is None:
            assert e.score is e.curve is e.spread is None
            return
        matching = match_points(e.kept.mu, e.truth)
        np.testing.assert_array_equal(e.score.pairs, matching.pairs)
        assert same(e.score.f1, matching.f1) or math.isnan(matching.f1)
        assert e.outcome.verdicts.count("tp") == matching.tp
        if e.kept.alpha.size:
            row = int(np.flatnonzero(e.curve.threshold == e.kept.alpha.min())[0])
            assert (e.curve.tp[row], e.curve.fp[row], e.curve.fn[row]) == (matching.tp, matching.fp, matching.fn)
        np.testing.assert_array_equal(e.label, gaussian_heatmap(e.truth, e.heatmap.shape, e.label_sigma))

    def readings_never_fail(self):
        e = self.explorer
        assert e.status
        assert (e.profile(0) is None) == (e.cursor < 0)
        assert len(e.rings(0, of="outcome")) <= len(e.outcome)
        assert (e.patch is None) or e.cursor >= 0


TestRandomActions = RandomActions.TestCase
TestRandomActions.settings = settings(max_examples=25, stateful_step_count=40)
