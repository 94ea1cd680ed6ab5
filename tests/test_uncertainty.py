"""Entropy and the accuracy of what is kept: known answers and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from lesionkit.metrics import CasePoints
from lesionkit.uncertainty import entropy, judged, retention


@given(st.floats(0, 1))
def test_entropy_is_that_of_scipy_and_symmetric(p: float) -> None:
    ours = entropy(np.array([p, 1 - p]))
    assert ours[0] == pytest.approx(scipy_entropy([p, 1 - p], base=2), abs=1e-12)
    assert ours[0] == pytest.approx(ours[1], abs=1e-12)


def test_accuracy_of_the_least_uncertain_counted_by_hand() -> None:
    curve = retention(np.array([0.3, 0.1, 0.9, 0.5]), np.array([True, True, False, False]))
    np.testing.assert_allclose(curve.fraction, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.accuracy, [1, 1, 2 / 3, 1 / 2])
    assert curve.area == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert curve.at(0.5) == 1
    assert curve.at(0.1) == 1
    assert curve.rises()
    assert not retention(np.array([0.1, 0.2]), np.array([False, True])).rises()
    with pytest.raises(ValueError, match="fraction"):
        curve.at(0.0)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), min_size=1, max_size=7), st.integers(0, 99))
def test_ties_come_in_random_order(rows: list[tuple[float, bool]], seed: int) -> None:
    level, right = np.array([u for u, _ in rows]), np.array([r for _, r in rows])
    rng = np.random.default_rng(seed)
    shuffled = []
    for _ in range(400):
        order = rng.permutation(len(rows))
        order = order[np.argsort(level[order], kind="stable")]
        shuffled.append(np.cumsum(right[order]) / np.arange(1, len(rows) + 1))
    np.testing.assert_allclose(retention(level, right).accuracy, np.mean(shuffled, axis=0), atol=0.15)
    assert retention(level, right).accuracy[-1] == pytest.approx(right.mean())


def test_uncertainty_that_knows_gives_a_larger_area(rng: np.random.Generator) -> None:
    right = rng.random(2000) < 0.7
    knows = retention(np.where(right, 0.2, 0.8) + 0.3 * rng.random(2000), right)
    blind = retention(rng.random(2000), right)
    assert knows.area > blind.area + 0.15
    assert blind.area == pytest.approx(0.7, abs=0.05)


def test_detections_are_judged_at_the_threshold() -> None:
    x = np.array([0.0, 100, 200, 300, 2])
    case = CasePoints(
        predicted=np.stack([x, 0 * x, 0 * x], axis=1),
        score=np.array([0.9, 0.8, 0.2, 0.5, 0.1]),
        true=np.array([[0.0, 0, 0], [200, 0, 0]]),
        sizes=np.ones(2),
    )
    level, right = judged([case], 0.5)
    np.testing.assert_allclose(level, entropy(np.array([0.9, 0.8, 0.5])))
    assert right.tolist() == [True, False, False]


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        retention(np.ones(2), np.ones(3, bool))
    with pytest.raises(ValueError, match="NaN"):
        retention(np.array([np.nan]), np.ones(1, bool))
    assert np.isnan(retention(np.empty(0), np.empty(0, bool)).area)
