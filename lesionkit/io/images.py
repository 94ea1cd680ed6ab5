"""NIfTI images as `Volume`: 3-D, finite and turned to RAS+; written back in the space of the file they came from."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from nibabel import orientations
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike

from lesionkit.io.files import atomic_path, check_is_file, data_error, reading
from lesionkit.volume import NativeSpace, Volume

MAX_VOXELS = 2**30
"""Largest image that is read: 1024 voxels along each axis, beyond any MRI."""

_APART_MM = 2.0
_LOG = logging.getLogger("lesionkit.io")
_SLAB_VOXELS = 2**21
_MAX_TRAILING_BYTES = 2**20
_DEFLATE_RATIO = 1032  # gzip cannot expand more than this
_BYTE_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_WANTED = "a NIfTI image (.nii or .nii.gz) is wanted"


def read_volume(path: str | os.PathLike[str], dtype: DTypeLike = np.float32) -> Volume:
    """Read a 3-D NIfTI image, turned to RAS+.

    Parameters
    ----------
    path : path
        A single-file NIfTI-1 or NIfTI-2 image, gzipped or not (the content decides, not the name).
    dtype : dtype
        Type of the voxels: a float type, or an integer or bool type, which then must hold every value exactly.

    Returns
    -------
    Volume
        C-contiguous voxels in ``(i, j, k)`` order of RAS+, slope and intercept applied; `native` is the file's grid.

    Raises
    ------
    DataError
        If the file is missing, a folder, not NIfTI, truncated or corrupt; is not one 3-D volume (trailing axes of 1 are
        fine); holds complex, RGB, NaN or infinite voxels, or values that `dtype` cannot hold; has lengths that are not
        mm, or an affine that is not finite or cannot be inverted; claims more voxels than `MAX_VOXELS` or than the file
        can hold (found before memory is taken).
    ValueError
        If `dtype` is not a type of real numbers.

    Notes
    -----
    Of two forms that place the image more than 2 mm apart the sform is taken, as nibabel does; a file with neither says
    nothing about its orientation, and the grid that nibabel derives from its voxel size is taken. Both are logged, and
    noted in `native`. Lengths and signs of the header are mended as nibabel mends them.
    """
    path = Path(path)
    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise ValueError(f"dtype is {kind}; a float, integer or bool type is wanted")
    check_is_file(path, _WANTED)
    with reading(path), _opened(path) as (stream, capacity):
        header = _mended(_read_header(stream, path))
        shape, on_disk, offset = _checked_claims(header, capacity, path)
        affine = _header_affine(header, path)
        note = _which_affine(header, shape)
        if note:
            _LOG.warning("%s: %s", path, note)
        _skip(stream, offset - int(header["sizeof_hdr"]), path)
        data = _read_voxels(stream, shape, on_disk, _header_scaling(header, path), kind, path)
        if len(stream.read(_MAX_TRAILING_BYTES + 1)) > _MAX_TRAILING_BYTES:
            wrong = f"goes on after the {_by(shape)} voxels of its header"
            raise data_error(path, wrong, "an image whose header fits its data is wanted")
    turn = orientations.io_orientation(affine)
    turned = np.ascontiguousarray(orientations.apply_orientation(data, turn))
    return Volume(turned, affine @ orientations.inv_ornt_aff(turn, shape), NativeSpace(shape, affine, note))


def write_volume(path: str | os.PathLike[str], volume: Volume, *, native: bool = True) -> None:
    """Write an image as NIfTI, atomically.

    Parameters
    ----------
    path : path
        The new file, ending in ``.nii`` or ``.nii.gz``; missing folders are made.
    volume : Volume
        Floats are stored as float32, bool as uint8, integers as the first of uint8, int16 and int32 that holds them.
    native : bool
        Write in the space of the file that the volume came from, where only axes were flipped and exchanged since; a
        resampled volume is always written on its own grid.

    Raises
    ------
    ValueError
        If the volume holds NaN, inf, complex numbers or integers beyond int32.
    DataError
        If the name has another ending, or the file cannot be written.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise data_error(path, "is no name of a NIfTI image", "an ending .nii or .nii.gz is wanted")
    data, affine = _storable(volume.data), volume.affine
    if native and (turned := _undo_turn(data, volume)) is not None:
        data, affine = turned
    # NIfTI-1 counts voxels in 16 bits.
    kind: Any = nib.Nifti1Image if max(data.shape) < 2**15 else nib.Nifti2Image
    image = kind(data, affine)
    image.header.set_xyzt_units("mm")
    # Some tools read only the quaternion; it cannot express shears, and is left out then.
    image.set_qform(affine, code="aligned")
    if not np.allclose(image.get_qform(), affine, rtol=0.0, atol=1e-3):
        image.set_qform(None, code="unknown")
    with atomic_path(path) as temporary:
        image.to_filename(temporary)


