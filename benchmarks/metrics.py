"""Scoring a large cohort on one core.

`python -m benchmarks metrics`
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.timing import Row
from lesionkit.metrics import CasePoints, froc, score_points

N_CASES, N_LESIONS, TARGET_S = 1000, 50, 5.0


def rows(*, quick: bool = False) -> list[Row]:
    """Score 1000 cases of 50 lesions (and 60 candidates): matching, rates by size and patient; then every threshold."""
    cases = _cohort(np.random.default_rng(0))
    score_points(cases[:10], 0.5)  # imports
    start = time.process_time()
    score_points(cases, 0.5)
    scored = time.process_time() - start
    start = time.process_time()
    froc(cases)
    curve = time.process_time() - start
    what = f"{N_CASES} cases of {N_LESIONS} lesions"
    return [
        Row(f"scoring: {what}", f"< {TARGET_S:g} s", f"{scored:.2f} s of CPU", scored < TARGET_S),
        Row(f"FROC, all thresholds: {what}", "", f"{curve:.2f} s of CPU", None),
    ]


def _cohort(rng: np.random.Generator) -> list[CasePoints]:
    """Lesions in a box of 150 mm; 45 of 50 are found within about 3 mm, and 15 candidates are false."""
    made = []
    for _ in range(N_CASES):
        true = rng.uniform(0, 150, (N_LESIONS, 3))
        found = true[: N_LESIONS - 5] + rng.normal(0, 1.5, (N_LESIONS - 5, 3))
        predicted = np.concatenate([found, rng.uniform(0, 150, (15, 3))])
        sizes = rng.integers(3, 100, N_LESIONS)
        made.append(CasePoints(predicted=predicted, score=rng.random(len(predicted)), true=true, sizes=sizes))
    return made
