"""Files in, files out: NIfTI images, tables of points (TSV, mm), points of other programs and BIDS cohorts.

Every complaint about a file is a `DataError` of one line: which file, what is wrong, what is wanted. Every write is
atomic. Here and in `lesionkit.checkpoints` are the only places that open files.
"""

from __future__ import annotations

from lesionkit.io.cohorts import (
    SPLITS,
    Case,
    Cohort,
    case_layout,
    read_cohort,
    write_cohort_description,
    write_participants,
)
from lesionkit.io.files import DataError, atomic_folder, atomic_path, check_writable
from lesionkit.io.images import MAX_VOXELS, check_same_grid, read_volume, write_volume
from lesionkit.io.pointlist import one_line
from lesionkit.io.points import (
    POINT_ENDINGS,
    ImportedPoints,
    check_inside,
    convert_points,
    export_points,
    import_points,
)
from lesionkit.io.tables import POINT_COLUMNS, read_points, read_table, write_points, write_table

__all__ = [
    "MAX_VOXELS",
    "POINT_COLUMNS",
    "POINT_ENDINGS",
    "SPLITS",
    "Case",
    "Cohort",
    "DataError",
    "ImportedPoints",
    "atomic_folder",
    "atomic_path",
    "case_layout",
    "check_inside",
    "check_same_grid",
    "check_writable",
    "convert_points",
    "export_points",
    "import_points",
    "one_line",
    "read_cohort",
    "read_points",
    "read_table",
    "read_volume",
    "write_cohort_description",
    "write_participants",
    "write_points",
    "write_table",
    "write_volume",
]
