"""Bad input, and what it gets: the rows of the matrix that the tests run and `docs/robustness.md` shows.

Each maker spoils one file of a small, good study. The texts are what a user reads after the name of the file.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from lesionkit.checkpoints import Card, save_checkpoint
from lesionkit.io import export_points, write_cohort_description, write_participants, write_points, write_volume
from lesionkit.model import ModelConfig, UNet
from lesionkit.volume import Volume

SHAPE = (20, 24, 16)
AFFINE = np.array([[-2.0, 0, 0, 19], [0, 2, 0, -23], [0, 0, 2, -15], [0, 0, 0, 1]])  # LAS


@dataclass(frozen=True)
class Study:
    """The files of a good study."""

    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "image.nii.gz"

    @property
    def points(self) -> Path:
        return self.folder / "points.tsv"

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort"

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def clicks(self) -> Path:
        return self.raw / "A" / "clicks.mrk.json"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "net.safetensors"

    @property
    def results(self) -> Path:
        return self.folder / "results"


@dataclass(frozen=True)
class Bad:
    """One row of the matrix."""

    what: str
    """The input, for people."""
    make: Callable[[Path], None]
    """Puts it at a path where a good file lies."""
    gets: str
    """What is said after the name of the file; empty: it is fine."""
    wants: str = ""
    """What the first command that reads it says is wanted; the others may word it in their own way."""
    fine_for: tuple[str, ...] = ()
    """Commands that do not mind."""
    others: tuple[tuple[str, str], ...] = ()
    """What commands that look for files themselves say instead."""


def make_study(folder: Path) -> Study:
    """Write an image, its points, a cohort, a raw folder and a tiny network, all of them good."""
    rng = np.random.default_rng(1)
    grid = np.indices(SHAPE).reshape(3, -1).T
    inside = (((grid - (np.array(SHAPE) - 1) / 2) / (np.array(SHAPE) * 0.42)) ** 2).sum(axis=1) < 1
    data = np.where(inside, 100 + rng.normal(0, 8, len(grid)), 0).reshape(SHAPE).astype(np.float32)
    study = Study(folder)
    volume = Volume(data, AFFINE)
    points = pd.DataFrame(volume.to_mm([[10.0, 12.0, 8.0], [7.0, 10.0, 6.0]]), columns=["x", "y", "z"])
    write_volume(study.image, volume)
    write_points(study.points, points)
    for number, split in enumerate(("train", "validation", "test"), start=1):
        subject = f"sub-{number}"
        write_volume(study.cohort / subject / "anat" / f"{subject}_FLAIR.nii.gz", volume)
        truth = study.cohort / "derivatives" / "lesions" / subject / "anat" / f"{subject}_label-lesion_points.tsv"
        write_points(truth, points)
        assert split
    splits = pd.DataFrame({"participant_id": ["sub-1", "sub-2", "sub-3"], "split": ["train", "validation", "test"]})
    write_participants(study.cohort, splits)
    write_cohort_description(study.cohort, "flair", ("FLAIR",))
    write_volume(study.raw / "A" / "FLAIR.nii.gz", volume)
    export_points(study.raw / "A" / "clicks.mrk.json", points)
    card = Card(kind="flair", channels=("FLAIR",), spacing=(2, 2, 2), sigma=1.2, threshold=0.4, scale=0.01, window=24)
    save_checkpoint(study.checkpoint, UNet(ModelConfig(levels=1, filters=2)), card)
    return study


def _image(change: Callable[[Any, nib.Nifti1Image], Any]) -> Callable[[Path], None]:
    """Return a maker: the good image with its voxels or its header changed."""

    def make(path: Path) -> None:
        good = nib.load(path)
        image = change(np.asarray(good.dataobj).copy(), good)
        if isinstance(image, np.ndarray):
            image = nib.Nifti1Image(image, good.affine)
        path.unlink()
        nib.save(image, path)

    return make


def _header(offset: int, form: str, *values: float) -> Callable[[Path], None]:
    """Return a maker: bytes of the header set, past nibabel's checks."""

    def make(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into(form, content, offset, *values)
        path.write_bytes(gzip.compress(bytes(content), mtime=0))

    return make


def _affine(matrix: Any) -> Callable[[Path], None]:
    rows = np.asarray(matrix, dtype=float)[:3].ravel().tolist()

    def make(path: Path) -> None:
        _header(252, "<hh", 0, 1)(path)  # no quaternion, the matrix alone
        _header(280, "<12f", *rows)(path)

    return make


def _put(data: Any, index: Any, value: Any) -> Any:
    data[index] = value
    return data


def _colour(data: Any) -> Any:
    return np.zeros(data.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def _text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: _replace(path, content if isinstance(content, bytes) else content.encode()) and None


def _replace(path: Path, content: bytes) -> bool:
    path.unlink()
    path.write_bytes(content)
    return True


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _bomb(path: Path) -> None:
    """64 MiB of zeros after the voxels, in 64 kB."""
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2**26), mtime=0))


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


