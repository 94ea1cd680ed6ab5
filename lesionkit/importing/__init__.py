"""A researcher's folder of images and clicks -> a checked BIDS cohort."""

from __future__ import annotations

from lesionkit.importing.cohort import ImportReport, NothingImported, import_cohort, rows_table
from lesionkit.importing.config import ImportConfig
from lesionkit.importing.pairing import ImportRow

__all__ = ["ImportConfig", "ImportReport", "ImportRow", "NothingImported", "import_cohort", "rows_table"]
