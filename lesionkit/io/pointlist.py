"""What the readers of point files hand on: coordinates as they stand in the file, and where and how to say so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from lesionkit.io.files import data_error
from lesionkit.io.tables import typed

MAX_POINTS = 100_000
"""Most points that a file may hold: no annotation has more, and a file that claims more is not one."""

Space = Literal["ras", "lps", "voxel", "file-voxel", "ras-voxel", "file-mm"]
"""What coordinates mean: mm (RAS+ or LPS+); voxel indices, along axes that are left open, along those of the file or
along those of the volume in memory (RAS+); or voxel indices of the file times its spacing."""

_BREAKS = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")


@dataclass(frozen=True, eq=False, kw_only=True)
class PointList:
    """The content of a point file, not yet in mm."""

    coordinates: Float[np.ndarray, "n 3"]
    """As in the file."""
    space: Space
    """What they mean."""
    extra: pd.DataFrame
    """Other columns, one row a point."""
    rows: tuple[str, ...]
    """Where each point stands in the file, such as ``line 4``."""
    format: str
    """Name of the format, for people."""
    notes: tuple[str, ...] = field(default=())
    """What was left out or assumed."""


def one_line(value: object) -> str:
    """Return a text that every format can hold: one line, valid Unicode."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return _BREAKS.sub(" ", text).strip()


def shortened(names: Sequence[str], most: int = 8) -> str:
    """List names for a message of one line."""
    shown = ", ".join(name if len(name) <= 30 else f"{name[:27]}..." for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def check_number_of_points(n: int, path: Path) -> None:
    """Raise if there are more than any annotation has."""
    if n > MAX_POINTS:
        raise data_error(path, f"holds more than {MAX_POINTS} points", "one point a lesion is wanted")


def columns_of(
    records: Sequence[dict[str, str]], *, names: Sequence[str] | None = None, texts: Sequence[str] = ()
) -> pd.DataFrame:
    """Return texts by point and name as a table; a column is numbers where all its entries are, but for `texts`."""
    if names is None:
        names = list(dict.fromkeys(name for record in records for name in record))
    columns: dict[str, pd.Series[Any]] = {}
    for name in names:
        entries = [record.get(name, "") for record in records]
        columns[name] = (
            pd.Series([entry or None for entry in entries], dtype="str") if name in texts else typed(entries)
        )
    return pd.DataFrame(columns, index=range(len(records)))