IMAGES = [
    Bad(
        "NaN in the image",
        _image(lambda d, _: _put(d, (3, 4, 5), np.nan)),
        "holds nan at voxel (3, 4, 5) (from 0, in the file's own axes)",
        "finite voxels are wanted: replace what is not",
    ),
    Bad(
        "inf in the image",
        _image(lambda d, _: _put(d, (3, 4, 5), np.inf)),
        "holds inf at voxel (3, 4, 5) (from 0, in the file's own axes)",
        "finite voxels are wanted: replace what is not",
    ),
    Bad(
        "every voxel the same",
        _image(lambda d, _: np.full_like(d, 7)),
        "is constant (7)",
        "an image of a brain is wanted",
        ("points convert",),
    ),
    Bad(
        "nothing but zeros",
        _image(lambda d, _: np.zeros_like(d)),
        "is constant (0)",
        "an image of a brain is wanted",
        ("points convert",),
    ),
    Bad("2-D", _image(lambda d, _: d[:, :, 0]), "has 2 axes (20 x 24)", "one 3-D volume is wanted"),
    Bad(
        "4-D, several volumes",
        _image(lambda d, _: np.stack([d, d], axis=3)),
        "has 4 axes (20 x 24 x 16 x 2)",
        "one 3-D volume is wanted: take it out with nibabel, image.slicer[..., 0]",
    ),
    Bad("4-D of one volume", _image(lambda d, _: d[..., None]), ""),
    Bad(
        "complex voxels",
        _image(lambda d, _: d.astype(np.complex64)),
        "holds complex numbers",
        "real numbers are wanted: save one component",
    ),
    Bad(
        "RGB voxels",
        _image(lambda d, _: _colour(d)),
        "holds RGB colours or voxels of an unknown type",
        "real numbers are wanted: save one component",
    ),
    Bad("big-endian", _image(lambda d, i: nib.Nifti1Image(d, i.affine, nib.Nifti1Header(endianness=">"))), ""),
    Bad("integers with slope and intercept", _image(lambda d, i: _scaled(d, i)), ""),
    Bad(
        "an axis of no voxel",
        _header(42, "<h", 0),
        "has the shape 0 x 24 x 16",
        "at least one voxel along each axis is wanted",
    ),
    Bad(
        "a negative number of voxels",
        _header(42, "<h", -5),
        "has the shape -5 x 24 x 16",
        "at least one voxel along each axis is wanted",
    ),
    Bad(
        "a header that claims 30000 x 30000 x 30000",
        _header(42, "<hhh", 30000, 30000, 30000),
        "claims 30000 x 30000 x 30000 voxels in its header",
        "at most 1073741824 are read: crop or resample the image",
    ),
    Bad(
        "a header that claims twice the voxels",
        _header(42, "<h", 2 * SHAPE[0]),
        "is truncated: it ends before the last of its 40 x 24 x 16 voxels",
        "fetch or export it again",
    ),
    Bad(
        "an affine of zeros",
        _affine(np.zeros((4, 4))),
        "has an affine that cannot be used (affine cannot be inverted",
        "three independent axes are wanted); set a valid sform or qform",
    ),
    Bad(
        "NaN in the affine",
        _affine(_put(AFFINE.copy(), (0, 0), np.nan)),
        "has an affine that cannot be used (affine holds NaN or inf",
        "finite numbers are wanted); set a valid sform or qform",
    ),
    Bad(
        "inf in the affine",
        _affine(_put(AFFINE.copy(), (0, 3), np.inf)),
        "has an affine that cannot be used (affine holds NaN or inf",
        "finite numbers are wanted); set a valid sform or qform",
    ),
    Bad(
        "two axes that point the same way",
        _affine(_put(AFFINE.copy(), (slice(0, 3), 1), AFFINE[:3, 0])),
        "has an affine that cannot be used (affine cannot be inverted",
        "three independent axes are wanted); set a valid sform or qform",
    ),
    Bad(
        "axes not at right angles",
        _affine(_put(AFFINE.copy(), (0, 1), 0.9)),
        "has axes at an angle of 65.8 degrees",
        "right angles are wanted: resample it onto a plain grid",
        ("points convert",),
    ),
    Bad("a mirrored affine", _affine(np.diag([1.0, -1, 1, 1]) @ AFFINE), ""),
    Bad("lengths in metres", _header(123, "<B", 1), "gives its lengths in metres", "millimetres are wanted"),
    Bad(
        "no file",
        lambda path: path.unlink(),
        "does not exist",
        "a NIfTI image (.nii or .nii.gz) is wanted",
        others=(("import", "holds no image"),),
    ),
    Bad(
        "a folder",
        _folder,
        "is a folder",
        "a NIfTI image (.nii or .nii.gz) is wanted",
        others=(("import", "holds no image"),),
    ),
    Bad("a pipe", _pipe, "is a device or a pipe", "a NIfTI image (.nii or .nii.gz) is wanted"),
    Bad("a link to nowhere", _dangling, "does not exist", "a NIfTI image (.nii or .nii.gz) is wanted"),
    Bad(
        "a link to itself",
        _loop,
        "does not exist",
        "a NIfTI image (.nii or .nii.gz) is wanted",
        others=(("train", "cannot be followed"), ("evaluate", "cannot be followed")),
    ),
    Bad("an empty file", _text(b""), "is empty", "a NIfTI image (.nii or .nii.gz) is wanted"),
    Bad("text", _text("x\ty\tz\n" * 100), "is not a NIfTI image", "a NIfTI image (.nii or .nii.gz) is wanted"),
    Bad(
        "a truncated gzip",
        _truncate,
        "is truncated or corrupt (Compressed file ended before the end-of-stream marker was reached)",
        "fetch or export the file again",
    ),
    Bad(
        "a gzip bomb",
        _bomb,
        "goes on after the 20 x 24 x 16 voxels of its header",
        "an image whose header fits its data is wanted",
    ),
]


