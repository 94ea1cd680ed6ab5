"""Matching: cases with a known answer, properties, agreement with brute force."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesionkit.matching import Gate, distances_mm, match_in_mask, match_points, rates

GATES: tuple[Gate, ...] = ("before", "after")

coordinates = st.floats(-20, 20, allow_nan=False, width=16)


def point_sets(largest: int, ndim: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Up to `largest` points near one another."""
    return st.integers(0, largest).flatmap(lambda n: hnp.arrays(np.float64, (n, ndim), elements=coordinates))


def brute_force(predicted: np.ndarray, true: np.ndarray, max_distance: float) -> tuple[int, float]:
    """Most allowed pairs and their smallest total distance, by trying every one-to-one matching."""
    distance = np.linalg.norm(predicted[:, None] - true[None], axis=-1)
    if len(predicted) > len(true):
        distance = distance.T
    best = (0, 0.0)
    for columns in itertools.permutations(range(distance.shape[1]), distance.shape[0]):
        chosen = distance[np.arange(len(columns)), list(columns)]
        chosen = chosen[chosen <= max_distance]
        best = min(best, (-len(chosen), float(chosen.sum())))
    return -best[0], best[1]


def test_a_far_match_is_a_false_positive_and_a_false_negative() -> None:
    for gate in GATES:
        matching = match_points(np.array([[0.0, 0, 0]]), np.array([[0.0, 0, 9]]), max_distance=6, gate=gate)
        assert (matching.tp, matching.fp, matching.fn) == (0, 1, 1)
        assert (matching.precision, matching.recall, matching.f1) == (0, 0, 0)


def test_gating_after_loses_a_near_pair_to_far_ones() -> None:
    predicted = np.array([[0.0, 5.0], [-12.0, 0.0]])
    true = np.array([[0.0, 0.0], [12.0, 5.0]])
    before, after = (match_points(predicted, true, max_distance=6, gate=gate) for gate in GATES)
    assert before.pairs.tolist() == [[0, 0]]
    assert before.distances.tolist() == [5.0]
    assert after.tp == 0
    assert (after.fp, after.fn) == (2, 2)


def test_gating_before_makes_two_near_pairs_rather_than_one_perfect() -> None:
    predicted = np.array([[0.0, 0.0], [-5.0, 2.0]])
    true = np.array([[0.0, 0.0], [5.5, 0.0]])
    before, after = (match_points(predicted, true, max_distance=6, gate=gate) for gate in GATES)
    assert before.pairs.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(before.distances, [5.5, np.hypot(5, 2)])
    assert after.pairs.tolist() == [[0, 0]]


def test_one_lesion_is_hit_once_and_by_the_nearest() -> None:
    matching = match_points(np.array([[0.0, 0, 2], [0.0, 0, 1]]), np.array([[0.0, 0, 0]]))
    assert matching.pairs.tolist() == [[1, 0]]
    assert matching.unmatched_predicted.tolist() == [0]
    assert matching.unmatched_true.tolist() == []
    assert matching.matched_predicted.tolist() == [False, True]
    assert matching.precision == 0.5
    assert matching.recall == 1.0
    assert matching.f1 == pytest.approx(2 / 3)


def test_the_gate_itself_is_near_enough() -> None:
    assert match_points(np.array([[0.0, 0, 0]]), np.array([[0.0, 0, 6.0]]), max_distance=6.0).tp == 1


def test_spacing_turns_voxels_into_mm() -> None:
    predicted, true = np.array([[0.0, 0, 0]]), np.array([[1.0, 2, 2]])
    matching = match_points(predicted, true, spacing=(2.0, 0.5, 3.0), max_distance=6.5)
    np.testing.assert_allclose(matching.distances, [np.sqrt(4 + 1 + 36)])
    assert match_points(predicted, true, spacing=3.0, max_distance=8.9).tp == 0


