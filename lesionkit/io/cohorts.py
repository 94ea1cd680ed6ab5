"""BIDS cohorts: which files belong to which patient, and in which split; no voxel is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lesionkit.io.files import atomic_path, check_is_file, data_error
from lesionkit.io.tables import read_table, read_text, write_table

SPLITS = ("train", "validation", "test")
"""Names that the ``split`` column of a cohort may hold."""

_LESIONS = Path("derivatives", "lesions")
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_CHANNEL = re.compile(r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Case:
    """The files of one patient; nothing is read yet."""

    subject: str
    """BIDS label with its prefix, such as ``sub-01``."""
    images: tuple[Path, ...]
    """One image a channel, in the order of `Cohort.channels`."""
    mask: Path | None
    """Lesion mask, if there is one."""
    points: Path | None
    """Table of lesion points, if there is one."""
    split: str
    """One of `SPLITS`."""
    brain: Path | None = None
    """Mask of the brain, if there is one."""
    dataset: str = ""
    """Where the patient comes from, in a cohort of several sources (column ``dataset`` of ``participants.tsv``)."""


@dataclass(frozen=True)
class Cohort:
    """Cases with the same channels; a sequence of `Case`."""

    folder: Path
    """The BIDS folder."""
    kind: str
    """What is looked for, such as ``gad`` or ``flair``; ``unknown`` if the folder does not say."""
    channels: tuple[str, ...]
    """BIDS suffixes of the images, such as ``ce-gad_T1w`` and ``T1w``, in the order in which a network takes them."""
    cases: tuple[Case, ...]
    """The patients, in the order of ``participants.tsv``."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else the folder's description says, such as the seed of a simulation."""

    def __len__(self) -> int:
        """Count the cases."""
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        """Go through the cases in order."""
        return iter(self.cases)

    def __getitem__(self, place: int) -> Case:
        """Return one case."""
        return self.cases[place]

    def absolute(self) -> Cohort:
        """Return the same cohort with absolute paths, which mean the same to a process started elsewhere."""
        cases = tuple(
            replace(
                case,
                images=tuple(path.absolute() for path in case.images),
                mask=case.mask and case.mask.absolute(),
                points=case.points and case.points.absolute(),
                brain=case.brain and case.brain.absolute(),
            )
            for case in self.cases
        )
        return replace(self, folder=self.folder.absolute(), cases=cases)

    def digest(self) -> str:
        """Tell the cohort from others, wherever it lies: patients, splits, channels, points, sizes of images and masks.

        Returns
        -------
        str
            Hexadecimal; equal for equal cohorts.
        """
        facts = hashlib.sha256(repr((self.kind, self.channels)).encode())
        for case in self.cases:
            sizes = [path.stat().st_size for path in (*case.images, case.mask) if path is not None]
            facts.update(repr((case.subject, case.split, sizes)).encode())
            if case.points is not None:
                facts.update(case.points.read_bytes())
        return facts.hexdigest()

    def split(self, name: str) -> list[Case]:
        """Return the cases of one split.

        Parameters
        ----------
        name : str
            One of `SPLITS`.

        Returns
        -------
        list of Case
            In the order of the cohort; empty if the split has no patient.

        Raises
        ------
        ValueError
            If `name` is no split.
        """
        if name not in SPLITS:
            raise ValueError(f"there is no split {name!r}; one of {', '.join(SPLITS)} is wanted")
        return [case for case in self.cases if case.split == name]


