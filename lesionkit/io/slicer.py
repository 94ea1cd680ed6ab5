"""Point lists of 3D Slicer: markups (``.mrk.json``) and the legacy ``.fcsv``.

In both, `label` is shown beside the glyph and all other columns go into the description of a point, as
``alpha=0.93; size_vox=12``; a description of that form is taken apart again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionkit.io.files import atomic_path, check_is_file, data_error, reading
from lesionkit.io.pointlist import (
    PointList,
    Space,
    check_number_of_points,
    columns_of,
    one_line,
    shortened,
)
from lesionkit.io.tables import POINT_COLUMNS, finite_number, read_text

# The address that 3D Slicer itself writes, and checks when it reads.
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/"
    "Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)
_MAX_JSON_BYTES = 2**24
_WANTED_JSON = "a point list of 3D Slicer (.mrk.json) is wanted"
_WANTED_FCSV = "a fiducial list of 3D Slicer (.fcsv) is wanted"
_SPACES: dict[str, Space] = {
    "RAS": "ras",
    "0": "ras",
    "LPS": "lps",
    "1": "lps",
    "IJK": "file-voxel",
    "2": "file-voxel",
}
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_FCSV_STATUS = 14  # place of the position status that 3D Slicer 5 adds without naming it; 2 is a position, 3 is none
_FCSV_LINE_BYTES = 1000  # 3D Slicer reads lines into a fixed buffer
_MAX_KEYS = 100
_CODES = {"%": "%25", ";": "%3B", "=": "%3D"}


def read_markups(path: Path) -> PointList:
    """Read the point lists of a markups file; points that were never placed are left out."""
    lists, notes = _point_lists(_parsed_json(path), path)
    spaces = {_markup_space(markup, path) for markup in lists}
    if len(spaces) > 1:
        raise data_error(path, "holds point lists in different coordinate systems", "one system in a file is wanted")
    positions: list[list[float]] = []
    records: list[dict[str, str]] = []
    rows: list[str] = []
    unset: list[str] = []
    for place, markup in enumerate(lists):
        name = one_line(markup.get("name") or place + 1)
        for number, point in enumerate(_control_points(markup, path), start=1):
            label = one_line(point.get("label") or "")
            row = f"control point {number}" + (f" ({label!r})" if label else "")
            row += f" of list {name}" if len(lists) > 1 else ""
            if _is_unset(point):
                unset.append(row)
                continue
            positions.append(_position(point, row, path))
            rows.append(row)
            record = {"label": label, **unpack(one_line(point.get("description") or ""))}
            records.append({**record, "list": name} if len(lists) > 1 else record)
            check_number_of_points(len(positions), path)
    if unset:
        notes.append(_left_out(unset))
    return PointList(
        coordinates=np.array(positions, dtype=np.float64).reshape(-1, 3),
        space=spaces.pop(),
        extra=columns_of(few_keys(records), texts=("label", "description")),
        rows=tuple(rows),
        format="3D Slicer markups",
        notes=tuple(notes),
    )


def write_markups(path: Path, frame: pd.DataFrame) -> None:
    """Write points as one point list of 3D Slicer, in LPS as it does itself."""
    points = []
    for number, (position, label, description) in enumerate(_written(frame), start=1):
        x, y, z = position
        points.append(
            {
                "id": str(number),
                "label": label,
                "description": description,
                "associatedNodeID": "",
                "position": [-x, -y, z],
                "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
        )
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [],
    }
    text = json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_fcsv(path: Path) -> PointList:
    """Read a legacy fiducial list; points that were never placed are left out."""
    text = read_text(path, _WANTED_FCSV)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = _fcsv_header(lines)
    if "coordinatesystem" not in header:
        mend = "a line '# CoordinateSystem = LPS' (or RAS) is wanted at its top"
        raise data_error(path, "does not say its coordinate system" if text.strip() else "is empty", mend)
    space = _SPACES.get(header["coordinatesystem"].upper())
    if space is None:
        raise data_error(path, f"has the coordinate system {header['coordinatesystem']!r:.60}", "LPS or RAS is wanted")
    columns = [name.strip().lower() for name in header.get("columns", _FCSV_COLUMNS).split(",")]
    lacking = [name for name in POINT_COLUMNS if name not in columns]
    if lacking:
        raise data_error(path, f"lacks {lacking[0]} in its line '# columns ='", f"{_FCSV_COLUMNS} is wanted")
    place = {name: number for number, name in enumerate(columns)}
    positions: list[list[float]] = []
    records: list[dict[str, str]] = []
    rows: list[str] = []
    unset: list[str] = []
    width = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        entries = _fcsv_entries(line, number, path)
        at_the_end = number == len(lines)  # no line break: the end may be missing
        least = max(place[name] for name in POINT_COLUMNS) + 1
        if len(entries) < least or (at_the_end and len(entries) < width):
            wrong = f"line {number} has {len(entries)} entries"
            raise data_error(path, wrong, f"{max(width, least)} or more are wanted: the file may be truncated")
        width = max(width, len(entries))
        row = f"line {number}"
        if len(columns) == _FCSV_STATUS and entries[_FCSV_STATUS : _FCSV_STATUS + 1] not in ([], [""], ["2"]):
            unset.append(row)
            continue
        positions.append([_fcsv_number(entries[place[name]], name, row, path) for name in POINT_COLUMNS])
        rows.append(row)
        label, description = (_entry(entries, place, names) for names in (("label", "name"), ("desc", "description")))
        records.append({"label": label, **unpack(description)})
        check_number_of_points(len(positions), path)
    return PointList(
        coordinates=np.array(positions, dtype=np.float64).reshape(-1, 3),
        space=space,
        extra=columns_of(few_keys(records), texts=("label", "description")),
        rows=tuple(rows),
        format="3D Slicer fiducial list (fcsv)",
        notes=(_left_out(unset),) if unset else (),
    )


def write_fcsv(path: Path, frame: pd.DataFrame) -> None:
    """Write points as a legacy fiducial list.

    Raises
    ------
    ValueError
        If the columns of a point make a line that 3D Slicer would cut.

    Notes
    -----
    RAS, given as the number 0: the one form that all versions of 3D Slicer and most other readers take alike. Those
    before 4.11 read the names LPS and RAS as 0.
    """
    lines = ["# Markups fiducial file version = 4.11", "# CoordinateSystem = 0", f"# columns = {_FCSV_COLUMNS}"]
    for number, (position, label, description) in enumerate(_written(frame), start=1):
        line = io.StringIO(newline="")
        fields = [number, *map(repr, position), 0, 0, 0, 1, 1, 1, 0, label, description, ""]
        csv.writer(line, lineterminator="").writerow(fields)
        lines.append(line.getvalue())
        if len(lines[-1].encode()) > _FCSV_LINE_BYTES:
            raise ValueError(
                f"frame row {number} makes a line of more than {_FCSV_LINE_BYTES} bytes, which 3D Slicer cuts; "
                "fewer columns, or the format .mrk.json, are wanted"
            )
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")


def pack(values: dict[str, Any]) -> str:
    """Return the columns of a point as the text of its description."""
    present = {name: _text(value) for name, value in values.items() if not _is_missing(value)}
    if set(present) == {"description"} and set(unpack(present["description"])) <= {"description"}:
        return present["description"]
    return "; ".join(f"{_encoded(name)}={_encoded(text)}" for name, text in present.items())


def unpack(description: str) -> dict[str, str]:
    """Return the columns that a description holds; a text of another form is a column ``description``."""
    if not description:
        return {}
    pieces = [piece.partition("=") for piece in description.split("; ")]
    names = [_decoded(name) for name, _, _ in pieces]
    is_ours = all(equal and name and not set(";=") & set(name + text) for name, equal, text in pieces)
    if not is_ours or len(set(names)) < len(names) or set(names) & {*POINT_COLUMNS, "label", "list"}:
        return {"description": description}
    return {name: _decoded(text) for name, (_, _, text) in zip(names, pieces, strict=True)}


def _parsed_json(path: Path) -> Any:
    check_is_file(path, _WANTED_JSON)
    with reading(path):
        size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        raise data_error(path, f"is larger than {_MAX_JSON_BYTES // 2**20} MiB", _WANTED_JSON)
    text = read_text(path, _WANTED_JSON)
    if not text.strip():
        raise data_error(path, "is empty", _WANTED_JSON)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        wrong = f"is not JSON, or is truncated (line {error.lineno}: {error.msg})"
    except RecursionError:
        wrong = "is JSON nested too deeply"
    except ValueError:
        wrong = "holds a number of too many digits"
    raise data_error(path, wrong, _WANTED_JSON)


def _point_lists(content: Any, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the point lists of a file, and a note on the lines, curves and planes that are left out."""
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list):
        there = f" (it has: {shortened(list(content))})" if isinstance(content, dict) and content else ""
        raise data_error(path, f"is JSON of another kind, without markups{there}", _WANTED_JSON)
    kinds = [str(markup.get("type")) if isinstance(markup, dict) else "nothing" for markup in markups]
    lists = [markup for markup, kind in zip(markups, kinds, strict=True) if kind in ("Fiducial", "PointList")]
    others = [one_line(kind) for kind in kinds if kind not in ("Fiducial", "PointList")]
    if not lists:
        holds = f"only {shortened(others)}" if others else "no markup"
        raise data_error(path, f"holds {holds}", f"{_WANTED_JSON} (type Fiducial)")
    return lists, [f"left out what is no point list: {shortened(others)}"] if others else []


