"""A researcher's folder of images and clicks -> a checked BIDS cohort, written as a whole or not at all.

In: NIfTI images and point files, paired by folder or by name. Out: a cohort that `lesionkit train` reads, and one row a
file: what was done with it, or why it was refused.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.importing.config import ImportConfig
from lesionkit.importing.pairing import ImportRow, Patient, by_patient, only_channel, scan
from lesionkit.importing.patient import Refused, import_patient
from lesionkit.io import (
    SPLITS,
    Cohort,
    DataError,
    atomic_folder,
    one_line,
    read_cohort,
    read_table,
    read_volume,
    write_cohort_description,
    write_participants,
    write_table,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportReport:
    """The outcome of an import."""

    cohort: Cohort
    """As read back."""
    rows: tuple[ImportRow, ...]
    """One row a file of the folder, in alphabetical order."""


def import_cohort(
    folder: str | Path,
    output: str | Path,
    config: ImportConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Check a folder of images and points, and write the good patients as a BIDS cohort.

    Parameters
    ----------
    folder : path
        One subfolder a patient (``07/FLAIR.nii.gz``, ``07/clicks.mrk.json``), or names that start with the patient
        (``07_FLAIR.nii.gz``, ``07.mrk.json``); BIDS works too. Visits (``ses-01``, ``visit2``, a date) become a case
        each, in one split by person. ``*brainmask.nii.gz`` is a brain mask and
        ``*lesions.nii.gz`` a label image of lesions.
    output : path
        The cohort: a new or empty folder, outside `folder`.
    config : ImportConfig, optional
        Settings.
    progress : callable, optional
        Called with the number of patients done and of all.

    Returns
    -------
    ImportReport
        The cohort and a row for each file; the rows are also written as ``import_report.tsv``.

    Raises
    ------
    DataError
        If the folder or the output cannot be used, or the folder has several kinds of image and `config` names none;
        `NothingImported` if every patient is refused. Nothing is written then.

    Notes
    -----
    A brain mask is taken where one is given, and made by `lesionkit.preprocessing.brain_mask` where not; images are set
    to 0 outside it. Images of a patient on different grids are assumed to be registered and resampled onto the first.
    Points come from the point file or else from the label image.
    """
    config = config or ImportConfig()
    folder = Path(folder)
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(folder)):
        raise DataError(f"{output}: lies in the folder that is imported; a new folder elsewhere is wanted")
    files, rows = scan(folder, config.channels)
    channels = config.channels or only_channel(folder, files)
    patients, refused = by_patient(files, channels)
    rows += refused
    spacing = _common_spacing(patients, config.spacing)
    given = _given_splits(folder)
    visits = Counter(patient.person for patient in patients)
    with atomic_folder(output) as building:
        done: list[tuple[str, Patient, int]] = []
        for number, patient in enumerate(patients, start=1):
            subject = _label(patient, visits, {label for label, _, _ in done})
            try:
                n_points = import_patient(patient, subject, channels, spacing, building, config)
            except Refused as verdict:
                rows += _refusal(patient, verdict)
            else:
                done.append((subject, patient, n_points))
                rows += _acceptance(patient)
            if progress is not None:
                progress(number, len(patients))
        rows.sort(key=lambda row: row.file)
        if not done:
            raise NothingImported(tuple(rows))
        people = list(dict.fromkeys(patient.person for _, patient, _ in done))
        split_of = dict(zip(people, _splits(people, given, config.seed), strict=True))
        table = {
            "participant_id": [subject for subject, _, _ in done],
            "split": [split_of[patient.person] for _, patient, _ in done],
            "source": [patient.name for _, patient, _ in done],
            "person": [patient.person for _, patient, _ in done],
            "n_points": [n for _, _, n in done],
        }
        write_participants(building, pd.DataFrame(table))
        write_cohort_description(
            building, config.kind, channels, spacing_mm=list(spacing), split="given" if given else f"seed {config.seed}"
        )
        write_table(building / "import_report.tsv", rows_table(rows))
    return ImportReport(cohort=read_cohort(output), rows=tuple(rows))