def case_layout(folder: str | os.PathLike[str], subject: str, channels: Sequence[str], *, split: str) -> Case:
    """Return the paths that a case has in a BIDS cohort, whether or not the files exist: where to write a new case.

    Parameters
    ----------
    folder : path
        The cohort.
    subject : str
        BIDS label, such as ``sub-01``.
    channels : sequence of str
        BIDS suffixes of the images, such as ``FLAIR`` or ``ce-gad_T1w``.
    split : str
        One of `SPLITS`.

    Returns
    -------
    Case
        ``sub-01/anat/sub-01_FLAIR.nii.gz``, and mask and points under ``derivatives/lesions``.

    Raises
    ------
    ValueError
        If a label, a channel or the split has a form that BIDS or this kit does not know.
    """
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"subject is {subject!r}; 'sub-' and then letters and digits are wanted")
    for channel in channels:
        if not _CHANNEL.fullmatch(channel):
            raise ValueError(f"channel is {channel!r}; a BIDS suffix such as FLAIR or ce-gad_T1w is wanted")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; one of {', '.join(SPLITS)} is wanted")
    anat = Path(folder) / subject / "anat"
    truth = Path(folder) / _LESIONS / subject / "anat"
    return Case(
        subject=subject,
        images=tuple(anat / f"{subject}_{channel}.nii.gz" for channel in channels),
        mask=truth / f"{subject}_label-lesion_mask.nii.gz",
        points=truth / f"{subject}_label-lesion_points.tsv",
        split=split,
        brain=anat / f"{subject}_desc-brain_mask.nii.gz",
    )


def read_cohort(folder: str | os.PathLike[str]) -> Cohort:
    """Find the files of a BIDS cohort; no voxel and no point is read.

    Parameters
    ----------
    folder : path
        Holds ``participants.tsv`` (participant_id, split), ``sub-XX/anat/sub-XX_<channel>.nii.gz`` and, where known,
        mask and points under ``derivatives/lesions``. The channels come from ``dataset_description.json``; without
        them, those of the first patient are taken in alphabetical order.

    Returns
    -------
    Cohort
        Its cases, in the order of ``participants.tsv``.

    Raises
    ------
    DataError
        If a table or a description cannot be used, an image is missing, or a path leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise data_error(folder, wrong, "a BIDS folder with participants.tsv is wanted")
    table = folder / "participants.tsv"
    _check_inside(table, folder)
    columns, rows = read_table(table, ("participant_id", "split"))
    kind, channels, extra = read_cohort_description(folder)
    cases: dict[str, Case] = {}
    for line, row in rows:
        entries = dict(zip(columns, (entry.strip() for entry in row), strict=True))
        subject = entries["participant_id"]
        try:
            layout = case_layout(folder, subject, channels, split=entries["split"])
        except ValueError as error:
            wrong, _, wanted = str(error).partition("; ")
            raise data_error(table, f"line {line}: {wrong}", wanted) from error
        if subject in cases:
            raise data_error(table, f"line {line} names {subject} a second time", "one line for each patient is wanted")
        if not channels:
            channels = _found_channels(folder, subject)
            layout = case_layout(folder, subject, channels, split=entries["split"])
        cases[subject] = replace(_existing(layout, folder), dataset=entries.get("dataset", ""))
    return Cohort(folder, kind, channels, tuple(cases.values()), extra)


def write_participants(folder: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write the ``participants.tsv`` of a cohort, atomically.

    Parameters
    ----------
    folder : path
        The cohort; made if missing.
    frame : DataFrame
        Columns ``participant_id`` and ``split``, and any others.

    Raises
    ------
    ValueError
        If a column is missing, a label or split has the wrong form, or a patient comes twice (a split is by patient).
    DataError
        If the file cannot be written.
    """
    if not {"participant_id", "split"} <= set(frame.columns):
        raise ValueError(f"frame has the columns {list(frame.columns)}; participant_id and split are wanted")
    if frame["participant_id"].duplicated().any():
        raise ValueError("frame names a patient twice in participant_id; one row for each is wanted")
    for subject, split in zip(frame["participant_id"], frame["split"], strict=True):
        case_layout(folder, str(subject), (), split=str(split))
    write_table(Path(folder) / "participants.tsv", frame)


