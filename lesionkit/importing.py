"""A researcher's folder of images and clicks -> a checked BIDS cohort, written as a whole or not at all.

In: NIfTI images and point files, paired by folder or by name. Out: a cohort that `lesionkit train` reads, and one row a
file: what was done with it, or why it was refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.io import (
    POINT_COLUMNS,
    POINT_ENDINGS,
    SPLITS,
    Cohort,
    DataError,
    ImportedPoints,
    atomic_folder,
    case_layout,
    import_points,
    one_line,
    read_cohort,
    read_table,
    read_volume,
    write_cohort_description,
    write_participants,
    write_points,
    write_table,
    write_volume,
)
from lesionkit.preprocessing import brain_mask, check_image
from lesionkit.volume import Volume, resample, resample_to

Role = Literal["image", "brain", "lesions", "points", "other"]
Units = Literal["mm", "voxel", "ras-voxel"]

_IMAGES = (".nii.gz", ".nii")
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)_(.+)")
_BRAIN = re.compile(r"(?:^|[_-])(?:desc-)?brain[_-]?mask$", re.IGNORECASE)
_LESIONS = re.compile(
    r"(?:^|[_-])(?:label-)?(?:lesions?(?:[_-]mask)?|labels?|segmentation|seg|consensus_gt|gt)$", re.IGNORECASE
)
_POINTS = re.compile(r"[_.-](?:label-)?(?:lesions?[_-])?(?:points?|lesions?|clicks|napari|fiducials?)$", re.IGNORECASE)
_LITRES = (0.5, 2.3)
"""Brain masks outside this range are said to look wrong."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of an import."""

    channels: tuple[str, ...] = ()
    """BIDS suffixes of the images, in the order in which a network takes them. Empty: the one kind there is."""
    spacing: float | tuple[float, float, float] | None = None
    """Voxel edges of the cohort, mm. None: the median of the patients' first images, axis by axis (RAS+)."""
    kind: str = "lesion"
    """What the points are: goes into the cohort's description."""
    units: Units | None = None
    """What coordinates in tables are, where their columns leave it open."""
    outside: Literal["refuse", "drop"] = "refuse"
    """What becomes of a patient with points outside the brain: refused, or imported without these points."""
    tolerance_mm: float = 3.0
    """Points this far from the brain mask still count as inside: masks are rough, and lesions lie at the cortex."""
    seed: int = 0
    """Of the split, where the folder has no ``participants.tsv`` with one."""

    def __post_init__(self) -> None:
        """Check the settings."""
        case_layout(".", "sub-0", self.channels, split="train")
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels is {self.channels}; each image once is wanted")
        if self.spacing is not None:
            edges = np.asarray(self.spacing, dtype=float)
            if edges.shape not in ((), (3,)) or not (np.isfinite(edges).all() and (edges > 0.05).all()):
                raise ValueError(f"spacing is {self.spacing!r}; one or three lengths (mm) above 0.05 are wanted")
        if self.outside not in ("refuse", "drop"):
            raise ValueError(f"outside is {self.outside!r}; 'refuse' or 'drop' is wanted")
        if self.units not in (None, "mm", "voxel", "ras-voxel"):
            raise ValueError(f"units is {self.units!r}; 'mm', 'voxel' or 'ras-voxel' is wanted")
        if not self.tolerance_mm >= 0:
            raise ValueError(f"tolerance_mm is {self.tolerance_mm}; 0 or more is wanted")


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportReport:
    """The outcome of an import."""

    cohort: Cohort
    """As read back."""
    rows: tuple[ImportRow, ...]
    """One row a file of the folder, in alphabetical order."""


@dataclass
class _File:
    """A file of the folder and what it seems to be."""

    path: Path
    name: str
    role: Role
    patient: str
    channel: str = ""


@dataclass
class _Patient:
    """The files of one patient, one a role."""

    name: str
    images: tuple[_File, ...]
    brain: _File | None
    lesions: _File | None
    points: _File | None
    notes: dict[str, list[str]] = field(default_factory=dict)

    def say(self, file: _File, what: str) -> None:
        self.notes.setdefault(file.name, []).append(what)


