"""Operating points: chosen on validation cases, best there, and 1/2 where there is nothing to choose from."""

from __future__ import annotations

import numpy as np
import pytest

from lesionkit.metrics import CasePoints
from lesionkit.training.decoding import TAUS, alpha_threshold, best_tau


def patient(*score: float, true: int = 1, split: str = "validation") -> CasePoints:
    """Candidates 100 mm apart, a lesion at each of the first `true`."""
    points = 100.0 * np.arange(max(len(score), true))[:, None] * [1.0, 0.0, 0.0]
    return CasePoints(
        predicted=points[: len(score)], score=np.array(score), true=points[:true], sizes=np.ones(true), split=split
    )


def test_alpha_is_where_f1_is_best() -> None:
    assert alpha_threshold([patient(0.9, 0.7, 0.1, true=2), patient(0.6)], 6.0) == pytest.approx(0.35)


@pytest.mark.parametrize("cases", [[], [patient()], [patient(0.9, true=0)]])
def test_alpha_is_one_half_where_nothing_is_found(cases: list[CasePoints]) -> None:
    assert alpha_threshold(cases, 6.0) == 0.5


def test_tau_is_where_f1_is_best_and_nearest_to_one_half() -> None:
    groups = [[patient(0.9) if tau in (0.3, 0.4, 0.7) else patient()] for tau in TAUS]
    assert best_tau(groups, 6.0).threshold == 0.4
    assert best_tau([[patient()] for _ in TAUS], 6.0).threshold == 0.5


@pytest.mark.parametrize("split", ["train", "test", "Test"])
def test_operating_points_are_chosen_on_validation_only(split: str) -> None:
    cases = [patient(0.9), patient(split=split)]
    with pytest.raises(ValueError, match=f"{split} split"):
        alpha_threshold(cases[1:], 6.0)  # nothing found: nothing to choose, and yet the wrong cases
    with pytest.raises(ValueError, match=f"{split} split"):
        best_tau([cases for _ in TAUS], 6.0)
