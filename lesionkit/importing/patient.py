"""One patient: files -> images, brain mask, lesion mask and points on the cohort's grid, checked and written.

In: the files of a patient. Out: their files in the cohort, and notes on what was done; or `Refused`, with the reason.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionkit.brain import brain_note
from lesionkit.importing.config import ImportConfig
from lesionkit.importing.pairing import File, Patient
from lesionkit.io import (
    POINT_COLUMNS,
    SPLITS,
    DataError,
    ImportedPoints,
    case_layout,
    import_points,
    read_volume,
    write_points,
    write_volume,
)
from lesionkit.preprocessing import brain_mask, check_image
from lesionkit.volume import Volume, resample, resample_to


class Refused(Exception):
    """A file makes its patient unusable."""

    def __init__(self, file: File, why: str) -> None:
        super().__init__(why)
        self.file, self.why = file, why


def import_patient(
    patient: Patient,
    subject: str,
    channels: tuple[str, ...],
    spacing: tuple[float, float, float],
    building: Path,
    config: ImportConfig,
) -> int:
    """Check and write one patient; return the number of points."""
    images = [_read_image(file) for file in patient.images]
    for file, image in zip(patient.images, images, strict=True):
        if image.native is not None and image.native.note:
            patient.say(file, image.native.note)
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
        raise Refused(patient.images[0], "no brain is left at the cohort's spacing")
    lesions, label_mm3 = (None, 0.0) if patient.lesions is None else _lesion_mask(patient, patient.lesions, target)
    layout = case_layout(building, subject, channels, split=SPLITS[0])
    assert layout.mask is not None and layout.points is not None and layout.brain is not None  # noqa: PT018 (all named)
    for path, image, file in zip(layout.images, images, patient.images, strict=True):
        moved = image if target is images[0] else resample_to(image, target.shape, target.affine)
        write_volume(path, Volume(moved.data, target.affine))
        patient.say(file, _grid_note(image, target))
    write_volume(layout.brain, Volume(brain, target.affine))
    if lesions is not None:
        write_volume(layout.mask, lesions, native=False)
    frame = points.frame
    if "size_vox" in frame:  # counted in voxels of the label image, or in a table in those of the image
        ratio = (images[0].voxel_mm3 if patient.points else label_mm3) / target.voxel_mm3
        frame = frame.assign(size_vox=(frame["size_vox"] * ratio).round().clip(lower=1).astype("Int64"))
    write_points(layout.points, frame)
    return len(frame)


def _read_image(file: File) -> Volume:
    try:
        volume = read_volume(file.path)
        check_image(volume)
    except DataError as error:
        raise Refused(file, _without_path(error, file)) from error
    except ValueError as error:
        raise Refused(file, str(error)) from error
    return volume


def _without_path(error: Exception, file: File) -> str:
    """Return the message of a file whose row names it already."""
    return str(error).removeprefix(f"{file.path}: ")


def _onto(*, first: Volume, image: Volume, file: File, patient: Patient) -> Volume:
    """Return an image on the grid of the first, if both show the same place."""
    if image.same_grid(first):
        return image
    moved = resample_to(image, first.shape, first.affine)
    whole = resample_to(image.with_data(np.ones(image.shape, np.uint8)), first.shape, first.affine, order=0)
    share = float(whole.data.mean())
    if share < 0.5:
        raise Refused(
            file, f"covers {share:.0%} of the field of view of {patient.images[0].name}; registered images are wanted"
        )
    patient.say(file, f"resampled onto the grid of {patient.images[0].name} (taken as registered)")
    return moved


def _brain(patient: Patient, images: list[Volume]) -> Bool[np.ndarray, "i j k"]:
    """Return the brain mask that is given, or the one found in the first image."""
    first = images[0]
    if patient.brain is None:
        mask = brain_mask(first)
        file = patient.images[0]
        note = "found in the image"
    else:
        file = patient.brain
        try:
            given = read_volume(file.path)
        except DataError as error:
            raise Refused(file, _without_path(error, file)) from error
        moved = given if given.same_grid(first) else resample_to(given, first.shape, first.affine, order=0)
        mask = moved.data > 0
        note = "as given" if moved is given else "as given, resampled onto the image"
    if not mask.any():
        raise Refused(file, "has no brain in the field of view of the image; a mask of this patient is wanted")
    patient.say(file, f"{brain_note(mask, first)}, {note}")
    return mask


def _checked_points(
    patient: Patient, source: File, image: Volume, mask: Bool[np.ndarray, "i j k"], config: ImportConfig
) -> ImportedPoints:
    """Return the points of a patient: inside the image and the brain, each place once."""
    is_image = source.role == "lesions"
    try:
        found = import_points(source.path, image=image, units=None if is_image else config.units)
    except DataError as error:
        raise Refused(source, _without_path(error, source)) from error
    for note in found.notes:
        if "both are kept" not in note:
            patient.say(source, note)
    frame = found.frame
    if wrong := found.wrong_size():
        raise Refused(source, wrong)
    far = _distance_to(mask, image, image.to_voxel(frame[list(POINT_COLUMNS)].to_numpy())) > config.tolerance_mm
    if far.any():
        rows = [found.rows[row] for row in np.flatnonzero(far)]
        shown = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
        what = (
            f"{len(rows)} of {len(frame)} points are more than {config.tolerance_mm:g} mm outside the brain ({shown})"
        )
        if config.outside == "refuse":
            mend = "mend them, give a brainmask, or leave them out with --outside drop"
            raise Refused(source, f"{what}; {mend}")
        patient.say(source, f"left out: {what}")
    keep = ~far
    repeated = {second for _, second in found.duplicates}
    if repeated:
        patient.say(source, f"left out {len(repeated)} at the place of another")
        keep[list(repeated)] = False
    kept = frame[keep].reset_index(drop=True)
    patient.say(source, f"{len(kept)} points from {found.format}")
    return ImportedPoints(frame=kept, format=found.format, rows=found.rows, duplicates=(), notes=())


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


def _lesion_mask(patient: Patient, file: File, target: Volume) -> tuple[Volume, float]:
    """Return the label image as the cohort's lesion mask, and the volume of its own voxels, mm3."""
    try:
        labels = read_volume(file.path, np.int32)
    except DataError as error:
        raise Refused(file, _without_path(error, file)) from error
    binary = labels.with_data((labels.data > 0).astype(np.uint8))
    if not binary.same_grid(target):
        binary = resample_to(binary, target.shape, target.affine, order=0)
    if labels.data.any() and not binary.data.any():
        raise Refused(file, f"has no lesion in the field of view of {patient.images[0].name}; this patient's is wanted")
    if patient.points is not None:
        patient.say(file, f"lesion mask; the points come from {patient.points.name}")
    return binary, labels.voxel_mm3


def _grid_note(image: Volume, target: Volume) -> str:
    grid = " x ".join(map(str, target.shape)) + " voxels of " + " x ".join(f"{s:.3g}" for s in target.spacing) + " mm"
    before = " x ".join(f"{s:.3g}" for s in image.spacing)
    return grid if image.same_grid(target) else f"{grid}, resampled from {before} mm"