class _Refused(Exception):
    """A file makes its patient unusable."""

    def __init__(self, file: _File, why: str) -> None:
        super().__init__(why)
        self.file, self.why = file, why


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
        (``07_FLAIR.nii.gz``, ``07.mrk.json``); BIDS works too. ``*brainmask.nii.gz`` is a brain mask and
        ``*lesions.nii.gz`` a label image of lesions.
    output : path
        The cohort: a new or empty folder.
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
    if Path(output).resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{output}: lies in the folder that is imported; a new folder elsewhere is wanted")
    files, rows = _scan(folder, config.channels)
    channels = config.channels or _only_channel(folder, files)
    patients, refused = _by_patient(files, channels)
    rows += refused
    spacing = _common_spacing(patients, config.spacing)
    given = _given_splits(folder)
    with atomic_folder(output) as building:
        done: list[tuple[str, _Patient, int]] = []
        for number, patient in enumerate(patients, start=1):
            subject = _label(patient.name, {label for label, _, _ in done})
            try:
                n_points = _import_patient(patient, subject, channels, spacing, building, config)
            except _Refused as verdict:
                rows += _refusal(patient, verdict)
            else:
                done.append((subject, patient, n_points))
                rows += _acceptance(patient)
            if progress is not None:
                progress(number, len(patients))
        rows.sort(key=lambda row: row.file)
        if not done:
            raise NothingImported(tuple(rows))
        names = [patient.name for _, patient, _ in done]
        splits = _splits(names, given, config.seed)
        table = {
            "participant_id": [subject for subject, _, _ in done],
            "split": splits,
            "source": names,
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


def _scan(folder: Path, channels: Sequence[str]) -> tuple[list[_File], list[ImportRow]]:
    """Find the files and say what each seems to be; links that lead out of the folder are refused."""
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder}: {wrong}; a folder of images and point files is wanted")
    root = folder.resolve()
    files: list[_File] = []
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


def _classified(path: Path, parts: tuple[str, ...], name: str, channels: Sequence[str]) -> _File:
    """Tell role, patient and channel from where a file lies and what it is called."""
    lower = path.name.lower()
    ending = next((e for e in sorted((*POINT_ENDINGS, *_IMAGES), key=len, reverse=True) if lower.endswith(e)), None)
    described = lower.endswith(".json") and not lower.endswith(".mrk.json")
    table = len(parts) == 1 and lower in ("participants.tsv", "import_report.tsv", "manifest.csv")
    if ending is None or described or table:
        return _File(path, name, "other", "")
    stem = path.name[: -len(ending)]
    bids = _SUBJECT.fullmatch(stem)
    patient = bids.group(1) if bids else parts[0] if len(parts) > 1 else ""
    rest = bids.group(2) if bids else stem
    if patient and not bids and stem.startswith(patient):
        rest = stem[len(patient) :].strip("_-. ")
    if ending not in _IMAGES:
        return _File(path, name, "points", patient or _POINTS.sub("", stem), rest)
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
        return _File(path, name, "brain", patient)
    if _LESIONS.search(rest):
        return _File(path, name, "lesions", patient)
    if not rest and len(channels) == 1:
        rest = channels[0]
    return _File(path, name, "image", patient, next((c for c in channels if c.lower() == rest.lower()), rest))


def _adopt_points(files: list[_File]) -> None:
    """Give point files in the folder itself the patient whose name they start with, the longest that fits."""
    patients = sorted({file.patient for file in files if file.role != "points"}, key=len, reverse=True)
    for file in files:
        if file.role == "points" and file.patient not in patients:
            stem = file.path.name
            fits = [p for p in patients if stem.startswith(p) and not stem[len(p) : len(p) + 1].isalnum()]
            file.patient = fits[0] if fits else file.patient


def _only_channel(folder: Path, files: list[_File]) -> tuple[str, ...]:
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


def _by_patient(files: list[_File], channels: tuple[str, ...]) -> tuple[list[_Patient], list[ImportRow]]:
    """Pair the files; a patient without one file a role is refused, images of other channels are left out."""
    patients: list[_Patient] = []
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
            patients.append(_Patient(name, tuple(group[0] for group in images), brain, labels, clicks))
    return patients, rows


