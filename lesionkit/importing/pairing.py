"""Which file of a folder is what, and whose: by where it lies and what it is called; nothing is opened.

In: a folder. Out: patients with one file a role, and a row for each file that is left out or refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lesionkit.io import POINT_ENDINGS, DataError

Role = Literal["image", "brain", "lesions", "points", "other"]

_IMAGES = (".nii.gz", ".nii")
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)_(.+)")
_BRAIN = re.compile(r"(?:^|[_-])(?:desc-)?brain[_-]?mask$", re.IGNORECASE)
_LESIONS = re.compile(
    r"(?:^|[_-])(?:label-)?(?:lesions?(?:[_-]mask)?|labels?|segmentation|seg|consensus_gt|gt)$", re.IGNORECASE
)
_POINTS = re.compile(r"[_.-](?:label-)?(?:lesions?[_-])?(?:points?|lesions?|clicks|napari|fiducials?)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ImportRow:
    """What became of one file."""

    file: str
    """Path below the folder."""
    patient: str
    """Name of the patient in the folder; empty where a file belongs to none."""
    status: Literal["imported", "refused", "left out"]
    what: str
    """What was done, or why not and what is wanted; one line."""


@dataclass
class File:
    """A file of the folder and what it seems to be."""

    path: Path
    name: str
    role: Role
    patient: str
    channel: str = ""


@dataclass
class Patient:
    """The files of one patient, one a role."""

    name: str
    images: tuple[File, ...]
    brain: File | None
    lesions: File | None
    points: File | None
    notes: dict[str, list[str]] = field(default_factory=dict)

    def files(self) -> list[File]:
        """Return the files that there are."""
        return [f for f in (*self.images, self.brain, self.lesions, self.points) if f is not None]

    def say(self, file: File, what: str) -> None:
        """Note what was done with a file."""
        self.notes.setdefault(file.name, []).append(what)


def scan(folder: Path, channels: Sequence[str]) -> tuple[list[File], list[ImportRow]]:
    """Find the files and say what each seems to be; links that lead out of the folder are refused."""
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {wrong}; a folder of images and point files is wanted")
    root = folder.resolve()
    files: list[File] = []
    rows: list[ImportRow] = []
    try:
        found = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); a readable folder is wanted") from error
    for path in found:
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue
        name = "/".join(parts)
        if path.is_symlink() and not _leads_inside(path, root):
            rows.append(
                ImportRow(
                    file=name,
                    patient="",
                    status="refused",
                    what="a link out of the folder, or to itself; a file is wanted",
                )
            )
            continue
        if path.is_dir():
            rows.append(ImportRow(file=name, patient="", status="left out", what="a link to a folder"))
            continue
        file = _classified(path, parts, name, channels)
        if file.role == "other":
            what = "neither an image nor a point file"
            rows.append(ImportRow(file=name, patient=file.patient, status="left out", what=what))
        else:
            files.append(file)
    _adopt_points(files)
    return files, rows


def _leads_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop
        return False


def _classified(path: Path, parts: tuple[str, ...], name: str, channels: Sequence[str]) -> File:
    """Tell role, patient and channel from where a file lies and what it is called."""
    lower = path.name.lower()
    ending = next((e for e in sorted((*POINT_ENDINGS, *_IMAGES), key=len, reverse=True) if lower.endswith(e)), None)
    described = lower.endswith(".json") and not lower.endswith(".mrk.json")
    table = len(parts) == 1 and lower in ("participants.tsv", "import_report.tsv", "manifest.csv")
    if ending is None or described or table:
        return File(path, name, "other", "")
    stem = path.name[: -len(ending)]
    bids = _SUBJECT.fullmatch(stem)
    patient = bids.group(1) if bids else parts[0] if len(parts) > 1 else ""
    rest = bids.group(2) if bids else stem
    if patient and not bids and stem.startswith(patient):
        rest = stem[len(patient) :].strip("_-. ")
    if ending not in _IMAGES:
        return File(path, name, "points", patient or _POINTS.sub("", stem), rest)
    if not patient:  # the name alone says it: patient_role
        known = next(
            (c for c in channels if stem.lower().endswith(c.lower()) and stem[: -len(c)][-1:] in ("_", "-")), None
        )
        mask = _BRAIN.search(stem) or _LESIONS.search(stem)
        if known:
            patient, rest = stem[: -len(known) - 1], known
        elif mask and mask.start():
            patient, rest = stem[: mask.start()], stem[mask.start() :].strip("_-")
        else:
            patient, _, rest = stem.rpartition("_")
            patient, rest = (patient, rest) if patient else (rest, "")
    if _BRAIN.search(rest):
        return File(path, name, "brain", patient)
    if _LESIONS.search(rest):
        return File(path, name, "lesions", patient)
    if not rest and len(channels) == 1:
        rest = channels[0]
    return File(path, name, "image", patient, next((c for c in channels if c.lower() == rest.lower()), rest))


def _adopt_points(files: list[File]) -> None:
    """Give point files in the folder itself the patient whose name they start with, the longest that fits."""
    patients = sorted({file.patient for file in files if file.role != "points"}, key=len, reverse=True)
    for file in files:
        if file.role == "points" and file.patient not in patients:
            stem = file.path.name
            fits = [p for p in patients if stem.startswith(p) and not stem[len(p) : len(p) + 1].isalnum()]
            file.patient = fits[0] if fits else file.patient


def only_channel(folder: Path, files: list[File]) -> tuple[str, ...]:
    """Return the one kind of image that a folder has."""
    found = sorted({file.channel for file in files if file.role == "image"})
    if len(found) == 1 and found[0]:
        return (found[0],)
    if not found:
        raise DataError(f"{folder}: holds no image; NIfTI images (.nii, .nii.gz) and point files are wanted")
    shown = ", ".join(name or "one without a name" for name in found[:12])
    raise DataError(
        f"{folder}: holds images of {len(found)} kinds ({shown}); say which to take, such as --channels FLAIR"
    )


def by_patient(files: list[File], channels: tuple[str, ...]) -> tuple[list[Patient], list[ImportRow]]:
    """Pair the files; a patient without one file a role is refused, images of other channels are left out."""
    patients: list[Patient] = []
    rows: list[ImportRow] = []
    for name in sorted({file.patient for file in files}):
        own = [file for file in files if file.patient == name]
        for file in own:
            if file.role == "image" and file.channel not in channels:
                what = f"an image of another kind; {', '.join(channels)} is taken"
                rows.append(ImportRow(file=file.name, patient=name, status="left out", what=what))
        images = [[f for f in own if f.role == "image" and f.channel == channel] for channel in channels]
        brains, lesions, points = ([f for f in own if f.role == role] for role in ("brain", "lesions", "points"))
        used = [file for group in (*images, brains, lesions, points) for file in group]
        if not used:
            continue
        problem = _pairing_problem(channels, images, brains, lesions, points)
        if problem:
            rows += [ImportRow(file=f.name, patient=name, status="refused", what=problem) for f in used]
        else:
            brain, labels, clicks = (group[0] if group else None for group in (brains, lesions, points))
            patients.append(Patient(name, tuple(group[0] for group in images), brain, labels, clicks))
    return patients, rows


def _pairing_problem(
    channels: Sequence[str],
    images: list[list[File]],
    brains: list[File],
    lesions: list[File],
    points: list[File],
) -> str:
    """Say why files do not make a patient; empty if they do."""
    groups = [*zip(channels, images, strict=True), ("brain mask", brains), ("label image", lesions), ("points", points)]
    for what, group in groups:
        if len(group) > 1:
            shown = " and ".join(file.name for file in group[:3])
            return f"the patient has several files of {what}: {shown}; one is wanted (visits: a folder each)"
    lacking = [channel for channel, group in groups[: len(channels)] if not group]
    if lacking:
        return f"the patient has no image {', '.join(lacking)}; one of each channel is wanted"
    if not points and not lesions:
        return "the patient has no points; a point file is wanted, an empty one if there is no lesion"
    return ""