def check_same_grid(a: Volume, b: Volume, names: tuple[str, str]) -> None:
    """Raise unless a voxel index means the same place in two volumes.

    Parameters
    ----------
    a, b : Volume
        The volumes to compare.
    names : tuple of two str
        What to call them in the message, such as their paths.

    Raises
    ------
    DataError
        If shapes or affines differ.
    """
    if a.shape != b.shape:
        wrong = f"has {_by(b.shape)} voxels, but {names[0]} has {_by(a.shape)}"
    elif not a.same_grid(b):
        wrong = f"lies elsewhere than {names[0]} (by up to {a.distance_mm(b):.3g} mm)"
    else:
        return
    raise data_error(Path(names[1]), wrong, "images on one grid are wanted: resample one onto the other")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a plain or gzipped file; also say how many bytes can come out of it at most."""
    with path.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            yield raw, size
            return
        with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
            yield cast(IO[bytes], stream), size * _DEFLATE_RATIO


def _read_header(stream: IO[bytes], path: Path) -> nib.Nifti1Header:
    """Parse the first bytes without nibabel's repairs, which would log and guess."""
    block = stream.read(540)
    kinds: tuple[tuple[Any, int], ...] = ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540))
    for kind, size in kinds:
        orders = [mark for mark, order in _BYTE_ORDERS.items() if int.from_bytes(block[:4], order) == size]
        if not orders or len(block) < size:
            continue
        header: nib.Nifti1Header = kind(block[:size], orders[0], check=False)
        magic = bytes(header["magic"])[:2]
        if magic == b"ni":
            hint = conversion_hint(path) or "a single file (.nii or .nii.gz) is wanted"
            raise data_error(path, "is one half of a .hdr/.img pair", hint)
        if magic == b"n+":
            stream.seek(size)  # a NIfTI-1 header is shorter than what was read
            return header
    raise data_error(path, "is not a NIfTI image" if block else "is empty", conversion_hint(path) or _WANTED)


def conversion_hint(path: Path) -> str:
    """Say how an image of another program becomes a NIfTI image; empty where the ending is none of theirs."""
    stem, ending = path.with_suffix(""), path.suffix.lower()
    if ending not in (".mgz", ".mgh", ".img", ".hdr", ".mnc", ".brik", ".head"):
        return ""
    source = path.with_suffix(".hdr") if ending == ".img" else path
    code = f"import nibabel as n; n.save(n.Nifti1Image.from_image(n.load({str(source)!r})), {f'{stem}.nii.gz'!r})"
    return f'a NIfTI image is wanted; this makes one: python -c "{code}"'


def _mended(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Mend what nibabel mends when it opens a file: a qfac that is no sign, and voxel edges below 0."""
    edges = header["pixdim"]
    edges[0] = edges[0] if edges[0] in (-1, 1) else 1
    edges[1:4] = np.abs(edges[1:4])
    return header


def _which_affine(header: nib.Nifti1Header, shape: tuple[int, int, int]) -> str:
    """Return a line where a header leaves open where the image lies; empty where it does not."""
    if not header["sform_code"] and not header["qform_code"]:
        return (
            "has neither sform nor qform, so that left and right are a guess: the grid of its voxel size is taken (LAS)"
        )
    if not (header["sform_code"] and header["qform_code"]):
        return ""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), (1,)), axis=-1).reshape(-1, 4)
    try:
        with np.errstate(all="ignore"):
            between = header.get_sform() - header.get_qform()
            apart = float(np.linalg.norm(corners @ between.T, axis=1).max())
    except (ValueError, HeaderDataError):
        return ""
    return f"its sform and qform place it {apart:.1f} mm apart: the sform is taken" if apart > _APART_MM else ""


def _checked_claims(
    header: nib.Nifti1Header, capacity: int, path: Path
) -> tuple[tuple[int, int, int], np.dtype[Any], int]:
    """Return shape, type on disk and offset of the voxels, held against the file's size before memory is taken."""
    i, j, k = _checked_sizes(header, path)
    try:
        on_disk: np.dtype[Any] = header.get_data_dtype()
    except KeyError:
        on_disk = np.dtype("V")
    if on_disk.kind not in "iuf":
        wrong = "holds complex numbers" if on_disk.kind == "c" else "holds RGB colours or voxels of an unknown type"
        raise data_error(path, wrong, "real numbers are wanted: save one component")
    least = int(header["sizeof_hdr"])
    offset = float(header["vox_offset"])
    if not (offset == 0 or least <= offset < 2**62):
        raise data_error(path, f"says that its voxels start at byte {offset:g}", f"{least} or more is wanted")
    start = int(offset) or least + 4
    if start + i * j * k * on_disk.itemsize > capacity:
        wrong = f"claims {_by((i, j, k))} voxels of type {on_disk.name} in its header, more than the file can hold"
        raise data_error(path, wrong, "it may be truncated: fetch or export it again")
    return (i, j, k), on_disk, start


def _checked_sizes(header: nib.Nifti1Header, path: Path) -> tuple[int, int, int]:
    """Return the shape of the one 3-D volume that a header announces."""
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise data_error(path, f"claims {n_axes} axes in its header", "a 3-D volume is wanted")
    sizes = [int(size) for size in header["dim"][1 : 1 + n_axes]]
    if min(sizes[3:], default=1) < 1:
        mend = "if it holds one image, set dim[0] to 3 in its header; else export it again"
        raise data_error(path, f"holds no image ({_by(sizes)})", mend)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) != 3:
        mend = ": take it out with nibabel, image.slicer[..., 0]" if len(sizes) > 3 else ""
        raise data_error(path, f"has {len(sizes)} axes ({_by(sizes)})", f"one 3-D volume is wanted{mend}")
    if min(sizes) < 1:
        raise data_error(path, f"has the shape {_by(sizes)}", "at least one voxel along each axis is wanted")
    i, j, k = sizes
    if i * j * k > MAX_VOXELS:
        mend = f"at most {MAX_VOXELS} are read: crop or resample the image"
        raise data_error(path, f"claims {_by(sizes)} voxels in its header", mend)
    return i, j, k


