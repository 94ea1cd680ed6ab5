"""Risk control: a cohort counted by hand, and the promise kept over many splits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lesionkit.conformal import check_risk, control_risk
from lesionkit.metrics import CasePoints, score_points


def patient(hits: Sequence[float], false: Sequence[float], missed: int = 0, split: str = "validation") -> CasePoints:
    """Make a patient with these scores of hits and false positives, and lesions that nothing is near to."""
    n = len(hits) + len(false)
    points = np.stack([100.0 * np.arange(n + missed), np.zeros(n + missed), np.zeros(n + missed)], axis=1)
    return CasePoints(
        predicted=points[:n],
        score=np.array([*hits, *false], dtype=float),
        true=np.concatenate([points[: len(hits)], points[n:]]),
        sizes=np.ones(len(hits) + missed),
        split=split,
    )


def random_patients(n: int, rng: np.random.Generator, missed: float = 0.0) -> list[CasePoints]:
    """Draw patients of very different difficulty."""
    made = []
    for _ in range(n):
        skill = rng.beta(3, 1.5)
        made.append(
            patient(rng.beta(1 + 4 * skill, 1.5, rng.poisson(3)), rng.beta(1, 4, rng.poisson(4)), rng.poisson(missed))
        )
    return made


def test_thresholds_counted_by_hand() -> None:
    cases = [patient([0.9, 0.4], [0.5]), patient([0.7], [0.8, 0.2]), patient([], [0.3]), patient([0.6], [])]
    # missed shares at 0.4: all 0; at 0.6: 1/2, 0, 0, 0; bound (n mean + 1) / (n + 1)
    found = control_risk(cases, 0.31)
    assert found.threshold == 0.6
    assert found.empirical == pytest.approx(0.125)
    assert found.bound == pytest.approx(0.3)
    assert control_risk(cases, 0.25).threshold == 0.4
    assert control_risk(cases, 0.19).threshold == -math.inf  # 1 / 5 is the least that four patients can promise
    # false positives: at 0.8 one, at 0.5 two, at 0.3 three, at 0.2 four patients' worth, capped at 2 a patient
    found = control_risk(cases, 0.81, risk="false_positives", cap=2)
    assert found.threshold == 0.4  # the lowest score that lets in no third false positive
    assert found.bound == pytest.approx((2 + 2) / 5)
    assert control_risk(cases, 0.3, risk="false_positives", cap=2).threshold == math.inf


@pytest.mark.parametrize(("risk", "target"), [("missed", 0.1), ("missed", 0.3), ("false_positives", 1.0)])
def test_the_promise_is_kept_over_many_cohorts(risk, target, rng: np.random.Generator) -> None:
    risks = []
    for _ in range(120):
        validation, fresh = random_patients(40, rng), random_patients(40, rng)
        threshold = control_risk(validation, target, risk=risk, cap=5).threshold
        table = score_points(fresh, threshold)
        missed = np.divide(table.fn, table.tp + table.fn, out=np.zeros(40), where=table.tp + table.fn > 0)
        risks.append(missed.mean() if risk == "missed" else np.minimum(table.fp, 5).mean())
    error = np.std(risks) / math.sqrt(len(risks))
    assert np.mean(risks) <= target + 2 * error
    assert np.mean(risks) >= 0.5 * target  # and it is not kept by reporting everything


def test_the_check_over_splits_sees_the_promise_kept(rng: np.random.Generator) -> None:
    cases = random_patients(80, rng)
    table = check_risk(cases, 0.2, rng=rng, splits=300)
    assert len(table) == 300
    assert table["risk"].mean() <= 0.2 + 0.01
    assert (table["risk"] == table["missed"]).all()
    table = check_risk(cases, 1.0, rng=rng, splits=300, risk="false_positives")
    assert table["risk"].mean() <= 1.0 + 0.05


@pytest.mark.parametrize(("risk", "target"), [("missed", 0.2), ("false_positives", 1.0)])
def test_the_check_follows_the_rule_that_it_checks(risk, target, rng: np.random.Generator) -> None:
    cases = random_patients(40, rng)
    table = check_risk(cases, target, rng=np.random.default_rng(3), risk=risk, splits=50)
    again = np.random.default_rng(3)
    for row in table.itertuples():
        order = again.permutation(40)
        threshold = control_risk([cases[k] for k in order[:20]], target, risk=risk).threshold
        assert row.threshold == threshold
        scores = score_points([cases[k] for k in order[20:]], threshold)
        assert row.false_positives == pytest.approx(np.minimum(scores.fp, 10).mean())


def test_a_reader_is_asked_where_candidates_do_not_suffice(rng: np.random.Generator) -> None:
    cases = random_patients(60, rng, missed=3.0)
    assert control_risk(cases, 0.1).threshold == -math.inf
    assert check_risk(cases, 0.1, rng=rng, splits=20)["risk"].max() == 0


def test_tighter_promises_keep_more_candidates(rng: np.random.Generator) -> None:
    cases = random_patients(100, rng)
    missed = [control_risk(cases, target).threshold for target in (0.05, 0.1, 0.2, 0.4)]
    assert missed == sorted(missed)
    false = [control_risk(cases, target, risk="false_positives").threshold for target in (0.5, 1.0, 2.0)]
    assert false == sorted(false, reverse=True)


def test_what_makes_no_promise_is_refused() -> None:
    cases = [patient([0.9], [0.1]), patient([0.8], [])]
    with pytest.raises(ValueError, match="test split"):
        control_risk([patient([0.5], [], split="test")], 0.1)
    for target in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="target"):
            control_risk(cases, target)
    with pytest.raises(ValueError, match="cap"):
        control_risk(cases, 0.5, risk="false_positives", cap=math.inf)
    with pytest.raises(ValueError, match="risk: got 'both'"):
        control_risk(cases, 0.5, risk="both")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="no patient"):
        control_risk([], 0.5)
    with pytest.raises(ValueError, match="both parts"):
        check_risk(cases[:1], 0.5, rng=np.random.default_rng(0))
