"""Trainings that are killed, run out of disk, are shared by processes, stop early or learn nothing."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lesionkit.checkpoints import load_checkpoint
from lesionkit.cli import main
from lesionkit.io import DataError
from lesionkit.io.pictures import write_png
from lesionkit.model import ModelConfig
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import CohortData, TrainConfig, train
from lesionkit.training.watch import nothing_learned

EASY = SimulationConfig(spacing=4.0, min_size=8, lesions=(8.0, 0.2), contrast=(25, 30), lookalikes=0.0)
TINY = TrainConfig(
    model=ModelConfig(levels=2, filters=4, dropout=0.05),
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
from lesionkit.model import ModelConfig  # in the changes
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
    said = r"\S*DataError: .*\.ckpt: cannot be written \(File too large\); a writable place is wanted"
    assert re.fullmatch(said, errors.splitlines()[-1]), errors
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*"))


@pytest.mark.parametrize("what", ["checkpoint", "log"])
def test_a_disk_that_fills_up_is_said_by_the_command(what, cohort, tmp_path, capsys, monkeypatch):
    """As the system says it: nothing smaller than a disk can be filled here without rights."""

    write = Path.write_bytes

    def full(place, *content):
        if what == "checkpoint" and place.suffix != ".ckpt":
            return write(place, *content)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = ["train", str(cohort.folder), "--steps", "1", "-o", str(tmp_path)]
    assert main(arguments) == 0
    before = (tmp_path / "model.safetensors").read_bytes()
    capsys.readouterr()
    name = (
        "lesionkit.training.watch.Path.write_bytes"
        if what == "checkpoint"
        else "lightning.pytorch.loggers.CSVLogger.save"
    )
    monkeypatch.setattr(name, full)
    assert main(arguments) == 2
    file = tmp_path / "working" / "best.ckpt" if what == "checkpoint" else tmp_path
    said = capsys.readouterr().err
    assert said.startswith(f"lesionkit: {file}: cannot be written (No space left on device); "), said
    assert said.count("\n") == 1
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("inside", ["", "working"])
def test_a_folder_that_cannot_be_written_is_named(inside, cohort, tmp_path, capsys, monkeypatch):
    """As the system says it; root may write into every folder."""

    def refused(*_, **options):
        if options["dir"] == tmp_path / inside:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return TemporaryFile(**options)

    monkeypatch.setattr("lesionkit.training.folder.TemporaryFile", refused)
    assert main(["train", str(cohort.folder), "--steps", "1", "-o", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    reason = "cannot be written (Read-only file system); a folder that can be written is wanted"
    assert said == f"lesionkit: {tmp_path / inside}: {reason}\n"
    assert not list(tmp_path.rglob("*.*"))


def test_processes_on_two_machines_keep_their_cases_apart(cohort, tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    def asked(*_, scratch):
        raise Asked(scratch)

    monkeypatch.setattr("lesionkit.training.run.CohortData", asked)
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)  # Lightning remembers the rank for the whole process
    names = set()
    for node in "01":
        for name, value in {"NODE_RANK": node, "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Asked) as caught:
            train(cohort, tmp_path, TINY, progress=False, num_nodes=2)
        names.add(caught.value.args[0])
    assert names == {tmp_path / "working" / "cases_0", tmp_path / "working" / "cases_1"}


def test_a_folder_that_cannot_be_made_is_named(cohort):
    with pytest.raises(DataError, match=r"/proc/lesionkit.*cannot be made"):
        train(cohort, "/proc/lesionkit", TINY, progress=False)


def test_two_processes_train_as_one_with_the_doubled_batch(cohort, start, tmp_path):
    changes = {"batch_size": 8, "steps": 12, "validate_every": 6, "model": replace(TINY.model, dropout=0.0)}
    running = start(tmp_path / "two", devices=2, **changes)
    _, errors = running.communicate(timeout=500)
    assert running.returncode == 0, errors
    train(cohort, tmp_path / "one", replace(TINY, **changes), progress=False, precision="32-true")
    one, two = (pd.read_csv(tmp_path / name / "log" / "version_0" / "metrics.csv") for name in ("one", "two"))
    assert two["loss"].dropna().to_numpy() == pytest.approx(one["loss"].dropna().to_numpy(), rel=1e-4)
    assert len(two["loss"].dropna()) == 2
    assert len(two["batch_loss"].dropna()) == 1
    assert two["batch_loss"].dropna().to_numpy() == pytest.approx(one["batch_loss"].dropna().to_numpy(), rel=1e-4)
    assert two["val_f1"].dropna().to_numpy() == pytest.approx(one["val_f1"].dropna().to_numpy(), abs=1e-6)
    for name, weight in _weights(tmp_path / "one").items():
        assert torch.allclose(_weights(tmp_path / "two")[name], weight, rtol=1e-3, atol=1e-4), name


def test_a_batch_that_cannot_be_shared_is_refused(cohort, tmp_path):
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        train(cohort, tmp_path, TINY, progress=False, devices=3)
    with pytest.raises(ValueError, match="more than there are validation cases"):
        train(cohort, tmp_path, replace(TINY, validation_cases=1), progress=False, devices=2)


def test_training_stops_early_without_progress(cohort, tmp_path):
    config = replace(TINY, learning_rate=1e-9, patience=2)  # cannot learn
    train(cohort, tmp_path, config, progress=False)
    history = pd.read_csv(tmp_path / "history.csv")
    assert len(history) == 3  # the first is the best, and two more
    assert (tmp_path / "filmstrip.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "log").glob("**/metrics.csv"))


@pytest.mark.parametrize(
    ("label", "bias", "radius", "recall"),
    [("heatmap", -4.0, 6.0, 0.0), ("euclidean", -2.5, 9.0, 0.06), ("geodesic", -4.0, 6.0, 0.0),
     ("segmentation", -4.0, 6.0, 0.0)],
)  # fmt: skip
def test_a_network_that_learns_only_the_background_is_spoken_of_thrice(
    label, bias, radius, recall, cohort, tmp_path, capsys
):
    """Also where blobs of noise lie on some lesions, and where it is interrupted: it does not begin to count again."""

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 9:
                raise RuntimeError("power cut")

    model = replace(TINY.model, bias=bias)
    config = replace(TINY, label=label, learning_rate=1e-9, steps=16, radius=radius, model=model)
    with pytest.raises(RuntimeError, match="power cut"):
        train(cohort, tmp_path, config, progress=False, watchers=[Stop()])
    assert capsys.readouterr().out.count("the network predicts only background (loss") == 2
    train(cohort, tmp_path, config, resume=True, progress=False)
    assert capsys.readouterr().out.count("the network predicts only background (loss") == 1
    assert pd.read_csv(tmp_path / "history.csv")["val_recall"].min() >= recall


def test_a_training_that_diverges_is_told_from_one_that_learns_only_the_background(cohort, tmp_path, capsys):
    config = replace(TINY, learning_rate=1.0, steps=8, seed=2, model=replace(TINY.model, activation="linear"))
    train(cohort, tmp_path, config, progress=False, precision="32-true")  # chance finds lesions in a few maps of noise
    printed = capsys.readouterr().out
    assert printed.count("times that of predicting nothing (validation F1 0.00): if it stays so, the training di") == 2
    assert "only background" not in printed


@pytest.mark.parametrize(
    ("loss", "f1", "told"),
    [
        (0.99, 0.0, "predicts only background"),
        (1.3, 0.02, "predicts only background"),
        (5.0, 0.02, "the training diverges"),
        (0.6, 0.0, ""),
        (0.99, 0.3, ""),
        (5.0, 0.3, ""),
        (400.0, 0.3, "the training diverges"),
    ],
)
def test_nothing_learned_is_told_by_loss_and_f1(loss, f1, told):
    line = nothing_learned(loss * 4.0, 4.0, f1)
    assert told in line
    assert bool(line) == bool(told) == ("try" in line)
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
