"""The same numbers as scikit-learn, torchmetrics and MONAI, wherever those compute the same quantity."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

with warnings.catch_warnings():  # what they warn about on import is theirs
    warnings.simplefilter("ignore")
    import sklearn.metrics
    import torch
    import torchmetrics.classification
    from monai.metrics import compute_froc_curve_data, compute_froc_score
    from monai.metrics.froc import compute_fp_tp_probs_nd

from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from lesionkit.matching import match_in_mask
from lesionkit.metrics import (
    CasePoints,
    activity,
    activity_probability,
    froc,
    froc_score,
    operating_points,
    score_points,
)


@pytest.fixture
def cases(rng: np.random.Generator) -> list[CasePoints]:
    """Forty patients, from none to a dozen lesions, with hits, misses and false alarms."""
    made = []
    for number in range(40):
        true = rng.uniform(0, 20, (number % 13, 3))  # so crowded that most candidates are near several lesions
        near = true[rng.random(len(true)) < 0.8] + rng.normal(0, 2, 3)
        predicted = np.concatenate([near, rng.uniform(0, 20, (rng.integers(0, 6), 3))])
        score = rng.uniform(0.05, 1, len(predicted))
        made.append(CasePoints(predicted=predicted, score=score, true=true, sizes=np.full(len(true), 9.0)))
    return made


def test_precision_recall_and_f1_are_those_of_sklearn_and_torchmetrics(cases: list[CasePoints]) -> None:
    threshold = 0.3
    truth, called = [], []  # one entry a hit, a false alarm or a miss
    for case in cases:
        near = cdist(case.predicted[case.score >= threshold], case.true) <= 6.0
        n_called, n_true = near.shape
        hits = int(near[linear_sum_assignment(near, maximize=True)].sum())
        truth += [1] * hits + [0] * (n_called - hits) + [1] * (n_true - hits)
        called += [1] * n_called + [0] * (n_true - hits)
    pooled = score_points(cases, threshold).pooled
    ours = [pooled.precision, pooled.recall, pooled.f1]
    theirs = sklearn.metrics.precision_recall_fscore_support(truth, called, average="binary")[:3]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    for rate, name in zip(ours, ("BinaryPrecision", "BinaryRecall", "BinaryF1Score"), strict=True):
        metric = getattr(torchmetrics.classification, name)()
        assert float(metric(torch.tensor(called), torch.tensor(truth))) == pytest.approx(rate, rel=1e-6)


def test_area_under_the_curve_of_activity_is_that_of_sklearn(cases: list[CasePoints]) -> None:
    active = [len(case.true) > 0 for case in cases]
    probability = [activity_probability(case.score) for case in cases]
    theirs = sklearn.metrics.roc_auc_score(active, probability)
    assert activity(cases, 0.3).auc == pytest.approx(theirs, rel=1e-12)


def test_froc_is_that_of_monai(rng: np.random.Generator) -> None:
    """Lesions as balls of 6 mm: what hits one in MONAI's eyes, being inside, is within `max_distance` of its centre."""
    cases, seen = [], []
    voxels = np.indices((36, 36, 36)).reshape(3, -1).T
    corners = 9 + 18 * np.indices((2, 2, 2)).reshape(3, -1).T  # so far apart that balls do not touch
    for number in range(12):
        true = rng.permutation(corners)[: number % 5]
        distance = cdist(voxels, true)
        inside = distance <= 6.0
        near = [rng.choice(voxels[ball]) for ball in inside.T if rng.random() < 0.7]
        false = rng.choice(voxels[~inside.any(axis=1)], 5)
        points = np.concatenate([np.reshape(near, (-1, 3)), false]).astype(int)
        score = rng.choice(np.arange(1, 1024), len(points), replace=False) / 1024  # exact in MONAI's float32
        cases.append(
            CasePoints(predicted=points.astype(float), score=score, true=true.astype(float), sizes=np.ones(len(true)))
        )
        labels = (inside * np.arange(1, 1 + len(true))).sum(axis=1).reshape(36, 36, 36)
        seen.append(compute_fp_tp_probs_nd(score, points, labels))
    table = froc(cases, max_distance=6.0)
    assert table["sensitivity"].iloc[0] == table["fp_per_patient"].iloc[0] == 0  # our first row; MONAI has its own end
    _check_like_monai(table[1:], seen)


def test_froc_of_hits_inside_masks_is_that_of_monai(rng: np.random.Generator) -> None:
    """MONAI counts further points inside a lesion that is already hit neither way."""
    scores, hits, seen, n_true = [], [], [], 0
    n_images = 12
    for _ in range(n_images):
        labels = np.zeros((24, 24, 24), dtype=np.int64)
        for label in range(1, 1 + int(rng.integers(1, 5))):
            labels[tuple(slice(c, c + 4) for c in rng.integers(0, 20, 3))] = label
        labels = np.searchsorted(np.unique(labels), labels)  # one may have covered another
        lesions = np.argwhere(labels > 0)
        points = np.concatenate([lesions[rng.integers(len(lesions), size=5)], rng.integers(0, 24, (4, 3))])
        score = np.sort(rng.choice(np.arange(1, 1024), 9, replace=False) / 1024)[::-1]  # exact in MONAI's float32
        found = match_in_mask(points.astype(float), labels)
        counted = np.setdiff1d(np.arange(9), found.duplicates)
        scores.append(score[counted])
        hits.append(found.matching.matched_predicted[counted])
        n_true += found.matching.n_true
        seen.append(compute_fp_tp_probs_nd(score, points, labels))
    table = operating_points(np.concatenate(scores), np.concatenate(hits), n_true=n_true)
    ours = table.rename(columns={"recall": "sensitivity"}).assign(fp_per_patient=table["fp"] / n_images)
    _check_like_monai(ours, seen)


def _check_like_monai(ours: pd.DataFrame, seen: list[tuple[np.ndarray, np.ndarray, int]]) -> None:
    """Compare a FROC with MONAI's, of what it saw in each image: scores of false and of true positives, lesions."""
    false, true, n_true = zip(*seen, strict=True)
    per_image, sensitivity = compute_froc_curve_data(
        np.concatenate(false), np.concatenate(true), sum(n_true), len(seen)
    )
    # MONAI gives a lesion that nothing hits the score 0, which is one more (first) threshold; and it ends at nothing.
    np.testing.assert_allclose(per_image[:-1], ours["fp_per_patient"][::-1])
    np.testing.assert_allclose(sensitivity[:-1], ours["sensitivity"][::-1])
    at = (0.25, 0.5, 1, 2, 4, 8)
    theirs = compute_froc_score(per_image, sensitivity, eval_thresholds=at)
    assert froc_score(ours, at) == pytest.approx(theirs)