def _scaled(data: Any, image: Any) -> nib.Nifti1Image:
    scaled = nib.Nifti1Image(np.rint(data * 8).astype(np.int16), image.affine)
    scaled.header.set_slope_inter(0.125, 0)
    return scaled


TABLE = "a UTF-8 table with tabs between the columns and x y z (mm, RAS+) or i j k (voxels) is wanted"
GOOD_LINE = "-1\t1\t1\n"
POINTS = [
    Bad(
        "no file",
        lambda path: path.unlink(),
        "does not exist",
        TABLE,
        others=(("train", "has no table of points"), ("evaluate", "has no table of points")),
    ),
    Bad(
        "a folder",
        _folder,
        "is a folder",
        TABLE,
    ),
    Bad(
        "an empty file",
        _text(""),
        "is empty",
        TABLE,
    ),
    Bad("a header line alone (no lesion)", _text("x\ty\tz\n"), ""),
    Bad(
        "NaN as a coordinate",
        _text("x\ty\tz\n" + GOOD_LINE + "nan\t2\t3\n"),
        "line 3 has 'nan' as x",
        "a finite number (decimal point) is wanted",
    ),
    Bad(
        "inf as a coordinate",
        _text("x\ty\tz\n1\tinf\t3\n"),
        "line 2 has 'inf' as y",
        "a finite number (decimal point) is wanted",
    ),
    Bad(
        "text as a coordinate",
        _text("x\ty\tz\n1\tleft\t3\n"),
        "line 2 has 'left' as y",
        "a finite number (decimal point) is wanted",
    ),
    Bad(
        "an empty coordinate",
        _text("x\ty\tz\n1\t\t3\n"),
        "line 2 has '' as y",
        "a finite number (decimal point) is wanted",
    ),
    Bad(
        "decimal commas",
        _text("x\ty\tz\n1,5\t2,5\t3,5\n"),
        "line 2 has '1,5' as x",
        "a finite number (decimal point) is wanted",
    ),
    Bad(
        "text as a size",
        _text("x\ty\tz\tsize_vox\n-1\t1\t1\tlarge\n"),
        "line 2 has 'large' as size_vox",
        "a number of 0 or more, or n/a, is wanted",
        ("points convert",),
    ),
    Bad(
        "a point outside the image",
        _text("x\ty\tz\n" + GOOD_LINE + "500\t0\t0\n"),
        "is outside the image, at 500, 0, 0 mm",
        "points of this image are wanted",
    ),
    Bad(
        "columns named in the wrong order",
        _text("x\tz\ty\n-1\t22\t1\n"),
        "is outside the image, at -1, 1, 22 mm",
        "points of this image are wanted: in the order x z y all are inside; columns may be swapped",
    ),
    Bad("columns in another order, named rightly", _text("z\ty\tx\n1\t1\t-1\n"), ""),
    Bad("the same point twice", _text("x\ty\tz\n" + GOOD_LINE * 2), ""),
    Bad(
        "a column that is missing",
        _text("x\ty\n1\t2\n"),
        "lacks the column z (it has: x, y)",
        TABLE,
    ),
    Bad(
        "no header line",
        _text(GOOD_LINE * 2),
        "has no header line (its first line is -1, 1, 1)",
        TABLE,
    ),
    Bad(
        "commas in a .tsv",
        _text("x,y,z\n1,2,3\n"),
        "is separated by commas",
        TABLE,
    ),
    Bad(
        "semicolons",
        _text("x;y;z\n1;2;3\n"),
        "is separated by semicolons",
        TABLE,
    ),
    Bad(
        "a line that is too short",
        _text("x\ty\tz\n1\t2\n"),
        "line 2 has 2 entries",
        "3 are wanted, as in the header line",
    ),
    Bad(
        "a column twice",
        _text("x\ty\tz\tx\n1\t2\t3\t4\n"),
        "names the column 'x' twice",
        TABLE,
    ),
    Bad(
        "5000 columns",
        _text("\t".join(["x", "y", "z", *(f"c{n}" for n in range(4997))]) + "\n"),
        "has 5000 columns",
        "at most 1000 are wanted",
    ),
    Bad(
        "UTF-16",
        _text("x\ty\tz\n1\t2\t3\n".encode("utf-16")),
        "is UTF-16 or binary, not UTF-8",
        f"{TABLE}: save it again as UTF-8",
    ),
    Bad("UTF-8 with a byte order mark", _text(b"\xef\xbb\xbfx\ty\tz\n-1\t1\t1\n"), ""),
    Bad(
        "Latin-1",
        _text("x\ty\tz\tort\n1\t2\t3\trückwärts\n".encode("latin-1")),
        "line 2 is not UTF-8",
        f"{TABLE}: save it again as UTF-8",
    ),
    Bad(
        "binary",
        _text(bytes(range(256)) * 4),
        "is UTF-16 or binary, not UTF-8",
        f"{TABLE}: save it again as UTF-8",
    ),
    Bad(
        "100 MB",
        lambda path: os.truncate(path, 100_000_000),
        "is larger than 64 MiB",
        TABLE,
    ),
]

