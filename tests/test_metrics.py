"""Cohort metrics: a small cohort counted by hand, properties, agreement of the one-pass table with matching."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionkit.matching import Gate, match_points
from lesionkit.metrics import (
    SIZE_CLASSES,
    CasePoints,
    Score,
    SizeScore,
    activity,
    activity_probability,
    choose_threshold,
    count_distribution,
    froc,
    froc_score,
    lesion_counts,
    precision_recall,
    score_cohort,
    score_points,
)


def line(*positions: float) -> np.ndarray:
    """Points on the first axis, in mm."""
    return np.array([[p, 0.0, 0.0] for p in positions]).reshape(-1, 3)


def cohort(split: str = "validation") -> list[CasePoints]:
    """Three patients: one with two hits, a miss and a false alarm; one without lesions; one without detections."""
    return [
        CasePoints(
            subject="a",
            split=split,
            predicted=line(1, 41, 200, 300),
            score=np.array([0.9, 0.6, 0.7, 0.1]),
            true=line(0, 40, 80),
            sizes=np.array([5, 20, 60]),
        ),
        CasePoints(subject="b", split=split, predicted=line(9), score=np.array([0.3]), true=line(), sizes=np.empty(0)),
        CasePoints(subject="c", split=split, predicted=line(), score=np.empty(0), true=line(5), sizes=np.array([2])),
    ]


@st.composite
def cohorts(draw: st.DrawFn) -> list[CasePoints]:
    """Crowded random cases, with tied scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cases = []
    for _ in range(draw(st.integers(1, 4))):
        n, m = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        predicted, true = rng.uniform(0, 14, (n, 3)), rng.uniform(0, 14, (m, 3))
        score = rng.integers(1, 6, n) / 5
        cases.append(CasePoints(predicted=predicted, score=score, true=true, sizes=rng.integers(1, 90, m)))
    return cases


def test_the_papers_size_classes() -> None:
    assert dict(SIZE_CLASSES) == {"small": (3, 10), "medium": (11, 50), "large": (51, np.inf)}
    sizes = np.array([2, 3, 10, 11, 50, 51, 1e9, np.nan])
    assert [int(c.contains(sizes).sum()) for c in SIZE_CLASSES.values()] == [2, 2, 2]


def test_a_cohort_counted_by_hand() -> None:
    table = score_points(cohort(), 0.5)
    assert table.subjects == ("a", "b", "c")
    assert table.pooled == Score(tp=2, fp=1, fn=2)
    assert table.pooled.precision == pytest.approx(2 / 3)
    assert table.pooled.recall == 0.5
    assert table.pooled.f1 == pytest.approx(4 / 7)
    assert dict(table.by_size) == {
        "small": SizeScore(n_true=1, n_found=1),
        "medium": SizeScore(n_true=1, n_found=1),
        "large": SizeScore(n_true=1, n_found=0),
    }
    assert table.by_size["large"].recall == 0


