"""Points from the programs people click in, and back: 3D Slicer, napari, label images (ITK-SNAP), TSV and CSV.

In: a file in any of these formats, where needed with the image it belongs to. Out: a table in mm (RAS+), and what was
left out or assumed on the way. `lesionkit.io.read_points` reads the tables of a cohort, with no choice of format.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from nibabel.orientations import aff2axcodes

from lesionkit.io.delimited import INDEX_COLUMNS, Units, napari_table, read_delimited, write_delimited
from lesionkit.io.files import check_is_file, data_error
from lesionkit.io.images import read_volume
from lesionkit.io.pointlist import PointList, check_number_of_points
from lesionkit.io.slicer import read_fcsv, read_markups, write_fcsv, write_markups
from lesionkit.io.tables import POINT_COLUMNS
from lesionkit.labels import points_from_mask
from lesionkit.volume import NativeSpace, Volume

POINT_ENDINGS = (".mrk.json", ".json", ".fcsv", ".tsv", ".csv", ".nii", ".nii.gz")
"""Endings of the point files that are read; images are not written."""

_NAPARI_ENDINGS = ("_napari.csv", ".napari.csv")
_MAX_LABELS = 10_000
_SAME_MM = 1e-3
_MAX_MM = 1e6
_WANTED = "a point file is wanted: .mrk.json, .fcsv (3D Slicer), .tsv, .csv (tables, napari), .nii, .nii.gz (labels)"


@dataclass(frozen=True, eq=False, kw_only=True)
class ImportedPoints:
    """Points from a file."""

    frame: pd.DataFrame
    """One row a point, in the file's order: ``x y z`` in mm (RAS+), then what else the file says."""
    format: str
    """Name of the format, for people."""
    rows: tuple[str, ...]
    """Where each point stands in the file, such as ``line 4``."""
    duplicates: tuple[tuple[int, int], ...]
    """Pairs of rows of `frame` at the same place (in steps of 1e-3 mm); both points are kept."""
    notes: tuple[str, ...]
    """What was left out or assumed, a line each."""

    def wrong_size(self) -> str | None:
        """Say which size is no number of voxels; None if all are, or unknown."""
        if "size_vox" not in self.frame:
            return None
        given = self.frame["size_vox"]
        sizes = pd.to_numeric(given, errors="coerce")
        bad = np.flatnonzero(given.notna() & ~((sizes >= 0) & (sizes < np.inf)))
        if not len(bad):
            return None
        wrong = f"{self.rows[bad[0]]} has {str(given.iloc[bad[0]])[:60]!r} as size_vox"
        return f"{wrong}; a number of 0 or more, or n/a, is wanted"


def import_points(
    path: str | os.PathLike[str], *, image: Volume | None = None, units: Units | None = None, axes: str = "ijk"
) -> ImportedPoints:
    """Read points from any format; the name says which, and the content must agree.

    Parameters
    ----------
    path : path
        ``.mrk.json`` or ``.fcsv`` (3D Slicer), ``.tsv`` or ``.csv`` (named columns, or napari's points layer), or a
        label image ``.nii`` or ``.nii.gz``: one point for each connected component of each label, with its size.
    image : Volume, optional
        The image that the points were placed on, as `read_volume` gives it. Voxel indices need it; points outside it
        are refused.
    units : {"mm", "voxel", "ras-voxel"}, optional
        What the coordinates of a table are, where its columns leave that open: mm; voxel indices along the axes of the
        image's file; or along the axes of `image` itself (RAS+), as the arrays of this package have them. For
        napari, "mm" means voxel indices times the spacing, which is what a layer without scale holds over an image
        with one.
    axes : str
        The order in which napari showed the axes of the image's file: "ijk" for the array as nibabel reads it, "kji"
        for one read through ITK.

    Returns
    -------
    ImportedPoints
        Points in mm (RAS+), in the file's order; none is fine.

    Raises
    ------
    DataError
        If the file cannot be used, a coordinate is no finite number, voxel indices come without an image or could
        mean two grids, or a point is outside the image.
    ValueError
        If `units` or `axes` is none of the above.

    Notes
    -----
    Voxel indices count from 0, at the centre of the first voxel.
    """
    path = Path(path)
    _check_choices(units, axes)
    found = _read(path, units, axes)
    world = _to_mm(found, image, path)
    far = ~(np.abs(world) <= _MAX_MM).all(axis=1)
    if far.any():
        row = int(np.argmax(far))
        wrong = f"{found.rows[row]} is at {', '.join(f'{value:.3g}' for value in world[row])} mm"
        raise data_error(path, wrong, "places in a scanner are wanted")
    if image is not None:
        _check_inside(world, found, image, path)
    frame = pd.DataFrame(world, columns=list(POINT_COLUMNS))
    others = found.extra.drop(columns=[name for name in POINT_COLUMNS if name in found.extra])
    duplicates = _duplicates(world)
    notes = list(found.notes)
    if duplicates:
        first, second = (found.rows[row] for row in duplicates[0])
        more = f" (and {len(duplicates) - 1} more such pairs)" if len(duplicates) > 1 else ""
        notes.append(f"{first} and {second} are the same place{more}; both are kept")
    return ImportedPoints(
        frame=pd.concat([frame, others], axis=1),
        format=found.format,
        rows=found.rows,
        duplicates=duplicates,
        notes=tuple(notes),
    )