CLICKS = [
    Bad(
        "markups: truncated",
        _truncate,
        "is not JSON, or is truncated (line 41: Unterminated string starting at)",
        "a point list of 3D Slicer (.mrk.json) is wanted",
    ),
    Bad(
        "markups: JSON of another kind",
        _text('{"nodes": []}'),
        "is JSON of another kind, without markups (it has: nodes)",
        "a point list of 3D Slicer (.mrk.json) is wanted",
    ),
    Bad(
        "markups: nested 100 000 deep",
        _text("[" * 100_000),
        "is JSON nested too deeply",
        "a point list of 3D Slicer (.mrk.json) is wanted",
    ),
    Bad(
        "markups: a line instead of points",
        _text('{"markups": [{"type": "Line", "controlPoints": []}]}'),
        "holds only Line",
        "a point list of 3D Slicer (.mrk.json) is wanted (type Fiducial)",
    ),
    Bad(
        "markups: NaN as a position",
        lambda path: _markup(path, position=[float("nan"), 0, 0]),
        "control point 1 ('F-1') has the position [nan, 0, 0]",
        "three finite numbers (mm) are wanted",
    ),
    Bad(
        "markups: two numbers as a position",
        lambda path: _markup(path, position=[1, 2]),
        "control point 1 ('F-1') has the position [1, 2]",
        "three finite numbers (mm) are wanted",
    ),
    Bad(
        "markups: text as a size",
        lambda path: _markup(path, description="size_vox=large"),
        "has 'large' as size_vox",
        "a number of 0 or more, or n/a, is wanted",
        ("points convert",),
    ),
    Bad("markups: in LPS", lambda path: _markup(path, coordinateSystem="LPS"), ""),
    Bad(
        "markups: inches",
        lambda path: _markup(path, coordinateUnits="in"),
        "gives its coordinates in 'in'",
        "mm are wanted",
    ),
    Bad(
        "markups: another coordinate system",
        lambda path: _markup(path, coordinateSystem="XYZ"),
        "has the coordinate system 'XYZ'",
        "LPS or RAS is wanted",
    ),
]


def _markup(path: Path, position: Any = (1, -1, 1), description: str = "", **settings: Any) -> None:
    point = {"label": "F-1", "description": description, "position": list(position)}
    markup = {"type": "Fiducial", "controlPoints": [point], **settings}
    path.write_text(json.dumps({"markups": [markup]}), encoding="utf-8")