def write_cohort_description(folder: str | os.PathLike[str], kind: str, channels: Sequence[str], **extra: Any) -> None:
    """Write the ``dataset_description.json`` of a cohort, atomically.

    Parameters
    ----------
    folder : path
        The cohort; made if missing.
    kind : str
        What is looked for, such as ``gad`` or ``flair``.
    channels : sequence of str
        BIDS suffixes of the images, in the order in which a network takes them.
    **extra
        More to remember, as JSON can hold it; comes back as `Cohort.extra`.

    Raises
    ------
    ValueError
        If there is no channel, or `kind` or a channel has the wrong form.
    TypeError
        If `extra` holds what JSON cannot.
    DataError
        If the file cannot be written.
    """
    if not kind or not channels or isinstance(channels, str):
        raise ValueError(f"kind is {kind!r} and channels {channels!r}; a name and at least one BIDS suffix are wanted")
    case_layout(folder, "sub-0", channels, split="train")
    ours = {**extra, "kind": kind, "channels": list(channels)}
    content = {"Name": f"lesionkit cohort ({kind})", "BIDSVersion": "1.9.0", "DatasetType": "raw", "lesionkit": ours}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_path(Path(folder) / "dataset_description.json") as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_cohort_description(folder: str | os.PathLike[str]) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Read the ``dataset_description.json`` of a cohort, whether or not its cases are there yet.

    Parameters
    ----------
    folder : path
        The cohort.

    Returns
    -------
    kind, channels, extra
        As :func:`write_cohort_description` wrote them; ``unknown`` and empty where there is no description.

    Raises
    ------
    DataError
        If the description cannot be used, or is a link out of the folder.
    """
    folder = Path(folder)
    path = folder / "dataset_description.json"
    if not path.exists():
        return "unknown", (), {}
    _check_inside(path, folder)
    wanted = 'a "lesionkit" block with "kind" and "channels" is wanted'
    try:
        content = json.loads(read_text(path, "a JSON file is wanted"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise data_error(path, f"is not JSON ({error})", wanted) from error
    ours = content.get("lesionkit", {}) if isinstance(content, dict) else None
    if not isinstance(ours, dict):
        raise data_error(path, "holds no JSON object where one belongs", wanted)
    kind, channels = ours.pop("kind", "unknown"), ours.pop("channels", [])
    if not isinstance(kind, str) or not isinstance(channels, list):
        raise data_error(path, f"gives the kind {kind!r} and the channels {channels!r}", wanted)
    for channel in channels:
        if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel):
            raise data_error(
                path, f"names the channel {channel!r}", "a BIDS suffix such as FLAIR or ce-gad_T1w is wanted"
            )
    return kind, tuple(channels), ours


def _found_channels(folder: Path, subject: str) -> tuple[str, ...]:
    anat = folder / subject / "anat"
    _check_inside(anat, folder)
    names = sorted(path.name.partition(".")[0] for path in anat.glob(f"{subject}_*.nii*")) if anat.is_dir() else []
    names = [name for name in names if not name.endswith("_mask")]
    channels = tuple(dict.fromkeys(name.removeprefix(f"{subject}_") for name in names))
    if not channels:
        raise data_error(anat, "holds no image", f"{subject}_<channel>.nii.gz is wanted")
    return channels


def _existing(layout: Case, folder: Path) -> Case:
    """Replace the paths of a layout by what is there; images must be, truth need not."""
    images = [_find(path, folder) for path in layout.images]
    for path, image in zip(layout.images, images, strict=True):
        if image is None:
            raise data_error(path, "does not exist", f"an image of every channel is wanted for {layout.subject}")
    return Case(
        subject=layout.subject,
        images=tuple(image for image in images if image is not None),
        mask=_find(layout.mask, folder),
        points=_find(layout.points, folder),
        split=layout.split,
        brain=_find(layout.brain, folder),
    )


def _find(path: Path | None, folder: Path) -> Path | None:
    """Return a file of the cohort, zipped or not; None if it is not there."""
    if path is None:
        return None
    unzipped = path.with_suffix("") if path.name.endswith(".nii.gz") else path
    there = [name for name in dict.fromkeys((path, unzipped)) if name.exists() or name.is_symlink()]
    if len(there) > 1:
        raise data_error(path, f"stands beside {unzipped.name}", "one of the two is wanted")
    for name in there:
        _check_inside(name, folder)
        check_is_file(name, "a file is wanted")
        return name
    return None


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse links that lead out of a cohort, which may come from a stranger."""
    try:
        target, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise data_error(path, f"cannot be followed ({error})", "a file inside the cohort is wanted") from error
    if not target.is_relative_to(root):
        raise data_error(path, f"leads out of the cohort, to {target}", "a file inside the cohort is wanted")