def export_points(
    path: str | os.PathLike[str],
    frame: pd.DataFrame,
    *,
    image: Volume | None = None,
    units: Units | None = None,
    axes: str = "ijk",
) -> tuple[str, ...]:
    """Write points in the format that the name asks for, atomically.

    Parameters
    ----------
    path : path
        ``.mrk.json`` or ``.fcsv`` (3D Slicer); ``.tsv`` or ``.csv`` (tables); ``_napari.csv`` or ``.napari.csv``
        (points layer of napari). Missing folders are made.
    frame : DataFrame
        Columns ``x y z`` in mm (RAS+) and any others. Tables and napari keep all of them; 3D Slicer shows ``label``
        and keeps the others in the description of a point.
    image : Volume, optional
        The image that voxel indices count in; napari always needs it.
    units : {"mm", "voxel", "ras-voxel"}, optional
        What to write, see `import_points`: mm unless told, for napari "voxel".
    axes : str
        The order in which napari shows the axes of the image's file, see `import_points`.

    Returns
    -------
    tuple of str
        What the reader of the file should know, a line each.

    Raises
    ------
    ValueError
        If a coordinate is missing or not finite, columns share a name, or `units` or `axes` does not fit the format.
    DataError
        If the name has no known ending, an image is lacking, or the file cannot be written.
    """
    path = Path(path)
    _check_choices(units, axes)
    world = _checked(frame)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")) or not name.endswith(POINT_ENDINGS):
        wanted = ".mrk.json, .fcsv, .tsv, .csv or _napari.csv is wanted"
        raise data_error(path, "is no name that points are written to", wanted)
    if name.endswith((".json", ".fcsv")):
        if units not in (None, "mm"):
            raise ValueError(f"units is {units!r}; 3D Slicer takes mm only")
        (write_fcsv if name.endswith(".fcsv") else write_markups)(path, frame)
        return ()
    others = frame.drop(columns=list(POINT_COLUMNS))
    if name.endswith(_NAPARI_ENDINGS):
        grid = _grid(image, "voxel" if units in (None, "mm") else units, path)
        index = _to_index(world, grid) * (_spacing(grid) if units == "mm" else 1.0)
        write_delimited(path, napari_table(index, others, axes), missing="nan")
        empty = () if len(frame) else ("napari cannot open a table without points",)
        return (_seen_from(grid, image, axes) + (", times the spacing" if units == "mm" else ""), *empty)
    if units in (None, "mm"):
        write_delimited(path, frame[[*POINT_COLUMNS, *others.columns]])
        return ()
    grid = _grid(image, units, path)
    index = _to_index(world, grid)
    voxels = pd.DataFrame(index, columns=list(INDEX_COLUMNS), index=frame.index)
    others = others.drop(columns=[column for column in INDEX_COLUMNS if column in others])
    write_delimited(path, pd.concat([voxels, others], axis=1))
    return (_seen_from(grid, image, "ijk"),)


def convert_points(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    units: Units | None = None,
    out_units: Units | None = None,
    axes: str = "ijk",
) -> ImportedPoints:
    """Read points from one format and write them in another.

    Parameters
    ----------
    source, target : path
        Files of the formats of `import_points` and `export_points`.
    image : path, optional
        The image that the points were placed on (NIfTI).
    units, out_units : {"mm", "voxel", "ras-voxel"}, optional
        What the coordinates in `source` and in `target` are, where the format leaves that open.
    axes : str
        The order in which napari shows the axes of the image's file.

    Returns
    -------
    ImportedPoints
        The points, with notes on both files.

    Raises
    ------
    DataError, ValueError
        As `import_points` and `export_points` do; `target` is then as it was.
    """
    volume = None if image is None else read_volume(image)
    points = import_points(source, image=volume, units=units, axes=axes)
    notes = export_points(target, points.frame, image=volume, units=out_units, axes=axes)
    return replace(points, notes=points.notes + notes)


