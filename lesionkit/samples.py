"""The cases that come with the kit (`data_samples/`), by name.

In: the name of a sample. Out: the paths of its files, or what a network has found in 60 patients.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lesionkit.io import Case, Cohort, DataError, read_cohort, read_points
from lesionkit.io.fetch import ENVIRONMENT
from lesionkit.io.tables import read_table

if TYPE_CHECKING:
    from lesionkit.metrics import CasePoints


def samples_folder() -> Path:
    """Return the folder of the samples: inside the installed package, or beside it in a checkout.

    Raises
    ------
    DataError
        If neither is there.
    """
    package = Path(__file__).parent
    for folder in (package / "data_samples", package.parent / "data_samples"):
        if (folder / "gad").is_dir():
            return folder
    raise DataError(f"{package.parent / 'data_samples'}: the sample cases are missing; install lesionkit again")


def sample(kind: str) -> tuple[Cohort, Case]:
    """Return the sample case of a kind (`gad` or `flair`), and the small cohort that holds it.

    Raises
    ------
    ValueError
        If there is no sample of that kind.
    """
    names = sorted(path.name for path in samples_folder().iterdir() if (path / "dataset_description.json").is_file())
    if kind not in names:
        raise ValueError(f"kind must be one of {', '.join(names)}, got {kind!r}")
    cohort = read_cohort(samples_folder() / kind)
    return cohort, cohort[0]


def real_patients() -> list[Path]:
    """Return the folders of real patients with a FLAIR image, as `lesionkit fetch ljubljana` writes them.

    They are looked for where `LESIONKIT_DATA` says, and in `ljubljana` in the working folder; none is part of the kit.
    """
    places = [os.environ.get(ENVIRONMENT), "ljubljana"]
    found = (sorted(Path(place).glob("cross/patient*/FLAIR.nii.gz")) for place in places if place)
    return [path.parent for path in next(filter(None, found), [])]


def sample_candidates() -> dict[str, list[CasePoints]]:
    """Read what the shipped `gad` network finds in 60 simulated patients that it has not seen, and the truth.

    Returns
    -------
    dict
        `validation` and `test`: one entry a patient, all candidates, in mm.
    """
    from lesionkit.metrics import CasePoints

    folder = samples_folder() / "candidates"
    found, truth = read_points(folder / "candidates.tsv"), read_points(folder / "points.tsv")
    columns, rows = read_table(folder / "participants.tsv", ("participant_id", "split"))
    cases: dict[str, list[CasePoints]] = {"validation": [], "test": []}
    for _, values in rows:
        patient = dict(zip(columns, values, strict=True))
        subject, split = patient["participant_id"], patient["split"]
        one, true = found[found["subject"] == subject], truth[truth["subject"] == subject]
        cases[split].append(
            CasePoints(
                predicted=one[["x", "y", "z"]].to_numpy(dtype=float),
                score=one["alpha"].to_numpy(dtype=float),
                true=true[["x", "y", "z"]].to_numpy(dtype=float),
                sizes=true["size_vox"].to_numpy(dtype=float),
                subject=subject,
                split=split,
                unfitted=one["alpha_window"].to_numpy(dtype=float),
            )
        )
    return cases
