"""Calibration: known answers, properties, agreement with scikit-learn and torchmetrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

with warnings.catch_warnings():  # what they warn about on import is theirs
    warnings.simplefilter("ignore")
    import sklearn.calibration
    import sklearn.isotonic
    import sklearn.metrics
    import torch
    from torchmetrics.classification import BinaryCalibrationError

from lesionkit.calibration import (
    Isotonic,
    Outcomes,
    Temperature,
    bootstrap,
    brier_score,
    fit_isotonic,
    fit_temperature,
    outcomes,
    reliability,
    smooth_reliability,
)
from lesionkit.metrics import CasePoints


def drawn(n: int, rng: np.random.Generator, *, temperature: float = 1.0) -> Outcomes:
    """Draw candidates whose true log odds are the predicted ones over `temperature`."""
    p = rng.beta(0.7, 0.7, n).clip(1e-4, 1 - 1e-4)
    return Outcomes(
        probability=p, hit=rng.random(n) < Temperature(temperature=temperature)(p), patient=np.arange(n) // 5
    )


def as_cases(found: Outcomes, split: str = "validation") -> list[CasePoints]:
    """Make patients with these candidates, 100 mm apart, and a lesion at each that is a hit."""
    cases = []
    for number in np.unique(found.patient):
        rows = np.flatnonzero(found.patient == number)
        points = np.stack([100.0 * np.arange(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))], axis=1)
        true = points[found.hit[rows]]
        score = found.probability[rows]
        unfitted = np.full(len(rows), 1.7)
        cases.append(
            CasePoints(
                predicted=points, score=score, true=true, sizes=np.ones(len(true)), split=split, unfitted=unfitted
            )
        )
    return cases


def test_true_positives_are_the_matched_ones_not_the_first() -> None:
    case = CasePoints(
        predicted=np.array([[50.0, 0, 0], [0, 0, 0], [1, 0, 0]]),
        score=np.array([0.9, 0.8, 1.4]),
        true=np.array([[0.5, 0, 0], [0.6, 0, 0]]),
        sizes=np.ones(2),
        unfitted=np.array([0.3, -0.1, 5.0]),
    )
    found = outcomes([case])
    assert found.hit.tolist() == [False, True, True]
    assert found.probability.tolist() == [0.9, 0.8, 1.0]
    assert outcomes([case], which="unfitted").probability.tolist() == [0.3, 0.0, 1.0]
    with pytest.raises(ValueError, match="without unfitted alphas"):
        outcomes([CasePoints(predicted=case.predicted, score=case.score, true=case.true, sizes=case.sizes)],
                 which="unfitted")  # fmt: skip


def test_bins_counted_by_hand() -> None:
    p = np.array([0.05, 0.1, 0.15, 0.9, 1.0, 0.0])
    found = Outcomes(probability=p, hit=np.array([0, 1, 0, 1, 1, 0], bool), patient=np.zeros(6, int))
    curve = reliability(found, bins=10)
    assert curve.count.tolist() == [3, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    np.testing.assert_allclose(curve.confidence[[0, 1, 8, 9]], [0.05, 0.15, 0.9, 1.0])
    np.testing.assert_allclose(curve.accuracy[[0, 1, 8, 9]], [1 / 3, 0, 1, 1])
    gaps = np.array([1 / 3 - 0.05, 0.15, 0.1, 0.0])
    assert curve.ece == pytest.approx(gaps @ [3, 1, 1, 1] / 6)
    assert curve.mce == pytest.approx(gaps.max())
    assert np.isnan(curve.accuracy[2])
    assert np.all((curve.low <= curve.accuracy) | (curve.count == 0))
    assert brier_score(found) == pytest.approx(np.mean([0.05**2, 0.9**2, 0.15**2, 0.1**2, 0, 0]))


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_calibration_errors_are_those_of_torchmetrics(bins: int, rng: np.random.Generator) -> None:
    found = drawn(700, rng, temperature=2.5)
    curve = reliability(found, bins=bins)
    p, y = torch.tensor(found.probability), torch.tensor(found.hit.astype(int))
    for norm, ours in (("l1", curve.ece), ("max", curve.mce)):
        assert float(BinaryCalibrationError(n_bins=bins, norm=norm)(p, y)) == pytest.approx(ours, abs=1e-6)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_reliability_curve_and_brier_score_are_those_of_sklearn(strategy: str, rng: np.random.Generator) -> None:
    found = drawn(503, rng, temperature=0.5)
    curve = reliability(found, bins=10, spacing="width" if strategy == "uniform" else "count")
    accuracy, confidence = sklearn.calibration.calibration_curve(
        found.hit, found.probability, n_bins=10, strategy=strategy
    )
    filled = curve.count > 0
    np.testing.assert_allclose(curve.accuracy[filled], accuracy)
    np.testing.assert_allclose(curve.confidence[filled], confidence)
    theirs = sklearn.metrics.brier_score_loss(found.hit, found.probability)
    assert brier_score(found) == pytest.approx(theirs)


def test_smooth_error_is_small_where_probabilities_are_true_and_right_where_they_are_not(
    rng: np.random.Generator,
) -> None:
    assert smooth_reliability(drawn(20_000, rng)).error < 0.012
    p = np.full(5000, 0.3)
    found = Outcomes(probability=p, hit=rng.random(5000) < 0.7, patient=np.arange(5000))
    assert smooth_reliability(found).error == pytest.approx(0.4, abs=0.02)


def test_smooth_error_hardly_moves_with_a_shift_that_moves_bins(rng: np.random.Generator) -> None:
    """Two clumps on both sides of a bin's edge: the ECE jumps, the smooth error does not."""
    hit = np.tile([True, False], 500)
    at = [np.where(hit, 0.5 - e, 0.5 + e) for e in (-1e-3, 1e-3)]
    found = [Outcomes(probability=p, hit=hit, patient=np.arange(1000)) for p in at]
    errors = [smooth_reliability(f).error for f in found]
    assert abs(errors[0] - errors[1]) < 0.005
    assert max(errors) < 0.05
    assert max(reliability(f).ece for f in found) > 0.45