def _pairing_problem(
    channels: Sequence[str],
    images: list[list[_File]],
    brains: list[_File],
    lesions: list[_File],
    points: list[_File],
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


def _common_spacing(
    patients: Sequence[_Patient], wanted: float | tuple[float, float, float] | None
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


def _import_patient(
    patient: _Patient,
    subject: str,
    channels: tuple[str, ...],
    spacing: tuple[float, float, float],
    building: Path,
    config: ImportConfig,
) -> int:
    """Check and write one patient; return the number of points."""
    images = [_read_image(file) for file in patient.images]
    images[1:] = [
        _onto(first=images[0], image=image, file=file, patient=patient)
        for image, file in zip(images[1:], patient.images[1:], strict=True)
    ]
    mask = _brain(patient, images)
    source = patient.points or patient.lesions
    assert source is not None  # the pairing saw to it
    points = _checked_points(patient, source, images[0], mask, config)
    target = _regrid(images[0], spacing)
    brain = resample_to(images[0].with_data(mask), target.shape, target.affine, order=0).data
    if not brain.any():
        raise _Refused(patient.images[0], "no brain is left at the cohort's spacing")
    lesions = None if patient.lesions is None else _lesion_mask(patient, patient.lesions, target)
    layout = case_layout(building, subject, channels, split=SPLITS[0])
    assert layout.mask is not None and layout.points is not None  # noqa: PT018 (case_layout names both)
    for path, image, file in zip(layout.images, images, patient.images, strict=True):
        moved = image if target is images[0] else resample_to(image, target.shape, target.affine)
        write_volume(path, Volume(np.where(brain, moved.data, 0), target.affine))
        patient.say(file, _grid_note(image, target))
    name = f"{subject}_desc-brain_mask.nii.gz"
    write_volume(building / "derivatives" / "masks" / subject / "anat" / name, Volume(brain, target.affine))
    if lesions is not None:
        write_volume(layout.mask, lesions, native=False)
    frame = points.frame
    if "size_vox" in frame:  # counted in voxels of the label image
        ratio = images[0].voxel_mm3 / target.voxel_mm3
        frame = frame.assign(size_vox=(frame["size_vox"] * ratio).round().clip(lower=1).astype("Int64"))
    write_points(layout.points, frame)
    return len(frame)


def _read_image(file: _File) -> Volume:
    try:
        volume = read_volume(file.path)
        check_image(volume)
    except DataError as error:
        raise _Refused(file, _without_path(error, file)) from error
    except ValueError as error:
        raise _Refused(file, str(error)) from error
    return volume


def _without_path(error: Exception, file: _File) -> str:
    """Return the message of a file whose row names it already."""
    return str(error).removeprefix(f"{file.path}: ")


def _onto(*, first: Volume, image: Volume, file: _File, patient: _Patient) -> Volume:
    """Return an image on the grid of the first, if both show the same place."""
    if image.same_grid(first):
        return image
    moved = resample_to(image, first.shape, first.affine)
    whole = resample_to(image.with_data(np.ones(image.shape, np.uint8)), first.shape, first.affine, order=0)
    share = float(whole.data.mean())
    if share < 0.5:
        raise _Refused(
            file, f"covers {share:.0%} of the field of view of {patient.images[0].name}; registered images are wanted"
        )
    patient.say(file, f"resampled onto the grid of {patient.images[0].name} (taken as registered)")
    return moved


def _brain(patient: _Patient, images: list[Volume]) -> Bool[np.ndarray, "i j k"]:
    """Return the brain mask that is given, or a simple one."""
    first = images[0]
    if patient.brain is None:
        mask = brain_mask(first)
        stripped = float(np.mean(first.data == 0)) >= 0.1
        how = "where it is not 0" if stripped else "a rough threshold mask; skull-strip for a better one"
        file = patient.images[0]
        note = f"brain mask made ({how})"
    else:
        file = patient.brain
        try:
            given = read_volume(file.path)
        except DataError as error:
            raise _Refused(file, _without_path(error, file)) from error
        moved = given if given.same_grid(first) else resample_to(given, first.shape, first.affine, order=0)
        mask = moved.data > 0
        note = "brain mask" if moved is given else "brain mask, resampled onto the image"
    litres = float(mask.sum()) * first.voxel_mm3 / 1e6
    if not mask.any():
        raise _Refused(file, "has no brain in the field of view of the image; a mask of this patient is wanted")
    wrong = "" if _LITRES[0] <= litres <= _LITRES[1] else ", which no whole brain has: give a brainmask if it is wrong"
    patient.say(file, f"{note}, {litres:.2f} litres{wrong}")
    return mask


def _checked_points(
    patient: _Patient, source: _File, image: Volume, mask: Bool[np.ndarray, "i j k"], config: ImportConfig
) -> ImportedPoints:
    """Return the points of a patient: inside the image and the brain, each place once."""
    is_image = source.role == "lesions"
    try:
        found = import_points(source.path, image=image, units=None if is_image else config.units)
    except DataError as error:
        raise _Refused(source, _without_path(error, source)) from error
    for note in found.notes:
        if "both are kept" not in note:
            patient.say(source, note)
    frame = found.frame
    _check_sizes(source, found)
    far = _distance_to(mask, image, image.to_voxel(frame[list(POINT_COLUMNS)].to_numpy())) > config.tolerance_mm
    if far.any():
        rows = [found.rows[row] for row in np.flatnonzero(far)]
        shown = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        what = (
            f"{len(rows)} of {len(frame)} points are more than {config.tolerance_mm:g} mm outside the brain ({shown})"
        )
        if config.outside == "refuse":
            mend = "mend them, give a brainmask, or leave them out with --outside drop"
            raise _Refused(source, f"{what}; {mend}")
        patient.say(source, f"left out: {what}")
    keep = ~far
    repeated = {second for _, second in found.duplicates}
    if repeated:
        patient.say(source, f"left out {len(repeated)} at the place of another")
        keep[list(repeated)] = False
    kept = frame[keep].reset_index(drop=True)
    patient.say(source, f"{len(kept)} points from {found.format}")
    return ImportedPoints(frame=kept, format=found.format, rows=found.rows, duplicates=(), notes=())


def _check_sizes(source: _File, found: ImportedPoints) -> None:
    """Refuse sizes that are no numbers: the cohort's table could not be read."""
    if "size_vox" not in found.frame:
        return
    given = found.frame["size_vox"]
    sizes = pd.to_numeric(given, errors="coerce")
    bad = np.flatnonzero(given.notna() & ~((sizes >= 0) & (sizes < np.inf)))
    if len(bad):
        wrong = f"{found.rows[bad[0]]} has {given.iloc[bad[0]]!s:.60} as size_vox"
        raise _Refused(source, f"{wrong}; a number of 0 or more, or n/a, is wanted")


def _distance_to(
    mask: Bool[np.ndarray, "i j k"], image: Volume, voxels: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Distance of points to the nearest voxel of a mask, mm."""
    outside = ndimage.distance_transform_edt(~mask, sampling=image.spacing)
    index = np.clip(np.rint(voxels), 0, np.array(mask.shape) - 1).astype(int)
    return np.asarray(outside[tuple(index.T)], dtype=float)


def _regrid(image: Volume, spacing: tuple[float, float, float]) -> Volume:
    """Return an image at the cohort's spacing; within 2 % it stays as it is."""
    return image if np.allclose(image.spacing, spacing, rtol=0.02) else resample(image, spacing)


def _lesion_mask(patient: _Patient, file: _File, target: Volume) -> Volume:
    """Return the label image as the cohort's lesion mask."""
    try:
        labels = read_volume(file.path, np.int32)
    except DataError as error:
        raise _Refused(file, _without_path(error, file)) from error
    binary = labels.with_data((labels.data > 0).astype(np.uint8))
    if not binary.same_grid(target):
        binary = resample_to(binary, target.shape, target.affine, order=0)
    if labels.data.any() and not binary.data.any():
        raise _Refused(
            file, f"has no lesion in the field of view of {patient.images[0].name}; this patient's is wanted"
        )
    if patient.points is not None:
        patient.say(file, f"lesion mask; the points come from {patient.points.name}")
    return binary


def _grid_note(image: Volume, target: Volume) -> str:
    grid = " x ".join(map(str, target.shape)) + " voxels of " + " x ".join(f"{s:.3g}" for s in target.spacing) + " mm"
    before = " x ".join(f"{s:.3g}" for s in image.spacing)
    return grid if image.same_grid(target) else f"{grid}, resampled from {before} mm"


def _label(name: str, taken: set[str]) -> str:
    """Return a BIDS label for a patient's name; a number tells apart those that would be alike."""
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


def _refusal(patient: _Patient, verdict: _Refused) -> list[ImportRow]:
    """Return the rows of a patient that was refused: the file at fault says why."""
    rows = []
    for file in _files(patient):
        at_fault = file is verdict.file
        what = " ".join(verdict.why.splitlines()) if at_fault else f"the patient is refused: see {verdict.file.name}"
        rows.append(ImportRow(file=file.name, patient=patient.name, status="refused", what=what))
    return rows


def _acceptance(patient: _Patient) -> list[ImportRow]:
    return [
        ImportRow(
            file=f.name,
            patient=patient.name,
            status="imported",
            what="; ".join(patient.notes.get(f.name, ["as it is"])),
        )
        for f in _files(patient)
    ]


def _files(patient: _Patient) -> list[_File]:
    return [f for f in (*patient.images, patient.brain, patient.lesions, patient.points) if f is not None]
