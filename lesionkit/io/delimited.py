"""Points in tables with named columns: TSV (BIDS), CSV, the control point table of 3D Slicer, the points of napari."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lesionkit.io.files import data_error
from lesionkit.io.pointlist import (
    PointList,
    Space,
    check_number_of_points,
    columns_of,
    one_line,
    shortened,
)
from lesionkit.io.slicer import few_keys, unpack
from lesionkit.io.tables import MAX_COLUMNS, POINT_COLUMNS, finite_number, read_text, write_table

Units = Literal["mm", "voxel", "ras-voxel"]
"""What a user may say of coordinates: mm, voxel indices along the axes of the image file, or along RAS+."""

INDEX_COLUMNS = ("i", "j", "k")
NAPARI_COLUMNS = ("axis-0", "axis-1", "axis-2")
_MILLIMETRES: dict[tuple[str, str, str], Space] = {
    POINT_COLUMNS: "ras",
    ("x_mm", "y_mm", "z_mm"): "ras",
    ("r", "a", "s"): "ras",
    ("l", "p", "s"): "lps",
}
_TRIPLES = (*_MILLIMETRES, INDEX_COLUMNS, NAPARI_COLUMNS)
_SLICER = (("r", "a", "s"), ("l", "p", "s"))
_SLICER_FLAGS = ("defined", "selected", "visible", "locked")
_MARKS = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "spaces"}


def read_delimited(path: Path, *, units: Units | None, axes: str) -> PointList:
    """Read a table: tabs in a ``.tsv``, commas in any other; its column names say what the coordinates are."""
    mark = _mark(path)
    wanted = f"a UTF-8 table with {_MARKS[mark]} between the columns and x y z (mm, RAS+) or i j k (voxels) is wanted"
    text = read_text(path, wanted)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    table: list[tuple[int, list[str]]] = []
    try:
        for entries in reader:
            if not any(entry.strip() for entry in entries):
                continue
            if not table:
                columns = _checked_columns(entries, mark, wanted, path)
            elif len(entries) != len(columns):
                wrong = f"line {reader.line_num} has {len(entries)} entries"
                raise data_error(path, wrong, f"{len(columns)} are wanted, as in the header line")
            table.append((reader.line_num, entries))
            check_number_of_points(len(table) - 1, path)
    except csv.Error as error:
        raise data_error(path, f"line {reader.line_num} cannot be read ({error})", wanted) from error
    if not table:
        raise data_error(path, "is empty", wanted)
    chosen, space = _coordinate_columns(columns, units, wanted, path)
    place = {name: number for number, name in enumerate(columns)}
    notes: list[str] = []
    rows = table[1:]
    if chosen in _SLICER and "defined" in place:
        unset = [line for line, entries in rows if entries[place["defined"]].strip() in ("0", "false", "False")]
        if unset:
            notes.append(f"left out {len(unset)} without a position: {shortened([f'line {line}' for line in unset])}")
        rows = [(line, entries) for line, entries in rows if line not in set(unset)]
    coordinates = np.array(
        [[_number(entries[place[name]], name, line, path) for name in chosen] for line, entries in rows],
        dtype=np.float64,
    ).reshape(-1, 3)
    if chosen == NAPARI_COLUMNS:
        coordinates = coordinates[:, [axes.index(axis) for axis in INDEX_COLUMNS]]
    if chosen == POINT_COLUMNS and mark == "," and units is None and _look_like_indices(coordinates):
        notes.append("x y z are whole numbers from 0 and are taken as mm (RAS+); if they are voxels, say units voxel")
    return PointList(
        coordinates=coordinates,
        space=space,
        extra=_other_columns(columns, chosen, [entries for _, entries in rows]),
        rows=tuple(f"line {line}" for line, _ in rows),
        format="napari points" if chosen == NAPARI_COLUMNS else f"table ({' '.join(chosen)})",
        notes=tuple(notes),
    )


def write_delimited(path: Path, frame: pd.DataFrame, *, missing: str = "n/a") -> None:
    """Write a table: tabs in a ``.tsv``, commas in any other; floats read back exactly."""
    write_table(path, frame, mark=_mark(path), missing=missing)


def _mark(path: Path) -> str:
    return "\t" if path.name.lower().endswith(".tsv") else ","


def napari_table(coordinates: np.ndarray, others: pd.DataFrame, axes: str) -> pd.DataFrame:
    """Return the table that napari reads: index, axis-0 to axis-2, and the features of the points."""
    clash = [name for name in map(str, others.columns) if name in ("index", "shape-type") or name.startswith("axis-")]
    if clash:
        raise ValueError(f"frame has the column {clash[0]}, which means something else to napari; rename it")
    ordered = coordinates[:, [INDEX_COLUMNS.index(axis) for axis in axes]]
    table = pd.DataFrame(ordered, columns=list(NAPARI_COLUMNS), index=others.index)
    table.insert(0, "index", range(len(table)))
    return pd.concat([table, others], axis=1)


def _checked_columns(entries: list[str], mark: str, wanted: str, path: Path) -> list[str]:
    """Return the names of the header line, those of coordinates in lower case."""
    if len(entries) > MAX_COLUMNS:
        raise data_error(path, f"has {len(entries)} columns", f"at most {MAX_COLUMNS} are wanted")
    names = [one_line(name) for name in entries]
    if names[0].startswith("# Markups fiducial"):
        raise data_error(path, "is a fiducial list of 3D Slicer", "a name that ends in .fcsv is wanted")
    if names[0].startswith(("{", "[")):
        raise data_error(path, "is JSON", "a name that ends in .mrk.json is wanted, or a table")
    others = [other for other in _MARKS if other != mark and other in entries[0].strip()]
    if len(names) == 1 and others:
        raise data_error(path, f"is separated by {_MARKS[others[0]]}", wanted)
    if all(finite_number(name) is not None for name in names):
        raise data_error(path, f"has no header line (its first line is {shortened(names)})", wanted)
    known = {name for triple in _TRIPLES for name in triple}
    names = [name.lower() if name.lower() in known else name for name in names]
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise data_error(path, f"names the column {twice[0]!r:.40} twice", wanted)
    if {"shape-type", "vertex-index"} <= set(names):
        raise data_error(path, "is a shapes layer of napari", "a points layer is wanted")
    return names


def _coordinate_columns(
    columns: Sequence[str], units: Units | None, wanted: str, path: Path
) -> tuple[tuple[str, str, str], Space]:
    """Return the columns that hold the coordinates, and what these are."""
    complete = [triple for triple in _TRIPLES if set(triple) <= set(columns)]
    if not complete:
        raise _no_coordinates(columns, wanted, path)
    if NAPARI_COLUMNS in complete and len([name for name in columns if name.startswith("axis-")]) != 3:
        raise data_error(path, "holds points of more than three axes", "points of a 3-D image are wanted")
    millimetres = [triple for triple in complete if triple in _MILLIMETRES]
    if len(millimetres) > 1 and units in (None, "mm"):
        given = " and ".join(" ".join(triple) for triple in millimetres)
        raise data_error(path, f"gives the coordinates twice, as {given}", "one of the two is wanted")
    if NAPARI_COLUMNS in complete and (units in ("voxel", "ras-voxel") or not millimetres):
        spaces: dict[Units | None, Space] = {None: "voxel", "voxel": "file-voxel", "mm": "file-mm"}
        return NAPARI_COLUMNS, spaces.get(units, "ras-voxel")
    if units in (None, "mm") and millimetres:
        return millimetres[0], _MILLIMETRES[millimetres[0]]
    if units == "mm":
        raise data_error(path, "holds i j k, which are voxel indices", "x y z are wanted, or units voxel")
    voxel: Space = "voxel" if units is None else "file-voxel" if units == "voxel" else "ras-voxel"
    if INDEX_COLUMNS in complete:
        return INDEX_COLUMNS, voxel
    if POINT_COLUMNS in complete:
        return POINT_COLUMNS, voxel
    raise data_error(path, f"holds {' '.join(millimetres[0])}, which are mm", "i j k are wanted, or units mm")


def _no_coordinates(columns: Sequence[str], wanted: str, path: Path) -> Exception:
    there = [name for name in columns if name]
    nearest = max(_TRIPLES, key=lambda triple: len(set(triple) & set(columns)))
    lacking = [name for name in nearest if name not in columns]
    if len(lacking) == 3:
        return data_error(path, f"has no coordinates (its columns: {shortened(there)})", wanted)
    return data_error(path, f"lacks the column {lacking[0]} (it has: {shortened(there)})", wanted)


def _number(text: str, name: str, line: int, path: Path) -> float:
    number = finite_number(text)
    if number is None:
        wrong = f"line {line} has {text.strip()!r:.60} as {name}"
        raise data_error(path, wrong, "a finite number (decimal point) is wanted")
    return number


def _look_like_indices(coordinates: np.ndarray) -> bool:
    return len(coordinates) > 0 and bool((coordinates >= 0).all() and (coordinates == coordinates.round()).all())


def _other_columns(columns: Sequence[str], chosen: tuple[str, str, str], table: list[list[str]]) -> pd.DataFrame:
    """Return what is no coordinate."""
    left_out = {*chosen, *POINT_COLUMNS, ""}
    slicer = chosen in _SLICER
    if slicer:
        left_out.update(_SLICER_FLAGS)
    if chosen == NAPARI_COLUMNS and columns[0] == "index":
        left_out.add("index")
    kept = [(place, name) for place, name in enumerate(columns) if name not in left_out]
    records = [{name: one_line(entries[place]) for place, name in kept} for entries in table]
    if slicer:
        described = [unpack(record.pop("description", "")) for record in records]
        records = [{**record, **found} for record, found in zip(records, described, strict=True)]
        return columns_of(few_keys(records), texts=("label", "description"))
    return columns_of(records, names=[name for _, name in kept])