def test_the_smoothing_kernel_loses_no_mass_at_the_ends() -> None:
    for p in (0.0, 0.02, 0.5, 1.0):
        found = Outcomes(probability=np.array([p, p]), hit=np.array([True, False]), patient=np.arange(2))
        curve = smooth_reliability(found)
        step = curve.grid[1]
        assert np.sum((curve.density[1:] + curve.density[:-1]) / 2) * step == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(curve.accuracy[np.isfinite(curve.accuracy)], 0.5)


def test_the_band_holds_the_diagonal_where_probabilities_are_true(rng: np.random.Generator) -> None:
    curve = smooth_reliability(drawn(3000, rng), rng=rng)
    inside = (curve.low <= curve.grid) & (curve.grid <= curve.high)
    assert inside[np.isfinite(curve.low)].mean() > 0.8
    assert np.isnan(smooth_reliability(drawn(50, rng)).low).all()


def test_bootstrap_interval_holds_the_statistic(rng: np.random.Generator) -> None:
    found = drawn(1000, rng, temperature=2.0)
    low, high = bootstrap(found, brier_score, rng=rng)
    assert low < brier_score(found) < high
    assert high - low < 0.04


def test_bootstrap_interval_of_the_ece_holds_the_true_one() -> None:
    """An ECE of few candidates is too large, and that of draws of them more so: percentiles would miss."""
    inside = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = drawn(600, rng)  # calibrated: the true error is 0
        low, high = bootstrap(found, lambda sample: reliability(sample).ece, rng=rng, resamples=100)
        estimate = reliability(found).ece
        assert low < high
        assert 2 * estimate - high > 0  # where the percentiles of the draws begin
        inside += low <= 0
    assert inside >= 9


def test_bootstrap_interval_of_no_candidate_is_unknown(rng: np.random.Generator) -> None:
    none = Outcomes(probability=np.empty(0), hit=np.empty(0, bool), patient=np.empty(0, int))
    assert np.isnan(bootstrap(none, brier_score, rng=rng)).all()


def test_misspelt_options_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="which: got 'alpha'"):
        outcomes([], which="alpha")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="spacing: got 'size'"):
        reliability(drawn(10, rng), spacing="size")  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_found_again(temperature: float, rng: np.random.Generator) -> None:
    fitted = fit_temperature(as_cases(drawn(6000, rng, temperature=temperature)))
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)


def test_recalibration_mends_fresh_candidates(rng: np.random.Generator) -> None:
    seen, fresh = drawn(4000, rng, temperature=3.0), drawn(4000, rng, temperature=3.0)
    before = reliability(fresh).ece
    for fit in (fit_temperature, fit_isotonic):
        after = reliability(fresh.replaced(fit(as_cases(seen))(fresh.probability))).ece
        assert after < 0.25 * before


def test_isotonic_regression_is_that_of_sklearn(rng: np.random.Generator) -> None:
    found = drawn(400, rng, temperature=2.0)
    ours = fit_isotonic(as_cases(found))
    theirs = sklearn.isotonic.IsotonicRegression(out_of_bounds="clip").fit(found.probability, found.hit)
    at = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(ours(at), theirs.predict(at), atol=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.floats(0.05, 20))
def test_recalibrations_keep_the_order_and_the_range(pairs: list[tuple[float, bool]], temperature: float) -> None:
    p, hit = np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])
    found = Outcomes(probability=p, hit=hit, patient=np.zeros(len(p), int))
    at = np.linspace(0, 1, 101)
    for recalibrate in (fit_isotonic(as_cases(found)), Temperature(temperature=temperature)):
        values = recalibrate(at)
        assert np.all(np.diff(values) >= -1e-12)
        assert values.min() >= 0
        assert values.max() <= 1
    assert isinstance(fit_isotonic(as_cases(found)), Isotonic)


def test_nothing_is_fitted_on_the_test_set(rng: np.random.Generator) -> None:
    cases = as_cases(drawn(20, rng), split="test")
    for fit in (fit_temperature, fit_isotonic):
        with pytest.raises(ValueError, match="test split"):
            fit(cases)
        with pytest.raises(ValueError, match="no candidate"):
            fit([])


def test_what_is_no_probability_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        Outcomes(probability=np.array([1.2]), hit=np.array([True]), patient=np.array([0]))
    with pytest.raises(ValueError, match="same number"):
        Outcomes(probability=np.array([1.0]), hit=np.array([True, False]), patient=np.array([0]))
    with pytest.raises(ValueError, match="bins"):
        reliability(drawn(5, rng), bins=0)
    none = Outcomes(probability=np.empty(0), hit=np.empty(0, bool), patient=np.empty(0, int))
    assert np.isnan(reliability(none).ece)
    assert np.isnan(reliability(none).mce)
    assert np.isnan(brier_score(none))
    with pytest.raises(ValueError, match="no candidate"):
        smooth_reliability(none)
