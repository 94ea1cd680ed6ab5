"""Simulated cohorts on disk: many cases, in parallel, in the BIDS layout that training and evaluation read.

In: a `SimulationConfig`, a number of cases and a seed. Out: a folder of images, lesion masks, points and splits; beside
the images of a head lies its brain mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.io import (
    Cohort,
    case_layout,
    read_cohort,
    read_table,
    write_cohort_description,
    write_participants,
    write_points,
    write_volume,
)
from lesionkit.io.cohorts import read_cohort_description
from lesionkit.simulate.cases import simulate_case
from lesionkit.simulate.config import CHANNELS, SimulationConfig

SPLIT_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Shares of the patients (paper, section 4.1)."""


def draw_splits(n: int, *, rng: np.random.Generator) -> list[str]:
    """Draw the split of each of `n` patients, 60/20/20; with three patients or more none is empty."""
    held_out = max(round(n * SPLIT_SHARES["validation"]), int(n >= 3))
    tested = max(round(n * SPLIT_SHARES["test"]), int(n >= 2))
    splits = np.array(["validation"] * held_out + ["test"] * tested + ["train"] * (n - held_out - tested))
    return [str(name) for name in rng.permutation(splits)]


def simulate_cohort(
    config: SimulationConfig,
    n: int,
    folder: str | Path,
    *,
    seed: int = 0,
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Cohort:
    """Simulate a cohort and write it.

    Parameters
    ----------
    config : SimulationConfig
        Kind and difficulty.
    n : int
        Number of patients.
    folder : path
        Is created; complete cases that are already there are kept, if they are of the same `config`, `n` and `seed`.
    seed : int
        Images, mask and points of case `i` depend on `(seed, i)` alone, so that they are the same in a cohort of any
        size; its split depends on `n` too.
    jobs : int
        Processes.
    progress : callable, optional
        Called with the number of cases done.

    Returns
    -------
    Cohort
        As read back from the folder.

    Raises
    ------
    ValueError
        If `n` is not positive, `jobs` is 0, or the folder holds cases of another cohort, or without a description.
    DataError
        If the folder holds cases, and a description or a table of participants that cannot be used.
    """
    from joblib import Parallel, delayed

    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if jobs == 0:
        raise ValueError("jobs must be a number of processes, or -1 for one a core, got 0")
    folder = Path(folder)
    if any(folder.glob("sub-*")):
        _check_same(folder, config, n, seed)
    width = max(len(str(n)), 3)
    subjects = [f"sub-{number + 1:0{width}d}" for number in range(n)]
    splits = draw_splits(n, rng=np.random.default_rng([seed, 2**31]))
    write_participants(folder, pd.DataFrame({"participant_id": subjects, "split": splits}))
    # Before the first case: a cohort that is stopped in the middle still tells what it is.
    write_cohort_description(folder, config.kind, CHANNELS[config.kind], seed=seed, simulation=asdict(config))
    tasks = (
        delayed(_write_case)(config, folder, subject, split, seed, number)
        for number, (subject, split) in enumerate(zip(subjects, splits, strict=True))
    )
    for done, _ in enumerate(Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks), start=1):
        if progress is not None:
            progress(done)
    return read_cohort(folder)


def _check_same(folder: Path, config: SimulationConfig, n: int, seed: int) -> None:
    """Refuse to go on with a cohort of other settings; how many patients it has, its participants.tsv tells."""
    _, _, extra = read_cohort_description(folder)
    simulation = extra.get("simulation")
    if not isinstance(simulation, dict):
        raise ValueError(
            f"{folder}: holds cases, but no dataset_description.json that tells how they were simulated; give an empty "
            "folder"
        )
    _, rows = read_table(folder / "participants.tsv", ("participant_id", "split"))
    there = {"n": len(rows), "seed": extra.get("seed"), **simulation}
    wanted = {"n": n, "seed": seed, **{name: _as_json(value) for name, value in asdict(config).items()}}
    differing = [
        f"{name} {there.get(name)}, not {wanted.get(name)}"
        for name in {**wanted, **there}
        if there.get(name) != wanted.get(name)
    ]
    if differing:
        raise ValueError(
            f"{folder}: holds another cohort ({'; '.join(differing)}); give an empty folder, or the settings that it "
            "was made with"
        )


def _write_case(config: SimulationConfig, folder: Path, subject: str, split: str, seed: int, number: int) -> None:
    paths = case_layout(folder, subject, CHANNELS[config.kind], split=split)
    assert paths.mask is not None and paths.points is not None and paths.brain is not None  # noqa: PT018 (all named)
    if paths.points.is_file():  # written last: the case is complete
        return
    case = simulate_case(config, rng=np.random.default_rng([seed, number]))
    for path, image in zip(paths.images, case.images, strict=True):
        write_volume(path, image)
    if (case.images[0].data[case.brain.data == 0] != 0).any():  # a head
        write_volume(paths.brain, case.brain)
    write_volume(paths.mask, case.labels)
    write_points(paths.points, case.lesions[["x", "y", "z", "size_vox", "cnr"]])


def _as_json(value: object) -> object:
    """Tuples become lists, as in the file."""
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value
