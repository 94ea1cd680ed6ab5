"""Trainings that are killed, run out of disk, are shared by processes, stop early or learn nothing."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import DataError
from lesionkit.io.pictures import write_png
from lesionkit.model import ModelConfig
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import CohortData, TrainConfig, train
from lesionkit.training.watch import background_only

EASY = SimulationConfig(spacing=4.0, min_size=8, lesions=(8.0, 0.2), contrast=(25, 30), lookalikes=0.0)
TINY = TrainConfig(
    model=ModelConfig(levels=2, filters=4, dropout=0.0),
    patch=(16, 16, 16),
    window=32,
    steps=24,
    validate_every=4,
    validation_cases=2,
    threshold_cases=2,
    workers=0,
)

SCRIPT = """
import resource, sys
from dataclasses import replace
from lesionkit.io import read_cohort
from tests.test_training_faults import TINY
from lesionkit.training import train

if __name__ == "__main__":
    cohort, folder, devices, limit, changes = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    config = replace(TINY, **eval(changes))
    train(read_cohort(cohort), folder, config, resume=True, progress=False, devices=int(devices), precision="32-true")
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(EASY, 10, tmp_path_factory.mktemp("cohort"), seed=1)


@pytest.fixture
def start(cohort, tmp_path):
    """Start a training in a process of its own, or two; returns what `Popen` does."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    root = str(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | {"PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}

    def run(folder, *, devices=1, limit=0, **changes):
        arguments = [str(cohort.folder), str(folder), str(devices), str(limit), repr(changes)]
        return subprocess.Popen(
            [sys.executable, str(script), *arguments], env=environment, cwd=root, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # inherited as "ignored" in the background
        )  # fmt: skip

    return run


def _weights(folder):
    return torch.load(folder / "working" / "last.ckpt", weights_only=True)["state_dict"]


def test_killed_at_a_random_moment_it_resumes_to_the_same_weights(cohort, start, tmp_path):
    train(cohort, tmp_path / "whole", TINY, progress=False, precision="32-true")
    running = start(tmp_path / "killed")
    last = tmp_path / "killed" / "working" / "last.ckpt"
    while not last.is_file():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    time.sleep(random.uniform(0, 1.5))
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert torch.load(last, weights_only=True)["global_step"] <= TINY.steps
    train(cohort, tmp_path / "killed", TINY, resume=True, progress=False, precision="32-true")
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "killed")
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name
    cards = [load_checkpoint(tmp_path / name / "model.safetensors").card for name in ("killed", "whole")]
    assert cards[0] == cards[1]
    for name in ("history.csv", "filmstrip.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("label", ["heatmap", "segmentation"])
def test_a_cohort_that_stays_on_disk_gives_the_same_network(label, cohort, tmp_path, monkeypatch):
    config = replace(TINY, label=label, steps=4, workers=1)
    train(cohort, tmp_path / "memory", config, progress=False)
    monkeypatch.setattr("lesionkit.training.data.IN_MEMORY", 0)
    data = CohortData(cohort, config, scratch=tmp_path / "cases")
    data.setup()
    on_disk = sorted(path.name for path in (tmp_path / "cases").iterdir())
    assert len(on_disk) == len(cohort.split("train")) * (3 if label == "segmentation" else 2)
    data.close()
    assert not (tmp_path / "cases").exists()
    train(cohort, tmp_path / "disk", config, progress=False)
    for name, weight in _weights(tmp_path / "memory").items():
        assert torch.equal(weight, _weights(tmp_path / "disk")[name]), name
    assert sorted(path.name for path in (tmp_path / "disk" / "working").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_full_disk_is_said_and_the_previous_checkpoint_stays(start, tmp_path):
    """The limit on the size of a file stands for the disk: writing fails halfway, as on a full one."""
    running = start(tmp_path / "run")
    last = tmp_path / "run" / "working" / "last.ckpt"
    while not last.is_file():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    before = last.read_bytes()
    stopped = start(tmp_path / "run", limit=len(before) // 2)
    _, errors = stopped.communicate(timeout=300)
    assert stopped.returncode != 0
    assert re.search(r"DataError: .*\.ckpt: cannot be written \(File too large\); a writable place", errors), errors
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*"))


def test_a_folder_that_cannot_be_made_is_named(cohort):
    with pytest.raises(DataError, match=r"/proc/lesionkit.*cannot be made"):
        train(cohort, "/proc/lesionkit", TINY, progress=False)


def test_two_processes_train_as_one_with_the_doubled_batch(cohort, start, tmp_path):
    changes = {"batch_size": 8, "steps": 8}
    running = start(tmp_path / "two", devices=2, **changes)
    _, errors = running.communicate(timeout=500)
    assert running.returncode == 0, errors
    train(cohort, tmp_path / "one", replace(TINY, **changes), progress=False, precision="32-true")
    one, two = (pd.read_csv(tmp_path / name / "log" / "version_0" / "metrics.csv") for name in ("one", "two"))
    assert two["loss"].dropna().to_numpy() == pytest.approx(one["loss"].dropna().to_numpy(), rel=1e-4)
    assert len(two["loss"].dropna()) == 2
    assert two["val_f1"].dropna().to_numpy() == pytest.approx(one["val_f1"].dropna().to_numpy(), abs=1e-6)
    for name, weight in _weights(tmp_path / "one").items():
        assert torch.allclose(_weights(tmp_path / "two")[name], weight, rtol=1e-3, atol=1e-4), name


def test_a_batch_that_cannot_be_shared_is_refused(cohort, tmp_path):
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        train(cohort, tmp_path, TINY, progress=False, devices=3)
    with pytest.raises(ValueError, match="more than there are validation cases"):
        train(cohort, tmp_path, replace(TINY, validation_cases=1), progress=False, devices=2)


def test_training_stops_early_without_progress_and_says_when_it_learns_only_background(cohort, tmp_path, capsys):
    config = replace(TINY, learning_rate=1e-9, patience=2)  # cannot learn
    train(cohort, tmp_path, config, progress=False)
    history = pd.read_csv(tmp_path / "history.csv")
    assert len(history) == 3  # the first is the best, and two more
    printed = capsys.readouterr().out
    assert printed.count("predicts only background") <= 3
    if history["val_recall"].max() <= 0.05:
        assert "predicts only background" in printed
    assert (tmp_path / "filmstrip.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "log").glob("**/metrics.csv"))


@pytest.mark.parametrize(
    ("loss", "recall", "warns"), [(0.99, 0.0, True), (1.3, 0.02, True), (0.6, 0.0, False), (0.99, 0.3, False)]
)
def test_background_only_is_told_by_loss_and_recall(loss, recall, warns):
    line = background_only(loss * 4.0, 4.0, recall)
    assert ("try" in line) == warns
    assert "\n" not in line


def test_a_picture_is_written_as_png(tmp_path, rng):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "p.png", pixels)
    content = (tmp_path / "p.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\7\0\0\0\5\x08\2")
    assert zlib.decompress(content[content.index(b"IDAT") + 4 :][:-16])[1:22] == pixels[0].tobytes()
    with pytest.raises(ValueError, match="pixels must be"):
        write_png(tmp_path / "p.png", pixels[..., 0])


def test_ctrl_c_stops_a_training_and_leaves_nothing_half_written(cohort, start, tmp_path):
    running = start(tmp_path / "run", steps=100_000, validate_every=4)
    last = tmp_path / "run" / "working" / "last.ckpt"
    while not last.is_file():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode != 0
    assert errors.splitlines()[-1] == "KeyboardInterrupt"  # of a script; the command ends with 130
    assert torch.load(last, weights_only=True)["global_step"] >= 4
    names = [path.name for path in (tmp_path / "run").rglob("*")]
    assert not [name for name in names if name.startswith((".", "cases_"))]
    assert "model.safetensors" not in names


def test_ctrl_c_that_python_drops_stops_a_training_too(cohort, tmp_path, monkeypatch):
    """Python drops what is raised while an object is deleted, as the workers of an epoch are."""

    class Doomed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    class Presses(pl.Callback):
        def on_train_batch_end(self, *_):
            Doomed()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit "ignored"
    try:
        with pytest.raises(KeyboardInterrupt):
            train(cohort, tmp_path, TINY, progress=False, watchers=[Presses()])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and it works in the next one
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "model.safetensors").exists()