class NothingImported(DataError):
    """Every patient was refused; `rows` says why."""

    def __init__(self, rows: tuple[ImportRow, ...]) -> None:
        refused = [row for row in rows if row.status == "refused" and "the patient is refused" not in row.what]
        why = f"the first: {refused[0].file}: {refused[0].what}" if refused else "images and point files are wanted"
        super().__init__(f"no patient of {len({row.patient for row in rows if row.patient})} can be used; {why}")
        self.rows = rows


def rows_table(rows: Sequence[ImportRow]) -> pd.DataFrame:
    """Return rows as a table: `file patient status what`."""
    columns = ["file", "patient", "status", "what"]
    return pd.DataFrame([[one_line(getattr(row, name)) for name in columns] for row in rows], columns=columns)


def _common_spacing(
    patients: Sequence[Patient], wanted: float | tuple[float, float, float] | None
) -> tuple[float, float, float]:
    """Return the spacing of the cohort, mm."""
    if wanted is not None:
        i, j, k = np.broadcast_to(np.asarray(wanted, dtype=float), (3,)).tolist()
        return i, j, k
    found = []
    for patient in patients:
        try:
            found.append(read_volume(patient.images[0].path).spacing)
        except DataError:  # said when its turn comes
            continue
    i, j, k = np.median(found, axis=0).round(3).tolist() if found else (1.0, 1.0, 1.0)
    return i, j, k


def _label(patient: Patient, visits: Counter[str], taken: set[str]) -> str:
    """Return a BIDS label for a patient, and the visit where there are several; a number tells apart what is alike."""
    name = patient.person + (patient.visit if visits[patient.person] > 1 else "")
    plain = re.sub(r"[^A-Za-z0-9]", "", name.removeprefix("sub-").encode("ascii", "ignore").decode()) or "patient"
    label, number = f"sub-{plain}", 2
    while label in taken:
        label, number = f"sub-{plain}x{number}", number + 1
    return label


def _given_splits(folder: Path) -> dict[str, str]:
    """Return the splits in the folder's ``participants.tsv``, by patient; empty if there is none."""
    path = folder / "participants.tsv"
    if not path.exists():
        return {}
    columns, rows = read_table(path, ("participant_id",))
    if "split" not in columns:
        return {}
    splits: dict[str, str] = {}
    for line, row in rows:
        name, split = row[columns.index("participant_id")].strip(), row[columns.index("split")].strip()
        if split not in SPLITS:
            raise DataError(f"{path}: line {line} has the split {split!r}; one of {', '.join(SPLITS)} is wanted")
        splits[name] = split
    return splits


def _splits(patients: Sequence[str], given: dict[str, str], seed: int) -> list[str]:
    """Return a split for each patient: as given, else 60/20/20 at random; train and validation fill first."""
    lacking = [name for name in patients if name not in given]
    if given and lacking:
        raise DataError(
            f"participants.tsv: gives no split for {', '.join(lacking[:5])}; one for each patient is wanted"
        )
    if given:
        return [given[name] for name in patients]
    n = len(patients)
    held_out = max(round(0.2 * n), int(n >= 2))
    tested = max(round(0.2 * n), int(n >= 3))
    splits = ["validation"] * held_out + ["test"] * tested + ["train"] * (n - held_out - tested)
    return [splits[place] for place in np.random.default_rng(seed).permutation(n)]


def _refusal(patient: Patient, verdict: Refused) -> list[ImportRow]:
    """Return the rows of a patient that was refused: the file at fault says why."""
    rows = []
    for file in patient.files():
        at_fault = file is verdict.file
        what = " ".join(verdict.why.splitlines()) if at_fault else f"the patient is refused: see {verdict.file.name}"
        rows.append(ImportRow(file=file.name, patient=patient.name, status="refused", what=what))
    return rows


def _acceptance(patient: Patient) -> list[ImportRow]:
    return [
        ImportRow(
            file=f.name,
            patient=patient.name,
            status="imported",
            what="; ".join(patient.notes.get(f.name, ["as it is"])),
        )
        for f in patient.files()
    ]