def check_inside(path: str | os.PathLike[str], frame: pd.DataFrame, image: Volume) -> None:
    """Raise unless all points of a table that was read are in the field of view of an image.

    Parameters
    ----------
    path : path
        What to call the table in the message.
    frame : DataFrame
        As `read_points` gives it: ``x y z`` in mm (RAS+).
    image : Volume
        The image that the points belong to.

    Raises
    ------
    DataError
        Naming the first point outside, and the usual mistake that would put all of them inside.
    """
    world = _checked(frame)
    rows = tuple(f"point {number}" for number in range(1, len(world) + 1))
    found = PointList(coordinates=world, space="ras", extra=pd.DataFrame(), rows=rows, format="table")
    _check_inside(world, found, image, Path(path))


def _check_choices(units: str | None, axes: str) -> None:
    if units not in (None, "mm", "voxel", "ras-voxel"):
        raise ValueError(f"units is {units!r}; 'mm', 'voxel' or 'ras-voxel' is wanted")
    if sorted(axes) != sorted("ijk"):
        raise ValueError(f"axes is {axes!r}; the letters i, j and k in some order are wanted")


def _read(path: Path, units: Units | None, axes: str) -> PointList:
    name = path.name.lower()
    if not name.endswith(POINT_ENDINGS):
        check_is_file(path, _WANTED)
        raise data_error(path, "has an ending that no point file has", _WANTED)
    if name.endswith((".tsv", ".csv")):
        return read_delimited(path, units=units, axes=axes)
    if name.endswith(".fcsv"):
        found = read_fcsv(path)
    elif name.endswith(".json"):
        found = read_markups(path)
    else:
        found = _read_labels(path)
    if units not in (None, "voxel" if found.space == "file-voxel" else "mm"):
        raise data_error(path, f"says itself what its coordinates are, not {units}", "leave units out")
    return found


def _read_labels(path: Path) -> PointList:
    """Return the centre of mass of each connected component of each label."""
    from scipy import ndimage

    volume = read_volume(path, np.int32)
    wanted = "a label image with 0 outside the lesions is wanted"
    if int(volume.data.min()) < 0:
        raise data_error(path, f"holds the label {int(volume.data.min())}", wanted)
    inside = volume.data > 0
    values, place = np.unique(volume.data[inside], return_inverse=True)
    if len(values) > _MAX_LABELS:
        raise data_error(path, f"holds {len(values)} different values and looks like an image", wanted)
    if inside.all():
        raise data_error(path, "labels every voxel", wanted)
    compact = np.zeros(volume.shape, dtype=np.int32)  # numbers without gaps, which find_objects makes a list of
    compact[inside] = place.reshape(-1) + 1
    boxes = ndimage.find_objects(compact)
    voxels = sum(int(np.prod([side.stop - side.start for side in box])) for box in boxes)
    if voxels > 100 * volume.data.size:  # labels that are everywhere: a noisy image
        raise data_error(path, f"holds {len(boxes)} values all over the place and looks like an image", wanted)
    points, sizes, labels, rows = [np.zeros((0, 3))], [], [], []
    for value, box in zip(values.tolist(), boxes, strict=True):
        parts = points_from_mask(volume.data[box] == value)
        points.append(parts.points + [side.start for side in box])
        sizes += parts.sizes.tolist()
        labels += [value] * len(parts.sizes)
        rows += [f"label {value}, component {number}" for number in range(1, len(parts.sizes) + 1)]
        check_number_of_points(len(rows), path)
    return PointList(
        coordinates=volume.to_mm(np.concatenate(points)),
        space="ras",
        extra=pd.DataFrame({"size_vox": np.array(sizes, dtype=np.int64), "label": np.array(labels, dtype=np.int64)}),
        rows=tuple(rows),
        format="label image",
    )