def test_the_tables_of_a_cohort() -> None:
    table = score_points(cohort(), 0.2)
    frame = table.to_frame()
    assert frame.index.tolist() == ["all", "small", "medium", "large", "patient mean"]
    assert frame.columns.tolist() == ["n_true", "tp", "fp", "fn", "precision", "recall", "f1"]
    np.testing.assert_allclose(frame.loc["all"].to_numpy(float), [4, 2, 2, 2, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(frame.loc["small"].to_numpy(float), [1, 1, np.nan, 0, np.nan, 1, np.nan])
    patients = table.patients()
    assert patients["subject"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(patients["precision"], [2 / 3, 0, np.nan])
    np.testing.assert_allclose(patients["recall"], [2 / 3, np.nan, 0])
    np.testing.assert_allclose(patients["f1"], [2 / 3, 0, 0])
    assert frame.loc["patient mean", "precision"] == pytest.approx(1 / 3)


def test_an_empty_class_and_an_empty_cohort_have_no_rates() -> None:
    table = score_cohort([])
    assert np.isnan(table.pooled.f1)
    assert np.isnan(table.by_size["small"].recall)
    assert table.to_frame().loc["all", "tp"] == 0
    assert table.patients().empty


def test_own_size_classes_and_numbered_subjects() -> None:
    matching = match_points(line(0), line(0, 50))
    table = score_cohort([(matching, np.array([1, np.nan]))], size_classes={"any": (0, np.inf)})
    assert table.subjects == ("1",)
    assert table.by_size["any"] == SizeScore(n_true=1, n_found=1)


def test_precision_and_recall_over_thresholds_counted_by_hand() -> None:
    table = precision_recall(cohort())
    np.testing.assert_allclose(table["threshold"], [0.9, 0.7, 0.6, 0.3, 0.1])
    assert table["tp"].tolist() == [1, 1, 2, 2, 2]
    assert table["fp"].tolist() == [0, 1, 1, 2, 3]
    assert table["fn"].tolist() == [3, 3, 2, 2, 2]
    np.testing.assert_allclose(table["f1"], [2 / 5, 2 / 6, 4 / 7, 4 / 8, 4 / 9])


def test_thresholds_of_ones_own() -> None:
    table = precision_recall(cohort(), thresholds=np.array([0.0, 0.65, 5.0]))
    assert table["threshold"].tolist() == [5.0, 0.65, 0.0]
    assert table["tp"].tolist() == [0, 1, 2]
    assert np.isnan(table["precision"].iloc[0])


@pytest.mark.parametrize("gate", ["before", "after"])
@settings(deadline=None, max_examples=50)
@given(cases=cohorts(), max_distance=st.sampled_from([2.0, 5.0, 9.0]))
def test_the_table_agrees_with_scoring_at_each_threshold(
    gate: Gate, cases: list[CasePoints], max_distance: float
) -> None:
    table = precision_recall(cases, max_distance=max_distance, gate=gate)
    for row in table.itertuples():
        pooled = score_points(cases, row.threshold, max_distance=max_distance, gate=gate).pooled
        assert (row.tp, row.fp, row.fn) == (pooled.tp, pooled.fp, pooled.fn)


def test_gated_after_every_score_is_tried() -> None:
    rng = np.random.default_rng(0)
    case = CasePoints(predicted=rng.uniform(0, 99, (300, 3)), score=rng.random(300), true=line(9), sizes=np.ones(1))
    table = precision_recall([case], gate="after")
    assert len(table) == 300
    assert table["threshold"].iloc[[0, -1]].tolist() == [case.score.max(), case.score.min()]


def test_the_chosen_threshold_is_best_and_halfway() -> None:
    assert choose_threshold(cohort()) == pytest.approx(0.45)  # F1 is best once 0.6 is in and 0.3 is not


@settings(deadline=None, max_examples=50)
@given(cohorts())
def test_no_threshold_is_better_than_the_chosen_one(cases: list[CasePoints]) -> None:
    table = precision_recall(cases)
    if table["tp"].any():
        assert score_points(cases, choose_threshold(cases)).pooled.f1 == table["f1"].max()
    else:
        with pytest.raises(ValueError, match="without one hit"):
            choose_threshold(cases)


def test_scores_without_a_number_between_them_keep_the_better_one() -> None:
    low = 0.5
    high = np.nextafter(low, 1)
    case = CasePoints(predicted=line(0, 99), score=np.array([high, low]), true=line(0), sizes=np.ones(1))
    assert choose_threshold([case]) == high


@pytest.mark.parametrize("split", ["train", "test", "Test", "testing", "holdout", "val"])
def test_a_threshold_is_chosen_on_validation_only(split: str) -> None:
    with pytest.raises(ValueError, match=f"{split} split"):
        choose_threshold(cohort(split=split))


def test_a_threshold_is_chosen_on_cases_of_no_split() -> None:
    assert choose_threshold(cohort(split="")) == choose_threshold(cohort())


def test_cases_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"score of x: got shape \(1,\)"):
        CasePoints(subject="x", predicted=line(1, 2), score=np.ones(1), true=line(), sizes=np.empty(0))
    with pytest.raises(ValueError, match="sizes of a case"):
        CasePoints(predicted=line(), score=np.empty(0), true=line(3), sizes=np.empty(0))
    with pytest.raises(ValueError, match="NaN"):
        CasePoints(predicted=line(1), score=np.array([np.nan]), true=line(), sizes=np.empty(0))
    matching = match_points(line(0), line(0))
    with pytest.raises(ValueError, match="sizes of 1"):
        score_cohort([(matching, np.ones(2))])
    with pytest.raises(ValueError, match="2 names for 1 cases"):
        score_cohort([(matching, np.ones(1))], subjects=["a", "b"])


def test_results_are_plain_frames() -> None:
    assert isinstance(score_points(cohort(), 0.5).to_frame(), pd.DataFrame)


def alphas(*values: float, true: int = 0, subject: str = "", split: str = "") -> CasePoints:
    """One candidate an alpha, 100 mm apart; the first `true` of them are lesions, or as many as there are and more."""
    n = len(values)
    return CasePoints(
        predicted=line(*(100.0 * k for k in range(n))),
        score=np.array(values, dtype=float),
        true=line(*(100.0 * k for k in range(true))),
        sizes=np.full(true, 20.0),
        subject=subject,
        split=split,
    )


def test_intervals_hold_the_rate_and_shrink_with_the_cohort(rng: np.random.Generator) -> None:
    def cases(n: int) -> list[CasePoints]:
        return [alphas(*rng.random(6), true=int(rng.integers(1, 8))) for _ in range(n)]

    widths = []
    for n in (20, 320):
        table = score_points(cases(n), 0.3)
        ends = table.intervals(rng=rng)
        assert ends.index.tolist() == table.to_frame().index.tolist()
        for rate in ("precision", "recall", "f1"):
            assert ends.loc["all", f"{rate}_low"] < getattr(table.pooled, rate) < ends.loc["all", f"{rate}_high"]
        widths.append(ends.loc["all", "f1_high"] - ends.loc["all", "f1_low"])
        assert np.isnan(ends.loc["small"]).all()  # no lesion of that size
        assert ends.loc["medium", "recall_low"] == pytest.approx(ends.loc["all", "recall_low"])
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)


def test_intervals_cover_as_often_as_they_say(rng: np.random.Generator) -> None:
    covered = []
    for _ in range(200):
        cases = [alphas(*(rng.random(5) < 0.7).astype(float), true=5) for _ in range(60)]
        ends = score_points(cases, 0.5).intervals(rng=rng, level=0.9, resamples=400).loc["all"]
        covered.append(ends["recall_low"] <= 0.7 <= ends["recall_high"])
    assert 0.82 <= np.mean(covered) <= 0.97


def test_intervals_of_nothing_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="no patient"):
        score_cohort([]).intervals(rng=rng)
    with pytest.raises(ValueError, match="level"):
        score_points(cohort(), 0.5).intervals(rng=rng, level=1.0)


