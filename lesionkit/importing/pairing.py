"""Which file of a folder is what, and whose: by where it lies and what it is called; nothing is opened.

In: a folder. Out: patients with one file a role, and a row for each file that is left out or refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lesionkit.io import POINT_ENDINGS, DataError
from lesionkit.io.images import conversion_hint

Role = Literal["image", "brain", "lesions", "points", "other"]

_IMAGES = (".nii.gz", ".nii")
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)_(.+)")
_BRAIN = re.compile(r"(?:^|[_-])(?:desc-)?brain[_-]?mask$", re.IGNORECASE)
_LESIONS = re.compile(
    r"(?:^|[_-])(?:label-)?(?:lesions?(?:[_-]mask)?|labels?|segmentation|seg|consensus_gt|gt)$", re.IGNORECASE
)
_POINTS = re.compile(r"[_.-](?:label-)?(?:lesions?[_-])?(?:points?|lesions?|clicks|napari|fiducials?)$", re.IGNORECASE)


_CONTRAST = r"(?:[23]d)?[-_]?(?:t[12]|flair|pd|swi|dwi|mp2?rage|gad)"
_WHEN = r"(?:ses(?:sion)?|visit|tp|timepoint|baseline|bl|follow[-_ ]?up|fu|month|week|year|day|exam|study|scan|v)"
_DATE = r"(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d(?:\d{6})?"
_EDGE = r"(?:^|(?<=[_. -]))({})(?=$|[_. -])"
_VISIT = re.compile(
    _EDGE.format(rf"{_WHEN}[-_ ]?\d+[a-z]?|ses-[a-z0-9]+|baseline|follow[-_ ]?up|{_DATE}"), re.IGNORECASE
)
"""What names a visit, in names of files and folders."""
_NUMBER = re.compile(_EDGE.format(r"\d{1,2}"))
"""What numbers a visit, in the name of a file in a patient's folder."""
_ENTITY = re.compile(r"(?:^|(?<=_))(?:acq|run|rec|dir|echo|part|space|res|task)-[A-Za-z0-9]+(?:_|$)")
"""Parts of BIDS names that tell images of a kind apart."""
_TRAINING = re.compile(r"(images|labels)t[rs]", re.IGNORECASE)
"""Folders of nnU-Net."""


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
    visit: str = ""


@dataclass
class Patient:
    """The files of one visit of a patient, one a role."""

    person: str
    visit: str
    images: tuple[File, ...]
    brain: File | None
    lesions: File | None
    points: File | None
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Person and visit."""
        return f"{self.person} {self.visit}".rstrip()

    def files(self) -> list[File]:
        """Return the files that there are."""
        return [f for f in (*self.images, self.brain, self.lesions, self.points) if f is not None]

    def say(self, file: File, what: str) -> None:
        """Note what was done with a file."""
        self.notes.setdefault(file.name, []).append(what)


def scan(folder: Path, channels: Sequence[str]) -> tuple[list[File], list[ImportRow]]:
    """Find the files and say what each seems to be; links are followed, and where they lead out is said."""
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {wrong}; a folder of images and point files is wanted")
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
        if path.is_dir():
            rows.append(ImportRow(file=name, patient="", status="left out", what="a link to a folder"))
            continue
        file = _classified(path, parts, name, channels)
        if file.role == "other":
            what = conversion_hint(path) or "neither an image nor a point file"
            rows.append(ImportRow(file=name, patient=file.patient, status="left out", what=what))
        else:
            files.append(file)
    _adopt_points(files)
    return files, rows


def _classified(path: Path, parts: tuple[str, ...], name: str, channels: Sequence[str]) -> File:
    """Tell role, patient and channel from where a file lies and what it is called."""
    lower = path.name.lower()
    ending = next((e for e in sorted((*POINT_ENDINGS, *_IMAGES), key=len, reverse=True) if lower.endswith(e)), None)
    described = lower.endswith(".json") and not lower.endswith(".mrk.json")
    table = len(parts) == 1 and lower in ("participants.tsv", "import_report.tsv", "manifest.csv")
    if ending is None or described or table:
        return File(path, name, "other", "")
    stem = path.name[: -len(ending)]
    if len(parts) > 1 and (kind := _TRAINING.fullmatch(parts[-2])) and ending in _IMAGES:
        if kind[1].lower() == "labels":
            return File(path, name, "lesions", stem)
        patient, _, rest = stem.rpartition("_")
        return File(path, name, "image", patient or stem, rest)
    bids = _SUBJECT.fullmatch(stem)
    folders = list(parts[:-1])
    visits = [folder for folder in folders if _is_visit(folder)]
    if len(visits) < len(folders):  # else nothing but a visit's name names the patient
        folders = [folder for folder in folders if folder not in visits]
        # What lies under a patient in folders that only a number tells apart is told apart, too.
        visits += [folder for folder in folders[1:] if re.search(r"\d", folder) and not _is_contrast(folder)]
    else:
        visits = []
    patient = bids.group(1) if bids else folders[0] if folders else ""
    rest = bids.group(2) if bids else stem
    if patient and not bids and stem.startswith(patient):
        rest = stem[len(patient) :].strip("_-. ")
    given = {channel.lower(): channel for channel in channels}

    def made(role: Role, patient: str, rest: str = "", *, numbered: bool = True) -> File:
        """Return a file, with the visits that its folders and its name speak of."""
        whole = role == "image" and rest.lower() in given  # a channel may be asked for by a visit's name
        named, rest = ([], rest) if whole else _taken_out(_VISIT, rest)
        rest = rest if whole else _ENTITY.sub("", rest).strip("_-. ")
        if numbered and not whole and not named:
            named, rest = _taken_out(_NUMBER, rest)
        if patient and not bids and not folders:
            more, left = _taken_out(_VISIT, patient)
            named, patient = (named + more, left) if left else (named, patient)
        if role == "image":
            rest = given.get(rest.lower(), rest) or (channels[0] if len(channels) == 1 else "")
        # A visit that folder and file both name is named once.
        seen = [_plain(visit) for visit in named]
        every = [visit for visit in visits if _plain(visit) not in seen] + named
        return File(path, name, role, patient, rest, "/".join(dict.fromkeys(map(_plain, every))))

    if ending not in _IMAGES:
        return made("points", patient or _POINTS.sub("", stem), rest if patient else "", numbered=bool(folders))
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
    without = _VISIT.sub("", rest).strip("_-. ") if _VISIT.search(rest) else rest
    masks: tuple[tuple[Role, re.Pattern[str]], ...] = (("brain", _BRAIN), ("lesions", _LESIONS))
    for role, pattern in masks:
        if any(pattern.search(_NUMBER.sub("", text).strip("_-. ")) for text in (rest, without)):
            return made(role, patient, rest, numbered=bool(folders))
    return made("image", patient, rest, numbered=bool(folders))


def _is_contrast(folder: str) -> bool:
    return re.match(_CONTRAST, folder, re.IGNORECASE) is not None


def _is_visit(folder: str) -> bool:
    return _VISIT.fullmatch(folder) is not None


def _plain(visit: str) -> str:
    """Return a visit's name in one form, for ``ses-01`` and ``SES_1`` are one."""
    letters = re.sub(r"[^a-z0-9]", "", visit.lower())
    return re.sub(r"\d+", lambda digits: str(int(digits[0])), letters) if len(letters) < 8 else letters


