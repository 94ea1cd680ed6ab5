"""Statistics of a simulated cohort beside those of real lesions: `python scripts/compare_cohorts.py COHORT POINTS.csv`.

POINTS.csv has a row a lesion: `kind`, `patient`, `n_vox`, `nn_mm`; its rows of kind
`cross` with 3 voxels and more are taken. Quantiles that are more than 20 % off are marked.
"""

from __future__ import annotations

import sys

import pandas as pd

from lesionkit.io import read_cohort
from lesionkit.simulate.statistics import lesion_table, quantile_table


def main() -> None:
    """Print one row a quantile: real, simulated, ratio."""
    cohort, points = sys.argv[1:]
    real = pd.read_csv(points)
    real = real[(real["kind"] == "cross") & (real["n_vox"] >= 3)]
    wanted = quantile_table(real, subject="patient", size="n_vox")
    found = quantile_table(lesion_table(read_cohort(cohort)))
    print(f"{'quantile':>24} {'real':>8} {'simulated':>10} {'ratio':>6}")
    for column in wanted:
        for quantile, value in wanted[column].items():
            ratio = found.loc[quantile, column] / value
            off = "" if 0.8 <= ratio <= 1.2 else "  off by more than 20 %"
            name = f"{column} at {quantile:.0%}"
            print(f"{name:>24} {value:8.1f} {found.loc[quantile, column]:10.1f} {ratio:6.2f}{off}")


if __name__ == "__main__":
    main()
