"""Public data on demand: real patients of the Ljubljana databases, checked, and resumed where a download broke off.

In: a name. Out: a folder of images, masks and lesion labels that `lesionkit import` reads.

The source (see `SOURCE`) holds whole-head grids; what is written is cropped to the brain, turned to RAS+, rounded to 12
bits and numbered lesion by lesion, and then compared with what is known of it (`data/ljubljana.tsv`).
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from scipy import ndimage

from lesionkit.io.files import DataError, atomic_path, check_is_file, reading
from lesionkit.io.images import read_volume, write_volume
from lesionkit.io.tables import read_table
from lesionkit.labels import CONNECTIVITIES
from lesionkit.volume import Volume

SOURCE = "https://raw.githubusercontent.com/muschellij2/open_ms_data/65704901f60650824565aa5a4818611aa89716f4"
"""Where the data are public: one state of a mirror of the databases, with masks in the space of the images."""

CITATION = (
    "Lesjak et al., A Novel Public MR Image Dataset of Multiple Sclerosis Patients With Lesion Segmentations Based on "
    "Multi-rater Consensus, Neuroinformatics 2017 (cross-sectional), and Validation of White-Matter Lesion Change "
    "Detection Methods on a Novel Publicly Available MRI Image Database, Neuroinformatics 2016 (longitudinal); CC-BY"
)

ENVIRONMENT = "LESIONKIT_DATA"
"""Environment variable that names a folder with a copy of the data."""

_LEVELS = 4095


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the data."""

    path: str
    """Below the folder."""
    n_bytes: int
    """Size of the file as packed."""
    sha256: str
    """Hash of the file as packed: of a copy on disk, or on a mirror."""
    source: str
    """Path at the source; empty where the file is made of others, or only a copy has it."""
    slope: float | None
    """Image units a stored level; None for masks."""
    shape: tuple[int, int, int]
    affine: np.ndarray
    voxels: str
    """Hash of the stored voxels, 32-bit integers in C order (128 bits of SHA-256)."""
    total: int
    """Sum of the stored voxels."""


LISTING = Path(__file__).parents[1] / "data" / "ljubljana.tsv"
"""What is known of every file."""


def entries(listing: Path = LISTING) -> list[Entry]:
    """Return what is known of every file."""
    columns, rows = read_table(listing, ("path", "sha256", "source"))
    found = []
    for _, row in rows:
        given = dict(zip(columns, row, strict=True))
        i, j, k = (int(size) for size in given["shape"].split())
        affine = np.vstack([np.reshape([float(value) for value in given["affine"].split()], (3, 4)), [0, 0, 0, 1]])
        found.append(
            Entry(
                path=given["path"],
                n_bytes=int(given["bytes"]),
                sha256=given["sha256"],
                source=given["source"],
                slope=float(given["slope"]) if given["slope"] else None,
                shape=(i, j, k),
                affine=affine,
                voxels=given["voxels"],
                total=int(given["total"]),
            )
        )
    return found