def test_without_a_gate_everything_is_matched() -> None:
    rng = np.random.default_rng(3)
    matching = match_points(rng.normal(size=(7, 3)) * 100, rng.normal(size=(5, 3)) * 100, max_distance=np.inf)
    assert matching.tp == 5


def test_integer_points_are_points() -> None:
    assert match_points(np.array([[1, 2]]), np.array([[1, 2]]), max_distance=0).tp == 1


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (2, 0)])
@pytest.mark.parametrize("gate", GATES)
def test_empty_sets(n: int, m: int, gate: Gate) -> None:
    matching = match_points(np.zeros((n, 3)), np.zeros((m, 3)), gate=gate)
    assert (matching.tp, matching.fp, matching.fn) == (0, n, m)
    assert matching.pairs.shape == (0, 2)
    assert matching.distances.shape == (0,)
    np.testing.assert_equal(matching.precision, np.nan if n == 0 else 0.0)
    np.testing.assert_equal(matching.recall, np.nan if m == 0 else 0.0)
    np.testing.assert_equal(matching.f1, np.nan if n + m == 0 else 0.0)


def test_rates_of_arrays() -> None:
    precision, recall, f1 = rates(np.array([1, 0, 3]), np.array([1, 0, 0]), np.array([0, 0, 1]))
    np.testing.assert_allclose(precision, [0.5, np.nan, 1])
    np.testing.assert_allclose(recall, [1, np.nan, 0.75])
    np.testing.assert_allclose(f1, [2 / 3, np.nan, 6 / 7])


@settings(deadline=None)
@given(point_sets(5), point_sets(5), st.sampled_from([0.0, 3.0, 10.0, 25.0]))
def test_gating_before_equals_brute_force(predicted: np.ndarray, true: np.ndarray, max_distance: float) -> None:
    matching = match_points(predicted, true, max_distance=max_distance, gate="before")
    n_pairs, total = brute_force(predicted, true, max_distance)
    assert matching.tp == n_pairs
    assert matching.distances.sum() == pytest.approx(total, abs=1e-6)


@settings(deadline=None)
@given(point_sets(12), point_sets(12), st.sampled_from(GATES), st.sampled_from([0.0, 4.0, 12.0, np.inf]))
def test_pairs_are_one_to_one_near_and_symmetric(
    predicted: np.ndarray, true: np.ndarray, gate: Gate, max_distance: float
) -> None:
    matching = match_points(predicted, true, max_distance=max_distance, gate=gate)
    assert matching.tp <= min(len(predicted), len(true))
    assert matching.tp + matching.fp == len(predicted)
    assert matching.tp + matching.fn == len(true)
    for side in matching.pairs.T:
        assert len(np.unique(side)) == matching.tp
    assert np.all(matching.distances <= max_distance)
    chosen = predicted[matching.pairs[:, 0]] - true[matching.pairs[:, 1]]
    np.testing.assert_allclose(matching.distances, np.linalg.norm(chosen, axis=1), atol=1e-9)
    if gate == "before":  # gated after, assignments of equal total distance may keep different numbers of near pairs
        swapped = match_points(true, predicted, max_distance=max_distance, gate=gate)
        assert swapped.tp == matching.tp
        assert swapped.distances.sum() == pytest.approx(matching.distances.sum(), abs=1e-6)


@settings(deadline=None)
@given(point_sets(10), point_sets(10), st.sampled_from([2.0, 6.0, 15.0]))
def test_gating_before_never_has_fewer_hits(predicted: np.ndarray, true: np.ndarray, max_distance: float) -> None:
    before, after = (match_points(predicted, true, max_distance=max_distance, gate=gate) for gate in GATES)
    assert before.tp >= after.tp


@settings(deadline=None)
@given(point_sets(8), st.integers(0, 2**32 - 1))
def test_a_set_matches_itself_in_any_order(points: np.ndarray, seed: int) -> None:
    points = np.unique(points, axis=0)
    order = np.random.default_rng(seed).permutation(len(points))
    matching = match_points(points[order], points, max_distance=0.0)
    np.testing.assert_array_equal(matching.pairs[:, 1], order)


