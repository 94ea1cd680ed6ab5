"""What the lesions of a cohort are like: sizes, distances to the nearest neighbour, lesions a case.

In: a cohort (only its tables of points are read), or a table of lesions from elsewhere. Out: pandas tables, so that a
simulated cohort can stand beside a real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from lesionkit.io import Cohort, read_points

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles that are compared."""


def case_tables(cohort: Cohort) -> Iterator[pd.DataFrame]:
    """Read the lesions of one case after another: `subject`, `split`, `x y z` (mm, RAS+), and what else its table has.

    Cases without a table of points are passed over; no image and no mask is opened.
    """
    for case in cohort:
        if case.points is not None:
            yield read_points(case.points).assign(subject=case.subject, split=case.split)


def lesion_table(cohort: Cohort) -> pd.DataFrame:
    """Return all lesions of a cohort, one row each, with `nn_mm`, the distance to the nearest one of the same case.

    Returns
    -------
    pandas.DataFrame
        Columns `subject split x y z nn_mm` and those of the tables of points, such as `size_vox`; `nn_mm` is NaN for a
        lesion that is alone.
    """
    parts = [frame.assign(nn_mm=nearest_mm(frame[["x", "y", "z"]].to_numpy(float))) for frame in case_tables(cohort)]
    columns = ["subject", "split", "x", "y", "z", "nn_mm"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def nearest_mm(points: np.ndarray) -> np.ndarray:
    """Return for each point `(n, 3)`, mm, the distance to its nearest neighbour; NaN for one that is alone."""
    if len(points) < 2:
        return np.full(len(points), np.nan)
    distances, _ = cKDTree(points).query(points, k=2)
    return np.asarray(distances).reshape(-1, 2)[:, 1]


def quantile_table(
    lesions: pd.DataFrame, *, subject: str = "subject", size: str = "size_vox", quantiles: Sequence[float] = QUANTILES
) -> pd.DataFrame:
    """Return quantiles of the sizes, the distances to the nearest neighbour and the lesions a case.

    Parameters
    ----------
    lesions : DataFrame
        One row a lesion, with `nn_mm` and the columns named.
    subject, size : str
        Columns of the patient and of the size in voxels.
    quantiles : sequence of float
        Between 0 and 1.

    Returns
    -------
    pandas.DataFrame
        Rows: quantiles. Columns: `size_vox`, `nn_mm`, `lesions`.
    """
    return pd.DataFrame(
        {
            "size_vox": lesions[size].quantile(list(quantiles)),
            "nn_mm": lesions["nn_mm"].quantile(list(quantiles)),
            "lesions": lesions.groupby(subject).size().quantile(list(quantiles)),
        }
    )