def test_froc_counted_by_hand() -> None:
    table = froc(cohort())
    np.testing.assert_allclose(table["threshold"], [np.inf, 0.9, 0.7, 0.6, 0.3, 0.1])
    np.testing.assert_allclose(table["fp_per_patient"], np.array([0, 0, 1, 1, 2, 3]) / 3)
    np.testing.assert_allclose(table["sensitivity"], [0, 0.25, 0.25, 0.5, 0.5, 0.5])
    assert froc_score(table, at=(0.0, 1 / 3, 8.0)) == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    with pytest.raises(ValueError, match="at least one patient"):
        froc([])


def test_activity_counts_patients_not_lesions() -> None:
    cases = [alphas(0.9, 0.8, true=1), alphas(0.2, true=3), alphas(0.6), alphas(), alphas(0.1)]
    found = activity(cases, 0.5)
    assert (found.tp, found.fn, found.fp, found.tn) == (1, 1, 1, 2)
    assert found.sensitivity == 0.5
    assert found.specificity == pytest.approx(2 / 3)
    assert found.accuracy == 0.6
    assert found.auc == pytest.approx(5 / 6)  # 0.98 is above all three, 0.2 above two of them
    assert np.isnan(activity([alphas(0.4, true=1)], 0.5).specificity)
    assert np.isnan(activity([alphas(0.4, true=1)], 0.5).auc)


def test_probability_of_activity() -> None:
    assert activity_probability(np.array([0.5, 0.5])) == 0.75
    assert activity_probability(np.empty(0)) == 0.0
    assert activity_probability(np.array([1.3, 0.2])) == 1.0


@given(st.lists(st.floats(0, 1), max_size=12))
def test_the_count_distribution_equals_the_sum_over_all_subsets(alpha: list[float]) -> None:
    direct = np.zeros(len(alpha) + 1)
    for subset in range(2 ** len(alpha)):
        exists = [(subset >> k) & 1 for k in range(len(alpha))]
        direct[sum(exists)] += np.prod([p if there else 1 - p for p, there in zip(alpha, exists, strict=True)])
    np.testing.assert_allclose(count_distribution(np.array(alpha)), direct, atol=1e-12)


def test_the_count_distribution_has_the_moments_of_its_alphas(rng: np.random.Generator) -> None:
    alpha = rng.random(300)
    distribution = count_distribution(alpha)
    number = np.arange(301)
    assert distribution.sum() == pytest.approx(1)
    assert (distribution @ number) == pytest.approx(alpha.sum())
    variance = distribution @ (number - alpha.sum()) ** 2
    assert variance == pytest.approx((alpha * (1 - alpha)).sum())


def test_lesion_counts_of_known_cases() -> None:
    table = lesion_counts([alphas(1.0, 1.2, true=2, subject="a"), alphas(0.5, 0.5, true=1), alphas(0.0, true=4)])
    assert table["subject"].tolist() == ["a", "2", "3"]
    np.testing.assert_allclose(table["expected"], [2, 1, 0])
    np.testing.assert_allclose(table["p_true"], [1, 0.5, 0])
    assert table[["low", "high"]].to_numpy().tolist() == [[2, 2], [0, 2], [0, 0]]
    assert table["covered"].tolist() == [True, True, False]
    np.testing.assert_allclose(table["crps"], [0, 0.25**2 + 0.25**2, 4])
    with pytest.raises(ValueError, match="level"):
        lesion_counts([], level=0.0)


def test_intervals_of_counts_cover_where_alphas_are_true(rng: np.random.Generator) -> None:
    covered = []
    for _ in range(400):
        alpha = rng.random(20)
        exists = int((rng.random(20) < alpha).sum())
        covered += lesion_counts([alphas(*alpha, true=exists)])["covered"].tolist()
    assert 0.88 <= np.mean(covered) <= 0.99  # counts are whole numbers: a little more than asked for


def test_unfitted_alphas_belong_to_their_candidates() -> None:
    with pytest.raises(ValueError, match=r"unfitted of a case: got shape \(1,\), wanted \(2,\)"):
        CasePoints(predicted=line(1, 2), score=np.ones(2), true=line(), sizes=np.empty(0), unfitted=np.ones(1))