def _header_affine(header: nib.Nifti1Header, path: Path) -> Float[np.ndarray, "4 4"]:
    """Return voxel index to mm; refuse what is not finite, cannot be inverted or is not in mm."""
    unit = {1: "metres", 3: "micrometres"}.get(int(header["xyzt_units"]) & 7)
    if unit is not None:
        raise data_error(path, f"gives its lengths in {unit}", "millimetres are wanted")
    try:
        with np.errstate(all="ignore"):
            return NativeSpace((1, 1, 1), header.get_best_affine()).affine
    except (ValueError, HeaderDataError) as error:
        raise data_error(path, f"has an affine that cannot be used ({error})", "set a valid sform or qform") from error


def _header_scaling(header: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means none, as the format says."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise data_error(path, f"has the scaling intercept {intercept}", "a finite number is wanted")
    return slope, intercept


def _skip(stream: IO[bytes], n_bytes: int, path: Path) -> None:
    """Read past header extensions."""
    while n_bytes > 0:
        got = len(stream.read(min(n_bytes, 2**20)))
        if got == 0:
            raise data_error(path, "is truncated: it ends before its voxels", "fetch or export the file again")
        n_bytes -= got


def _read_voxels(
    stream: IO[bytes],
    shape: tuple[int, int, int],
    on_disk: np.dtype[Any],
    scaling: tuple[float, float],
    dtype: np.dtype[Any],
    path: Path,
) -> Shaped[np.ndarray, "i j k"]:
    """Read, scale and check slab by slab, so that no second copy of the image is needed."""
    data = np.empty(shape, dtype=dtype, order="F")
    flat = data.reshape(-1, order="F")
    for start in range(0, flat.size, _SLAB_VOXELS):
        stop = min(start + _SLAB_VOXELS, flat.size)
        block = stream.read((stop - start) * on_disk.itemsize)
        if len(block) < (stop - start) * on_disk.itemsize:
            wrong = f"is truncated: it ends before the last of its {_by(shape)} voxels"
            raise data_error(path, wrong, "fetch or export it again")
        values: np.ndarray = np.frombuffer(block, dtype=on_disk)
        if scaling != (1.0, 0.0):
            values = values.astype(np.float64) * scaling[0] + scaling[1]
        with np.errstate(invalid="ignore", over="ignore"):
            flat[start:stop] = values if dtype.kind == "f" else np.rint(values)
            taken = flat[start:stop]
            # A slope of 1.00000006 leaves no whole numbers.
            off = (
                np.abs(taken - values) > 1e-5 * np.maximum(np.abs(values), 1)
                if scaling != (1.0, 0.0)
                else taken != values
            )
        bad = ~np.isfinite(taken) if dtype.kind == "f" else off
        if bad.any():
            first = int(np.argmax(bad))
            index = tuple(int(i) for i in np.unravel_index(start + first, shape, order="F"))
            wrong = f"holds {values[first]} at voxel {index} (from 0, in the file's own axes)"
            kind = dtype.name if np.isfinite(values[first]) else "finite"
            raise data_error(path, wrong, f"{kind} voxels are wanted: replace what is not")
    return data


def _storable(data: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "i j k"]:
    """Cast to the smallest of the types that every NIfTI reader knows."""
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind in "iu":
        low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
        for kind in (np.uint8, np.int16, np.int32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return data.astype(kind)
        raise ValueError(f"volume holds integers from {low} to {high}; values that int32 can hold are wanted")
    if data.dtype.kind != "f":
        raise ValueError(f"volume has type {data.dtype}; real numbers are wanted")
    with np.errstate(over="ignore"):
        stored = data.astype(np.float32)
    if not np.isfinite(stored).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(stored))[0])
        raise ValueError(f"volume holds {data[index]} at voxel {index}; finite float32 values are wanted")
    return stored


def _undo_turn(
    data: Shaped[np.ndarray, "i j k"], volume: Volume
) -> tuple[Shaped[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]] | None:
    """Return array and affine in the space of the file, or None if the volume is not on that grid."""
    native = volume.native
    if native is None:
        return None
    turn = orientations.io_orientation(native.affine)
    expected = native.affine @ orientations.inv_ornt_aff(turn, native.shape)
    back = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), turn)
    turned = orientations.apply_orientation(data, back)
    same = turned.shape == native.shape and np.allclose(volume.affine, expected, rtol=0.0, atol=1e-3)
    return (turned, native.affine) if same else None


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
