"""A training step and a prediction as shipped, against plain float32 and against MONAI's BasicUNet and sliding window.

Also how long training waits for data, and how much memory it takes: `python -m benchmarks training`
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from benchmarks.timing import Row, interleaved
from lesionkit.inference import fast_bf16, predict_array
from lesionkit.io import Cohort, write_participants
from lesionkit.model import UNet
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import PatchDataset, TrainConfig, load_case

PEER_FEATURES = (16, 32, 64, 80, 16, 16)
"""Of MONAI's BasicUNet, which has five levels: with these it has our parameters within 2 % and about 12 % more products
(the fifth level is nearly idle, and its last level concatenates more channels)."""

MEMORY = """
import resource, sys
from dataclasses import replace
from lesionkit.io import read_cohort
from lesionkit.training import TrainConfig, train
config = replace(TrainConfig.preset("cpu"), steps=2, validation_cases=1, threshold_cases=1)
train(read_cohort(sys.argv[1]), sys.argv[2], config, progress=False)
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def rows(*, quick: bool = False) -> list[Row]:
    """Measure the `gad` recipe (4 patches of 40^3, 16 filters), and what the `cpu` preset waits for and holds."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(SimulationConfig.preset("gad"), 3, Path(folder) / "cohort", seed=0)
        return [*_steps(quick), *_waiting(cohort, quick), *_prediction(quick), *_memory(Path(folder), quick)]


def _step(model: torch.nn.Module, config: TrainConfig, *, bf16: bool) -> Callable[[], None]:
    batch = torch.randn(config.batch_size, 2, *config.patch)
    label = torch.rand(config.batch_size, 1, *config.patch)
    optimiser = torch.optim.Adam(model.parameters())

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(batch)
        optimiser.zero_grad()
        ((output.float() - label) ** 2).sum().backward()
        optimiser.step()

    return run


def _network(config: TrainConfig) -> UNet:
    return UNet(replace(config.model, channels=2))


def _steps(quick: bool) -> list[Row]:
    config = TrainConfig.preset("gad")
    functions = {
        "ours": _step(_network(config), config, bf16=fast_bf16()),
        "fp32": _step(_network(config), config, bf16=False),
    }
    try:
        from monai.networks.nets import BasicUNet
    except ImportError:
        pass
    else:
        peer = BasicUNet(spatial_dims=3, in_channels=2, out_channels=1, features=PEER_FEATURES)
        functions["monai"] = _step(peer, config, bf16=False)
    seconds = interleaved(functions, repeats=3 if quick else 7)
    found = [
        Row(
            "training step: as shipped against plain fp32, same network", "",
            f"{seconds['fp32'] / seconds['ours']:.1f}x", None,
        ),
        Row("training step: time on the CPU", "", f"{seconds['ours']:.2f} s of CPU", None),
    ]  # fmt: skip
    if "monai" in seconds:
        ratio = seconds["monai"] / seconds["ours"]
        found.append(Row("training step: against MONAI BasicUNet, fp32", ">= 3x", f"{ratio:.1f}x", ratio >= 3))
    return found


def _waiting(cohort: Cohort, quick: bool) -> list[Row]:
    """Share of the time that a step waits for its patches, with one process that prepares them.

    `cpu` has the most patches for the work of a step, `gad` the fewest.
    """
    cases = [load_case(case) for case in cohort]
    found: list[Row] = []
    for name in ("gad", "cpu"):
        config = TrainConfig.preset(name)
        step = _step(_network(config), config, bf16=fast_bf16())
        steps = 6 if quick else 20
        dataset = PatchDataset(cases, config, start=0, length=(steps + 2) * config.batch_size)
        waited = worked = 0.0
        batches = iter(DataLoader(dataset, batch_size=config.batch_size, num_workers=config.workers))
        for number in range(steps + 2):
            start = time.perf_counter()
            next(batches)
            middle = time.perf_counter()
            step()
            if number >= 2:  # the first ones start the process
                waited, worked = waited + middle - start, worked + time.perf_counter() - middle
        share = waited / (waited + worked)
        found.append(Row(f"training: waiting for data, `{name}` preset", "< 5 %", f"{share:.1%}", share < 0.05))
    return found


def _prediction(quick: bool) -> list[Row]:
    """Predict a whole volume of 144 x 176 x 144 voxels, an ellipsoid of brain in it, with windows of 48."""
    shape, window = (144, 176, 144), 48
    config = TrainConfig.preset("flair")
    model = UNet(config.model).eval()
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    mask = (grid**2).sum(axis=0) < 0.95
    image = torch.from_numpy(np.where(mask, np.random.default_rng(0).standard_normal(shape), 0).astype(np.float32))[
        None
    ]
    seconds = _once(lambda: predict_array(model, image, mask, window=window))
    found = [Row("prediction: 144 x 176 x 144 voxels", "seconds", f"{seconds:.1f} s of CPU", None)]
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return found

    def peer() -> None:
        with torch.inference_mode():
            sliding_window_inference(image[None], (window,) * 3, 1, model, overlap=0.25, mode="gaussian")

    ratio = _once(peer) / seconds
    found.append(Row("prediction: against MONAI's sliding window, fp32, same network", "", f"{ratio:.1f}x", None))
    return found


def _once(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _memory(folder: Path, quick: bool) -> list[Row]:
    """Peak of the `cpu` preset on cohorts that repeat three cases; the larger one does not fit into its share."""
    found: list[Row] = []
    for n in (10,) if quick else (10, 1000):
        cohort = _repeated(folder / "cohort", folder / f"cohort_{n}", n)
        arguments = [sys.executable, "-W", "ignore", "-c", MEMORY, str(cohort), str(folder / f"run_{n}")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        gib = int(done.stdout.split()[-1]) / 2**20
        found.append(Row(f"memory: `cpu` preset, cohort of {n}", "< 4 GiB", f"{gib:.1f} GiB", gib < 4))
        shutil.rmtree(folder / f"run_{n}")
    return found


def _repeated(source: Path, target: Path, n: int) -> Path:
    """Make a cohort of `n` cases out of a small one, by hard links: every fifth is for validation."""
    (target / "derivatives").mkdir(parents=True)
    shutil.copy(source / "dataset_description.json", target)
    names = sorted(path.name for path in source.glob("sub-*"))
    subjects = [f"sub-{number:04d}" for number in range(n)]
    for number, subject in enumerate(subjects):
        old = names[number % len(names)]
        for path in source.glob(f"**/{old}_*"):
            new = target / Path(str(path.relative_to(source)).replace(old, subject))
            new.parent.mkdir(parents=True, exist_ok=True)
            new.hardlink_to(path)
    splits = ["validation" if number % 5 == 0 else "train" for number in range(n)]
    write_participants(target, pd.DataFrame({"participant_id": subjects, "split": splits}))
    return target