def _to_mm(found: PointList, image: Volume | None, path: Path) -> Float[np.ndarray, "n 3"]:
    if found.space in ("ras", "lps"):
        return found.coordinates * ([1.0, 1.0, 1.0] if found.space == "ras" else [-1.0, -1.0, 1.0])
    if found.space == "voxel" and image is not None and len(found.rows) and not _is_one_grid(image):
        codes = "".join(aff2axcodes(_file_grid(image).affine))
        wrong = f"holds voxel indices, and the image is stored as {codes}"
        if codes == "RAS":
            wrong = "holds voxel indices, and the image was resampled"
        mend = "say units voxel (they count along the file's axes) or ras-voxel (along RAS+, as lesionkit does)"
        raise data_error(path, wrong, mend)
    grid = _grid(image, "ras-voxel" if found.space == "ras-voxel" else "voxel", path)
    index = found.coordinates / (_spacing(grid) if found.space == "file-mm" else 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        world: np.ndarray = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return world


def _to_index(world: Float[np.ndarray, "n 3"], grid: NativeSpace) -> Float[np.ndarray, "n 3"]:
    return np.linalg.solve(grid.affine[:3, :3], (world - grid.affine[:3, 3]).T).T


def _spacing(grid: NativeSpace) -> Float[np.ndarray, "3"]:
    spacing: np.ndarray = np.sqrt((grid.affine[:3, :3] ** 2).sum(axis=0))
    return spacing


def _file_grid(image: Volume) -> NativeSpace:
    return image.native if image.native is not None else NativeSpace(image.shape, image.affine)


def _grid(image: Volume | None, units: Units, path: Path) -> NativeSpace:
    """Return the grid that voxel indices count in."""
    if image is None:
        raise data_error(path, "holds voxel indices", "the image that they count in is wanted (--image)")
    return _file_grid(image) if units == "voxel" else NativeSpace(image.shape, image.affine)


def _is_one_grid(image: Volume) -> bool:
    grid = _file_grid(image)
    return grid.shape == image.shape and np.allclose(grid.affine, image.affine, rtol=0.0, atol=1e-6)


def _seen_from(grid: NativeSpace, image: Volume | None, axes: str) -> str:
    codes = "".join(aff2axcodes(grid.affine))
    file = "the image's file" if image is not None and grid is _file_grid(image) else "the volume"
    return f"voxel indices count along the axes {' '.join(axes)} of {file} ({codes}), from 0"


def _check_inside(world: Float[np.ndarray, "n 3"], found: PointList, image: Volume, path: Path) -> None:
    """Raise unless all points are in the field of view, which ends half a voxel beyond the outermost centres."""
    outside = ~_inside(world, image)
    if not outside.any():
        return
    first = int(np.argmax(outside))
    place = ", ".join(f"{value:.6g}" for value in world[first])
    more = f" (and {int(outside.sum()) - 1} more)" if outside.sum() > 1 else ""
    wrong = f"{found.rows[first]} is outside the image, at {place} mm{more}"
    raise data_error(path, wrong, f"points of this image are wanted{_suspicion(world, found, image)}")


def _inside(world: Float[np.ndarray, "n 3"], image: Volume) -> np.ndarray:
    index = image.to_voxel(world)
    return np.asarray(((index >= -0.501) & (index <= np.array(image.shape) - 0.499)).all(axis=1))


def _suspicion(world: Float[np.ndarray, "n 3"], found: PointList, image: Volume) -> str:
    """Return the usual mistake that would put all points inside, if there is one."""
    if _inside(world * [-1.0, -1.0, 1.0], image).all():
        return ": with x and y negated all are inside, so that they may be in LPS, or labelled so and in RAS"
    grid = _file_grid(image)
    if (
        found.space in ("ras", "lps")
        and _inside(found.coordinates @ grid.affine[:3, :3].T + grid.affine[:3, 3], image).all()
    ):
        return ": as voxel indices all are inside (units voxel)"
    for order in permutations(range(3)):
        if _inside(world[:, list(order)], image).all():
            return f": in the order {' '.join('xyz'[axis] for axis in order)} all are inside; columns may be swapped"
    return ""


def _duplicates(world: Float[np.ndarray, "n 3"]) -> tuple[tuple[int, int], ...]:
    """Return each point that repeats an earlier one, with that one."""
    places, inverse = np.unique(np.round(world / _SAME_MM), axis=0, return_inverse=True)
    first = np.full(len(places), -1)
    pairs = []
    for row, place in enumerate(inverse.reshape(-1).tolist()):
        if first[place] < 0:
            first[place] = row
        else:
            pairs.append((int(first[place]), row))
    return tuple(pairs)


def _checked(frame: pd.DataFrame) -> Float[np.ndarray, "n 3"]:
    """Return the coordinates of a table that can be written."""
    names = [str(name) for name in frame.columns]
    if any(names.count(name) != 1 for name in {*POINT_COLUMNS, *names}):
        raise ValueError(f"frame has the columns {names}; x, y and z (mm), and each column once, are wanted")
    world = np.stack(
        [
            pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            for name in POINT_COLUMNS
        ],
        axis=1,
    )
    if not np.isfinite(world).all():
        row, column = (int(place) for place in np.argwhere(~np.isfinite(world))[0])
        value = frame[POINT_COLUMNS[column]].iloc[row]
        raise ValueError(f"frame holds {value!s:.60} as {POINT_COLUMNS[column]} in row {row}; finite mm are wanted")
    return world