def fetch_ljubljana(
    folder: str | Path,
    *,
    source: str | None = None,
    mirror: str | None = None,
    listing: Path = LISTING,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Fetch the data, or check a copy of them.

    Parameters
    ----------
    folder : path
        Where the data go. Files that are there and right are kept, so that a second call goes on where the first ended.
        If the environment variable `LESIONKIT_DATA` names a copy, its files are copied from there instead.
    source : str, optional
        Address of the source's files, instead of `SOURCE`.
    mirror : str, optional
        Address of a server that has the files as packed (such as one of your institute); hashes are checked.
    listing : path
        What is known of every file.
    progress : callable, optional
        Called with the path, the number of files done and of all.

    Returns
    -------
    list of Path
        The files, in the order of the list. From the source come the cross-sectional patients and the masks of change;
        the longitudinal images are only in a copy or on a mirror, since the source has them in other spaces.

    Raises
    ------
    DataError
        If the source cannot be reached, or a file is not what is known of it.
    """
    folder = Path(folder)
    copy = os.environ.get(ENVIRONMENT)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is no folder; a folder for the data is wanted")
    wanted = entries(listing)
    if not copy and not mirror:
        wanted = [entry for entry in wanted if entry.source or entry.path.startswith("cross/patient")]
    written = []
    for done, entry in enumerate(wanted, start=1):
        target = folder / entry.path
        if not _is_right(target, entry):
            if copy:
                _take(Path(copy) / entry.path, target, entry)
            elif mirror:
                _download(f"{mirror.rstrip('/')}/{entry.path}", target, entry.sha256)
            else:
                _make(entry, folder, (source or SOURCE).rstrip("/"))
        written.append(target)
        if progress is not None:
            progress(entry.path, done, len(wanted))
    return written


def _is_right(path: Path, entry: Entry) -> bool:
    """Whether a file is as packed, or holds the voxels that it should."""
    if not path.is_file():
        return False
    if path.stat().st_size == entry.n_bytes and _sha256(path) == entry.sha256:
        return True
    try:
        _check(_stored(read_volume(path, np.float64), entry), path, entry)
    except DataError:
        return False
    return True


def _take(copy: Path, target: Path, entry: Entry) -> None:
    """Take a file from a copy on disk, after checking it."""
    check_is_file(copy, f"a copy of the data is wanted in the folder that {ENVIRONMENT} names")
    with reading(copy):
        content = copy.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DataError(f"{copy}: is not the file of that name (its SHA-256 differs); copy it again")
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _make(entry: Entry, folder: Path, source: str) -> None:
    """Make a file of what the source has."""
    target = folder / entry.path
    if not entry.source:  # a brain mask: where any of the patient's images is not 0
        images = [read_volume(target.with_name(f"{name}.nii.gz")) for name in ("FLAIR", "T1", "T1POST", "T2")]
        union = ndimage.binary_fill_holes(np.any([image.data != 0 for image in images], axis=0))
        stored: Shaped[np.ndarray, "i j k"] = np.asarray(union, dtype=np.int32)
    else:
        download = folder / ".download" / entry.source
        _download(f"{source}/{entry.source}", download, None)
        stored = _stored(_cropped(read_volume(download, np.float64), entry, download), entry)
    _check(stored, target, entry)
    data = stored.astype(np.uint16) if entry.slope is None else (stored * entry.slope).astype(np.float32)
    write_volume(target, Volume(data, entry.affine), native=False)


def _cropped(volume: Volume, entry: Entry, path: Path) -> Volume:
    """Return the part of a whole-head grid that is kept."""
    first = np.rint(volume.to_voxel(entry.affine[:3, 3][None])[0]).astype(int)
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(first, entry.shape, strict=True))
    part = volume.data[box]
    near = np.allclose(volume.affine[:3, :3], entry.affine[:3, :3], atol=1e-3)
    if (first < 0).any() or part.shape != entry.shape or not near:
        raise DataError(f"{path}: lies on another grid than expected; the file of the source's fixed state is wanted")
    return Volume(part, entry.affine)


def _stored(volume: Volume, entry: Entry) -> Shaped[np.ndarray, "i j k"]:
    """Return voxels as the pack stores them: lesions numbered in raster order, masks of 0 and 1, images in 12 bits."""
    name = Path(entry.path).name
    if name.startswith(("lesions", "change")):
        structure = ndimage.generate_binary_structure(3, CONNECTIVITIES[18])
        return np.asarray(ndimage.label(volume.data > 0, structure=structure)[0], dtype=np.int32)
    if entry.slope is None:
        whole = name.startswith("lesion_frequency")
        return np.asarray(volume.data if whole else volume.data > 0).astype(np.int32)
    return np.clip(np.rint(volume.data / entry.slope), 0, _LEVELS).astype(np.int32)


def _check(stored: Shaped[np.ndarray, "i j k"], path: Path, entry: Entry) -> None:
    """Raise unless voxels are what is known of them; an image may be rounded otherwise, by a hundredth of a level."""
    same = stored.shape == entry.shape
    if same and entry.slope is None:
        same = hashlib.sha256(np.ascontiguousarray(stored, dtype="<i4").tobytes()).hexdigest().startswith(entry.voxels)
    elif same:
        same = bool(abs(int(stored.sum()) - entry.total) <= 0.01 * np.count_nonzero(stored))
    if not same:
        raise DataError(f"{path}: would hold other voxels than expected; the source has changed: please report it")


def _download(url: str, target: Path, sha256: str | None) -> None:
    """Download a file, going on where an earlier attempt broke off."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    part = target.with_name(f".{target.name}.part")
    if target.is_file() and sha256 is None:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file():  # pooch would ask no more than its hash
            target.unlink()
        pooch.retrieve(
            url, known_hash=sha256, path=target.parent, fname=target.name, downloader=_Resuming(part), progressbar=False
        )
    except ValueError as error:  # pooch, of a hash
        part.unlink(missing_ok=True)
        raise DataError(
            f"{url}: is not the file of that name (its SHA-256 differs); another mirror is wanted"
        ) from error
    except OSError as error:  # the network's errors are among them
        why = " ".join(str(error.strerror or error).split())[:200]
        raise DataError(f"{url}: cannot be fetched ({why}); run the command again to go on") from error


class _Resuming:
    """A downloader for pooch that keeps what came before a connection broke."""

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        import requests

        size = self.part.stat().st_size if self.part.is_file() else 0
        headers = (
            {"Range": f"bytes={size}-", "Accept-Encoding": "identity"} if size else {"Accept-Encoding": "identity"}
        )
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            if answer.status_code == 416:  # nothing is left, or the file has changed
                self.part.unlink()
                raise OSError("the server has another file than before")
            answer.raise_for_status()
            mode = "ab" if answer.status_code == 206 else "wb"
            whole = answer.headers.get("Content-Length")
            with self.part.open(mode) as stream:
                before = stream.tell()
                answer.raw.enforce_content_length = False  # what came is kept; the length is checked below
                while block := answer.raw.read(2**16):
                    stream.write(block)
                if whole is not None and stream.tell() - before != int(whole):
                    raise OSError(f"the connection broke after {stream.tell()} bytes")
        os.replace(self.part, output_file)


def _sha256(path: Path) -> str:
    with reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def summary(written: Sequence[Path]) -> str:
    """Return a line for people: how much there is."""
    size = sum(path.stat().st_size for path in written)
    return f"{len(written)} files, {size / 1e6:.0f} MB. Cite: {CITATION}"