class _Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("executed",))


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Evil()))


def _reweighted(path: Path) -> None:
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    path.write_bytes(content[: 8 + size] + b"\xff\x7f" * ((len(content) - 8 - size) // 2))


def _renamed(old: bytes, new: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        content = path.read_bytes()
        assert content.count(old) == 1
        assert len(old) == len(new)
        path.write_bytes(content.replace(old, new))

    return make


CHECKPOINTS = [
    Bad(
        "no file",
        lambda path: path.unlink(),
        "no such checkpoint",
        "a .safetensors file or one of gad, flair is wanted",
    ),
    Bad("a folder", _folder, "no such checkpoint", "a .safetensors file or one of gad, flair is wanted"),
    Bad(
        "an empty file",
        _text(b""),
        "not a safetensors file (Error while deserializing header: header too small)",
        "checkpoints of `lesionkit train` are wanted",
    ),
    Bad(
        "a pickle that would run code (.pt, .ckpt)",
        _pickle,
        "is a pickle or a zip of them (.pt, .ckpt), which can run code when it is opened, and is refused",
        "a .safetensors file of `lesionkit train` is wanted",
    ),
    Bad(
        "truncated",
        _truncate,
        "not a safetensors file (Error while deserializing header: invalid header length)",
        "checkpoints of `lesionkit train` are wanted",
    ),
    Bad(
        "weights of another program",
        _text(struct.pack("<Q", 2) + b"{}"),
        "not a checkpoint of lesionkit (no entry 'card')",
        "one written by `lesionkit train` is wanted",
    ),
    Bad(
        "a header that describes another network",
        _renamed(b'\\"filters\\": 2,', b'\\"filters\\": 9,'),
        "not a checkpoint of lesionkit (its weights are not those of its network, such as 'encoder.0.0.weight')",
        "one written by `lesionkit train` is wanted",
    ),
    Bad(
        "NaN in the weights",
        _reweighted,
        "not a checkpoint of lesionkit (its weights hold NaN or inf)",
        "one written by `lesionkit train` is wanted",
    ),
]


def _manifest(line: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "participants.tsv").write_text("participant_id\tsplit\n" + line) and None


def _outward(folder: Path) -> None:
    image = folder / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz"
    elsewhere = folder.parent / "elsewhere.nii.gz"
    image.rename(elsewhere)
    image.symlink_to(elsewhere)


def _outward_folder(folder: Path) -> None:
    (folder / "sub-1").rename(folder.parent / "sub-elsewhere")
    (folder / "sub-1").symlink_to(folder.parent / "sub-elsewhere")


def _description(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "dataset_description.json").write_text(content, encoding="utf-8") and None


COHORTS = [
    Bad(
        "`..` as a patient in the manifest",
        _manifest("../../etc\ttrain\n"),
        "line 2: subject is '../../etc'",
        "'sub-' and then letters and digits are wanted",
    ),
    Bad(
        "`..` in a channel",
        _description('{"lesionkit": {"channels": ["../../x"]}}'),
        "names the channel '../../x'",
        "a BIDS suffix such as FLAIR or ce-gad_T1w is wanted",
    ),
    Bad(
        "an image that is a link out of the cohort",
        _outward,
        "leads out of the cohort, to elsewhere.nii.gz",
        "a file inside the cohort is wanted",
    ),
    Bad(
        "a patient that is a link out of the cohort",
        _outward_folder,
        "leads out of the cohort, to sub-elsewhere/anat/sub-1_FLAIR.nii.gz",
        "a file inside the cohort is wanted",
    ),
    Bad(
        "no manifest",
        lambda folder: (folder / "participants.tsv").unlink(),
        "does not exist",
        "a UTF-8 table with tabs between the columns is wanted, with the columns participant_id split",
    ),
    Bad(
        "a split of another name",
        _manifest("sub-1\ttraining\n"),
        "line 2: split is 'training'",
        "one of train, validation, test is wanted",
    ),
    Bad(
        "a patient twice",
        _manifest("sub-1\ttrain\nsub-1\ttest\n"),
        "line 3 names sub-1 a second time",
        "one line for each patient is wanted",
    ),
    Bad(
        "a patient without an image",
        _manifest("sub-9\ttrain\n"),
        "does not exist",
        "an image of every channel is wanted for sub-9",
    ),
    Bad(
        "a description that is no JSON",
        _description("{"),
        "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        'a "lesionkit" block with "kind" and "channels" is wanted',
    ),
]
