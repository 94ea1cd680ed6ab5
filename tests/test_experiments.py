"""Grids of runs: every run once, whatever dies in between."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from unittest.mock import Mock

import pandas as pd
import pytest

from lesionkit.experiments import RunSettings, _described, do_run, grid, read_predictions, run_grid
from lesionkit.io import DataError
from lesionkit.mc_dropout import McConfig
from lesionkit.metrics import score_points
from lesionkit.model import ModelConfig
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig

EASY = SimulationConfig(
    kind="gad", spacing=4.0, min_size=8, lesions=(8.0, 0.2), contrast=(25, 30), lookalikes=0.0, clustered=0.0,
    confluent=0.0,
)  # fmt: skip
TINY = TrainConfig(
    model=ModelConfig(levels=2, filters=8, dropout=0.1), patch=(16, 16, 16), window=24, steps=80, validate_every=20,
    learning_rate=5e-3, lesion_share=0.8, workers=0, max_distance_mm=12, validation_cases=2, threshold_cases=1,
)  # fmt: skip
SETTINGS = RunSettings(
    train=TINY, tune=replace(TINY, steps=20, frozen="encoder"), max_distance_mm=12, mc=McConfig(samples=4, batch=2)
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(EASY, 10, tmp_path_factory.mktemp("cohort"), seed=1)


def attempts(folder, name):
    return len((folder / name / "attempts.txt").read_text().splitlines())


def test_a_grid_is_a_table_of_named_runs():
    table = pd.concat(
        [
            grid(label=["heatmap"], sigma=[1.0, 1.5], seed=[0, 1]),
            grid(label=["segmentation"], fraction=[0.01, 0.1], subset=[0, 1], start=["heatmap_s1_0", ""]),
        ]
    )
    assert len(table) == 4 + 8
    assert table["name"].is_unique
    assert table["name"].tolist()[:2] == ["heatmap_s1_0", "heatmap_s1_1"]
    assert grid(jitter_mm=[0, 2])["name"].tolist() == ["heatmap_s1.25_0", "heatmap_s1.25_jitter2_0"]
    assert "tuned_heatmap_s1_0_1pc_0_0" in table["name"].tolist()
    with pytest.raises(ValueError, match="axes"):
        grid(colour=["red"])


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    table = pd.concat(
        [
            grid(label=["heatmap", "segmentation"]),
            grid(label=["segmentation"], fraction=[0.2], start=["heatmap_s1.25_0"]),
        ]
    )  # fmt: skip
    seen = []
    result = run_grid(table, cohort, folder, SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    return folder, table, result.set_index("name")


def test_each_run_leaves_its_config_predictions_and_metrics(cohort, finished):
    folder, table, result = finished
    assert result["f1"].notna().all()
    assert result["n_masks"].tolist() == [6, 6, 1]
    assert result["dice"].notna().tolist() == [False, True, True]
    assert result["cc_f1"].notna().tolist() == [True, False, False]
    for name in table["name"]:
        described = json.loads((folder / name / "run.json").read_text())
        assert described["run"]["name"] == name
        assert described["config"]["seed"] == 0
    found = read_predictions(folder, "heatmap_s1.25_0", cohort)
    assert set(found) == {(m, s) for m in ("fit", "all", "paper") for s in ("validation", "test")} | {("cc", "test")}
    assert [len(found["fit", split]) for split in ("validation", "test")] == [1, 2]  # as many as thresholds want
    row = result.loc["heatmap_s1.25_0"]
    again = score_points(found["fit", "test"], row["threshold"], max_distance=12).pooled
    assert again.f1 == pytest.approx(row["f1"], abs=1e-6)
    assert sum(len(c.score) for c in found["all", "test"]) >= sum(len(c.score) for c in found["fit", "test"])
    assert all(c.unfitted is not None for c in found["all", "test"])
    assert ("mc", "test") in read_predictions(folder, "segmentation_0", cohort)
    with pytest.raises(DataError, match="no such file"):
        read_predictions(folder, "nothing", cohort)


def test_a_finished_run_is_not_repeated_and_not_mistaken_for_another(cohort, finished):
    folder, table, result = finished
    again = run_grid(table, cohort, folder, SETTINGS).set_index("name")
    pd.testing.assert_frame_equal(again, result)
    assert all(attempts(folder, name) == 1 for name in table["name"])
    with pytest.raises(DataError, match="differs in config;"):
        run_grid(table, cohort, folder, replace(SETTINGS, train=replace(TINY, steps=60)))
    with pytest.raises(DataError, match=r"heatmap_s1\.25_0: holds a run that differs in max_distance_mm;"):
        run_grid(table, cohort, folder, replace(SETTINGS, max_distance_mm=3.0))
    with pytest.raises(DataError, match="segmentation_0: holds a run that differs in mc;"):
        run_grid(table, cohort, folder, replace(SETTINGS, mc=None))
    fewer = replace(cohort, cases=cohort.cases[:-1])
    with pytest.raises(DataError, match="differs in cohort;"):
        run_grid(table, fewer, folder, SETTINGS)
    (folder / "heatmap_s1.25_0" / "run.json").rename(folder / "kept.json")
    (folder / "heatmap_s1.25_0" / "run.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        run_grid(table, cohort, folder, SETTINGS)
    (folder / "kept.json").rename(folder / "heatmap_s1.25_0" / "run.json")


def test_tables_that_cannot_be_run_are_refused(cohort, tmp_path):
    with pytest.raises(ValueError, match="a name each"):
        run_grid(pd.concat([grid(), grid()]), cohort, tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="not in it"):
        run_grid(grid(label=["segmentation"], start=["elsewhere"]), cohort, tmp_path, SETTINGS)


def test_from_scratch_a_share_of_the_masks_has_the_steps_of_detector_and_fine_tuning():
    start, few = grid(), grid(label=["segmentation"], fraction=[0.2], start=["", "heatmap_s1.25_0"])
    rows = [*start.to_dict("records"), *few.to_dict("records")]
    detector, scratch, tuned = (SETTINGS.config(row) for row in rows)
    assert (detector.steps, scratch.steps, tuned.steps) == (80, 100, 20)
    assert (scratch.frozen, tuned.frozen) == ("nothing", "encoder")
    assert [SETTINGS.sampled(row) for row in rows] == [None] * 3


def test_an_error_names_its_run(cohort, tmp_path):
    no_masks = replace(cohort, cases=tuple(replace(case, mask=None) for case in cohort))
    with pytest.raises(DataError, match=r"segmentation_0: .*mask"):
        run_grid(grid(label=["segmentation"]), no_masks, tmp_path, SETTINGS)


def test_a_fine_tuned_run_is_one_of_its_detector_too(cohort):
    (run,) = grid(label=["segmentation"], fraction=[0.5], start=["heatmap_s1.25_0"]).to_dict("records")
    longer = replace(SETTINGS, train=replace(TINY, steps=TINY.steps + 1))
    one, other = (_described(run, cohort, settings, "") for settings in (SETTINGS, longer))
    assert [key for key in one if one[key] != other[key]] == ["detector"]


def test_errors_keep_their_kind_and_name_the_run(cohort, tmp_path, monkeypatch):
    (run,) = grid().to_dict("records")
    for error in (
        DataError("a"),
        FloatingPointError("a"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "a"),
        ValueError("a"),
    ):
        monkeypatch.setattr("lesionkit.experiments._work", Mock(side_effect=error))
        with pytest.raises((ValueError, FloatingPointError), match=r"heatmap_s1\.25_0: .*a") as caught:
            do_run(run, cohort, tmp_path, SETTINGS)
        assert isinstance(caught.value, FloatingPointError) == isinstance(error, FloatingPointError)


def test_without_dask_a_scheduler_is_refused_with_what_to_install(cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install 'lesionkit\[cluster\]'"):
        run_grid(grid(), cohort, tmp_path, SETTINGS, scheduler="tcp://localhost:8786")


def test_workers_of_several_threads_are_refused(cohort, tmp_path):
    from distributed import LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, pytest.raises(ValueError, match="a worker of 2 threads"):
        run_grid(grid(), cohort, tmp_path, SETTINGS, scheduler=cluster.scheduler_address)


def test_a_run_whose_dask_worker_is_killed_is_resumed_on_another(cohort, tmp_path, monkeypatch):
    """Two worker processes that started elsewhere; one is killed while it trains, after its first validation."""
    from distributed import LocalCluster

    table = grid(seed=[0, 1])
    settings = replace(SETTINGS, train=replace(TINY, steps=60))
    killed: list[str] = []
    over_all = threading.Event()

    def kill_one() -> None:
        while not over_all.is_set():
            for name in table["name"]:
                place = tmp_path / name
                stopped, over = place / "working" / "last.ckpt", place / "model.safetensors"
                if stopped.is_file() and not over.is_file():
                    os.kill(int((place / "attempts.txt").read_text().split()[-1]), signal.SIGKILL)
                    killed.append(name)
                    return
            time.sleep(0.05)

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        monkeypatch.chdir(tmp_path)
        thread = threading.Thread(target=kill_one)
        thread.start()
        try:
            result = run_grid(table, cohort, ".", settings, scheduler=cluster.scheduler_address)
        finally:
            over_all.set()
            thread.join()
    assert len(killed) == 1
    assert result["f1"].notna().all()
    assert {name: attempts(tmp_path, name) for name in table["name"]} == {
        name: 1 + (name in killed) for name in table["name"]
    }
    # It went on rather than began again: what was validated before the kill is in the history, once.
    steps = pd.read_csv(tmp_path / killed[0] / "history.csv")["step"].tolist()
    assert steps == [20, 40, 60]