def _taken_out(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """Return what a pattern finds in a name, and the name without it."""
    found = [match[1] for match in pattern.finditer(text)]
    return found, re.sub(r"[_. -]{2,}", "_", pattern.sub("", text)).strip("_-. ") if found else text


def _adopt_points(files: list[File]) -> None:
    """Give point files in the folder itself the patient whose name they start with, the longest that fits."""
    patients = sorted({file.patient for file in files if file.role != "points"}, key=len, reverse=True)
    for file in files:
        if file.role == "points" and file.patient not in patients:
            stem = file.path.name
            fits = [p for p in patients if stem.startswith(p) and not stem[len(p) : len(p) + 1].isalnum()]
            if fits:
                file.patient = fits[0]
                named = _taken_out(_VISIT, stem[len(fits[0]) :].partition(".")[0])[0]
                file.visit = file.visit or "/".join(map(_plain, named))


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
    for file in files:
        if file.role == "image" and file.channel not in channels:
            what = f"an image of another kind; {', '.join(channels)} is taken"
            rows.append(ImportRow(file=file.name, patient=file.patient, status="left out", what=what))
    files = [file for file in files if file.role != "image" or file.channel in channels]
    for person in sorted({file.patient for file in files}):
        own = [file for file in files if file.patient == person]
        visits = sorted({file.visit for file in own if file.visit})
        open_ = [file for file in own if not file.visit]
        if len(visits) > 1 and open_:
            why = f"the patient has the visits {', '.join(visits)}, and {open_[0].name} names none; its visit is wanted"
            rows += [ImportRow(file=f.name, patient=person, status="refused", what=why) for f in own]
            continue
        for visit in visits or [""]:
            mine = [file for file in own if file.visit in ("", visit)]
            images = [[f for f in mine if f.role == "image" and f.channel == channel] for channel in channels]
            brains, lesions, points = ([f for f in mine if f.role == role] for role in ("brain", "lesions", "points"))
            patient = f"{person} {visit}".rstrip()
            problem = _pairing_problem(channels, images, brains, lesions, points)
            if problem:
                rows += [ImportRow(file=f.name, patient=patient, status="refused", what=problem) for f in mine]
                continue
            brain, labels, clicks = (group[0] if group else None for group in (brains, lesions, points))
            patients.append(Patient(person, visit, tuple(group[0] for group in images), brain, labels, clicks))
            for file in open_ if visit else ():
                patients[-1].say(file, f"names no visit, taken as of {visit}, the only one")
    for file in files:
        if file.path.is_symlink():
            for patient_ in patients:
                if file in patient_.files():
                    patient_.say(file, f"a link to {os.path.realpath(file.path)}")
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
            mend = "one is wanted (a folder a visit; the best of runs and acq)"
            return f"the patient has several files of {what}: {shown}; {mend}"
    lacking = [channel for channel, group in groups[: len(channels)] if not group]
    if lacking:
        return f"the patient has no image {', '.join(lacking)}; one of each channel is wanted"
    if not points and not lesions:
        return "the patient has no points; a point file is wanted, an empty one if there is no lesion"
    return ""