def _markup_space(markup: dict[str, Any], path: Path) -> Space:
    system = markup.get("coordinateSystem", "LPS")  # the default of the format
    number = finite_number(system) if not isinstance(system, str) else None
    space = _SPACES.get(f"{number:g}" if number is not None else str(system).strip().upper())
    if space is None:
        raise data_error(path, f"has the coordinate system {system!r:.60}", "LPS or RAS is wanted")
    units = markup.get("coordinateUnits", "mm")
    if (units[0] if isinstance(units, list) and units else units) != "mm":
        raise data_error(path, f"gives its coordinates in {units!r:.60}", "mm are wanted")
    return space


def _control_points(markup: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    points = markup.get("controlPoints", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise data_error(path, "has controlPoints that are no list of objects", _WANTED_JSON)
    return points


def _is_unset(point: dict[str, Any]) -> bool:
    """Whether a point was announced but never placed."""
    return point.get("positionStatus", "defined") != "defined" or point.get("position") in (None, "", [])


def _position(point: dict[str, Any], row: str, path: Path) -> list[float]:
    entries = point["position"]
    numbers = (
        [finite_number(entry) for entry in entries if not isinstance(entry, str)] if isinstance(entries, list) else []
    )
    found = [number for number in numbers if number is not None]
    if len(found) != 3 or len(entries) != 3:
        raise data_error(path, f"{row} has the position {entries!r:.60}", "three finite numbers (mm) are wanted")
    return found


def _fcsv_header(lines: list[str]) -> dict[str, str]:
    """Return the settings in the comment lines, by lower-case name."""
    settings = (line[1:].partition("=") for line in lines if line.startswith("#"))
    return {name.strip().lower(): value.strip(" \t,") for name, equal, value in settings if equal}


def _fcsv_entries(line: str, number: int, path: Path) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise data_error(path, f"line {number} cannot be read ({error})", _WANTED_FCSV) from error


def _fcsv_number(text: str, name: str, row: str, path: Path) -> float:
    number = finite_number(text)
    if number is None:
        raise data_error(path, f"{row} has {text.strip()!r:.60} as {name}", "a finite number (decimal point) is wanted")
    return number


def _entry(entries: list[str], place: dict[str, int], names: tuple[str, str]) -> str:
    for name in names:
        if name in place and place[name] < len(entries):
            return one_line(entries[place[name]])
    return ""


def _left_out(unset: list[str]) -> str:
    return f"left out {len(unset)} without a position: {shortened(unset)}"


def few_keys(records: list[dict[str, str]]) -> list[dict[str, str]]:
    """Take columns with nothing in them away; give up on descriptions that would make hundreds of columns."""
    names = {name for record in records for name in record}
    if len(names) > _MAX_KEYS:
        given = ("label", "list")
        records = [
            {
                **{name: record[name] for name in given if name in record},
                "description": pack({name: text for name, text in record.items() if name not in given}),
            }
            for record in records
        ]
        names = {"label", "list", "description"}
    used = {name for record in records for name, text in record.items() if text} | (names - {"label", "description"})
    return [{name: text for name, text in record.items() if name in used} for record in records]


def _written(frame: pd.DataFrame) -> list[tuple[tuple[float, float, float], str, str]]:
    """Return position (mm, RAS+), label and description of each point."""
    positions = frame[list(POINT_COLUMNS)].to_numpy(dtype=np.float64)
    others = frame.drop(columns=list(POINT_COLUMNS))
    others.columns = others.columns.map(str)
    points = []
    for number, ((x, y, z), values) in enumerate(
        zip(positions.tolist(), others.to_dict(orient="records"), strict=True), start=1
    ):
        columns = {str(name): value for name, value in values.items()}
        label = columns.pop("label", None)
        points.append(((x, y, z), f"L-{number}" if _is_missing(label) else _text(label), pack(columns)))
    return points


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value == "" or (isinstance(value, float) and bool(np.isnan(value)))


def _text(value: object) -> str:
    return repr(float(value)) if isinstance(value, float) else one_line(value)


def _encoded(text: str) -> str:
    return re.sub("[%;=]", lambda mark: _CODES[mark[0]], text)


def _decoded(text: str) -> str:
    for mark, code in reversed(_CODES.items()):
        text = text.replace(code, mark)
    return text
