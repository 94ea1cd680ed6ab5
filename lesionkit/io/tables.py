"""Tables as UTF-8 text with tabs: lesion points in mm (RAS+), and what cohorts are made of."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionkit.io.files import atomic_path, check_is_file, data_error, reading

POINT_COLUMNS = ("x", "y", "z")
"""Columns of a table of points: world coordinates in mm (RAS+)."""

_MEASURES = ("size_vox", "probability")
"""Columns of a table of points that are numbers where they are there."""

MAX_COLUMNS = 1000
"""Most columns of a table: what has more is no list of points."""

_MISSING = ("", "n/a")
_MAX_TEXT_BYTES = 2**26
_WANTED = "a UTF-8 table with tabs between the columns is wanted"


def read_points(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of points.

    Parameters
    ----------
    path : path
        UTF-8 text with a header line and tabs between the columns; ``x``, ``y`` and ``z`` are mm (RAS+).

    Returns
    -------
    DataFrame
        One row a point, in the file's order (none is fine); ``x y z`` are finite float64, other columns numbers where
        all their entries are, with NaN for an empty entry and ``n/a``. ``size_vox`` and ``probability`` must be.

    Raises
    ------
    DataError
        If the file is missing, empty, not UTF-8 or not separated by tabs; lacks a column; or a line has too few or too
        many entries, a coordinate that is no finite number, or a size or probability that is none of 0 or more.
    """
    path = Path(path)
    columns, rows = read_table(path, POINT_COLUMNS)
    frame = {}
    for place, name in enumerate(columns):
        texts = [row[place] for _, row in rows]
        if name in POINT_COLUMNS:
            frame[name] = pd.Series([_coordinate(row[place], name, line, path) for line, row in rows], dtype=np.float64)
        else:
            for line, row in rows if name in _MEASURES else ():
                _check_measure(row[place], name, line, path)
            frame[name] = typed(texts)
    return pd.DataFrame(frame)


def write_points(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write a table of points as TSV, atomically.

    Parameters
    ----------
    path : path
        The new file; missing folders are made.
    frame : DataFrame
        Columns ``x y z`` in mm (RAS+) and any others; the index is not written. Floats are written so that they read
        back exactly.

    Raises
    ------
    ValueError
        If a coordinate column is missing or holds anything but finite numbers, or a text has a tab or a line break.
    DataError
        If the file cannot be written.
    """
    if any(list(frame.columns).count(name) != 1 for name in POINT_COLUMNS):
        raise ValueError(f"frame has the columns {list(frame.columns)}; x, y and z (mm), each once, are wanted")
    for name in POINT_COLUMNS:
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isfinite(values).all():
            first = frame[name].iloc[int(np.argmin(np.isfinite(values)))]
            raise ValueError(f"frame holds {first!r} in column {name}; finite coordinates (mm) are wanted")
    write_table(Path(path), frame)


def read_text(path: Path, wanted: str) -> str:
    """Read a small text file, UTF-8 with or without a byte order mark."""
    check_is_file(path, wanted)
    with reading(path):
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise data_error(path, "is larger than 64 MiB", wanted)
        content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4096]:
        raise data_error(path, "is UTF-16 or binary, not UTF-8", f"{wanted}: save it again as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise data_error(path, f"line {line} is not UTF-8", f"{wanted}: save it again as UTF-8") from error


def read_table(path: Path, required: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the column names, and each row with its line number in the file; blank lines are passed over."""
    wanted = f"{_WANTED}, with the columns {' '.join(required)}"
    reader = csv.reader(io.StringIO(read_text(path, wanted), newline=""), delimiter="\t", strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, row) for row in reader if any(entry.strip() for entry in row))
    except csv.Error as error:
        raise data_error(path, f"line {reader.line_num} cannot be read ({error})", wanted) from error
    if not rows:
        raise data_error(path, "is empty", wanted)
    columns = [name.strip() for name in rows.pop(0)[1]]
    if len(columns) > MAX_COLUMNS:
        raise data_error(path, f"has {len(columns)} columns", f"at most {MAX_COLUMNS} are wanted")
    if len(columns) == 1 and (marks := [mark for mark in ",; " if mark in columns[0]]):
        names = {",": "commas", ";": "semicolons", " ": "spaces"}
        raise data_error(path, f"is separated by {names[marks[0]]}", wanted)
    if all(finite_number(name) is not None for name in columns):
        raise data_error(path, f"has no header line (its first line is {', '.join(columns[:8])})", wanted)
    lacking = [name for name in required if name not in columns]
    if lacking:
        raise data_error(path, f"lacks the column {lacking[0]} (it has: {', '.join(columns)})", wanted)
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise data_error(path, f"names the column {twice[0]!r:.40} twice", wanted)
    for line, row in rows:
        if len(row) != len(columns):
            wrong = f"line {line} has {len(row)} entries"
            raise data_error(path, wrong, f"{len(columns)} are wanted, as in the header line")
    return columns, rows


def write_table(path: Path, frame: pd.DataFrame, *, mark: str = "\t", missing: str = "n/a") -> None:
    """Write a table, atomically; as BIDS wants it: tabs between the columns, and ``n/a`` for what is missing."""
    for name in frame.columns:
        texts = [str(name), *(entry for entry in frame[name] if isinstance(entry, str))]
        if any(mark in text for text in texts for mark in "\t\r\n\0"):
            raise ValueError(f"frame holds a tab or a line break in column {name!r}; text of one line is wanted")
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, sep=mark, index=False, na_rep=missing, lineterminator="\n", encoding="utf-8")


def finite_number(value: object) -> float | None:
    """Return a JSON number or a text as a finite float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):  # Python would take 1_000 and other digits
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _coordinate(text: str, name: str, line: int, path: Path) -> float:
    value = finite_number(text)
    if value is None:
        wrong = f"line {line} has {text.strip()!r} as {name}"
        raise data_error(path, wrong, "a finite number (mm, decimal point) is wanted")
    return value


def _check_measure(text: str, name: str, line: int, path: Path) -> None:
    """Raise unless an entry is a number of 0 or more, or missing."""
    value = 0.0 if text.strip() in _MISSING else finite_number(text)
    if value is None or value < 0:
        wrong = f"line {line} has {text.strip()!r:.60} as {name}"
        raise data_error(path, wrong, "a number of 0 or more, or n/a, is wanted")


def typed(texts: list[str]) -> pd.Series[Any]:
    """Return a column as numbers where all its entries are, else as text."""
    entries = [None if text.strip() in _MISSING else text for text in texts]
    if all(entry is None for entry in entries):
        return pd.Series(np.full(len(entries), np.nan))
    try:
        return pd.to_numeric(pd.Series(entries, dtype=object))
    except (ValueError, TypeError):
        return pd.Series(entries, dtype="str")