def test_distances_of_empty_sets_keep_their_shape() -> None:
    assert distances_mm(np.zeros((0, 3)), np.zeros((4, 3))).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_distance": -1.0}, "max_distance"),
        ({"max_distance": np.nan}, "max_distance"),
        ({"gate": "never"}, "gate"),
        ({"spacing": (1.0, 1.0)}, "spacing"),
        ({"spacing": 0.0}, "spacing"),
        ({"predicted": np.array([[np.nan, 0, 0]])}, "predicted: got NaN"),
        ({"predicted": np.zeros(3)}, r"predicted: got shape \(3,\)"),
        ({"true": np.zeros((2, 2))}, "3 and 2 axes"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"predicted": np.zeros((1, 3)), "true": np.zeros((2, 3))} | change
    predicted, true = arguments.pop("predicted"), arguments.pop("true")
    with pytest.raises(ValueError, match=message):
        match_points(predicted, true, **arguments)  # type: ignore[arg-type]  # the point of the test


def mask() -> np.ndarray:
    """Two lesions, labelled 3 and 9; the centre of the ring-shaped 3 is background."""
    labels = np.zeros((8, 8, 4), np.uint16)
    labels[1:4, 1:4, 1] = 3
    labels[2, 2, 1] = 0
    labels[6, 6, 2] = 9
    return labels


def test_one_point_hits_and_the_next_is_a_duplicate() -> None:
    hits = match_in_mask(np.array([[6.4, 5.6, 2.0], [1.0, 1.0, 1.0], [3.2, 2.9, 0.6], [2.0, 2.0, 1.0]]), mask())
    assert hits.labels.tolist() == [3, 9]
    assert hits.label_of.tolist() == [9, 3, 3, 0]
    assert hits.matching.pairs.tolist() == [[0, 1], [1, 0]]
    assert hits.duplicates.tolist() == [2]
    assert hits.outside.tolist() == [3]
    assert (hits.matching.tp, hits.matching.fp, hits.matching.fn) == (2, 2, 0)


def test_points_beyond_the_array_hit_nothing() -> None:
    labels = np.ones((2, 2), np.int64)
    hits = match_in_mask(np.array([[-0.6, 0], [1.5, 0], [-0.5, 1.4], [1e12, 0]]), labels)
    assert hits.label_of.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("labels", [np.zeros((3, 3, 3), int), mask()])
def test_no_points_hit_nothing(labels: np.ndarray) -> None:
    hits = match_in_mask(np.zeros((0, 3)), labels)
    assert hits.matching.tp == 0
    assert hits.matching.n_true == len(np.unique(labels)) - 1


@settings(deadline=None)
@given(hnp.arrays(np.int8, (4, 4), elements=st.integers(0, 3)), point_sets(9, ndim=2))
def test_hits_duplicates_and_misses_share_out_the_points(labels: np.ndarray, points: np.ndarray) -> None:
    hits = match_in_mask(points / 5, labels)
    parts = [hits.matching.pairs[:, 0], hits.duplicates, hits.outside]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(points)))
    np.testing.assert_array_equal(hits.labels[hits.matching.pairs[:, 1]], hits.label_of[hits.matching.pairs[:, 0]])


def test_masks_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="labels: got 2-D float64"):
        match_in_mask(np.zeros((1, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="label -1"):
        match_in_mask(np.zeros((1, 2)), np.full((3, 3), -1))
    with pytest.raises(ValueError, match="points: got 3 axes, wanted 2"):
        match_in_mask(np.zeros((1, 3)), np.zeros((3, 3), int))


def test_importing_the_module_loads_no_optimiser() -> None:
    code = (
        "import sys, lesionkit.matching; print([m for m in sys.modules if m.startswith(('scipy', 'pandas', 'torch'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
