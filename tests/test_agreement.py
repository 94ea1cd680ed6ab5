"""The same numbers as scikit-learn, torchmetrics and MONAI, wherever those compute the same quantity."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():  # what they warn about on import is theirs
    warnings.simplefilter("ignore")
    import sklearn.metrics
    import torch
    import torchmetrics.classification
    from monai.metrics import compute_froc_curve_data, compute_froc_score
    from monai.metrics.froc import compute_fp_tp_probs_nd

from lesionkit.matching import match_in_mask
from lesionkit.metrics import CasePoints, activity, activity_probability, froc_score, operating_points, score_points


@pytest.fixture
def cases(rng: np.random.Generator) -> list[CasePoints]:
    """Forty patients, from none to a dozen lesions, with hits, misses and false alarms."""
    made = []
    for number in range(40):
        true = rng.uniform(0, 60, (number % 13, 3))
        near = true[rng.random(len(true)) < 0.8] + rng.normal(0, 2, 3)
        predicted = np.concatenate([near, rng.uniform(0, 60, (rng.integers(0, 6), 3))])
        score = rng.uniform(0.05, 1, len(predicted))
        made.append(CasePoints(predicted=predicted, score=score, true=true, sizes=np.full(len(true), 9.0)))
    return made


def test_precision_recall_and_f1_are_those_of_sklearn_and_torchmetrics(cases: list[CasePoints]) -> None:
    threshold = 0.3
    truth, called = [], []  # one entry a hit, a false alarm or a miss
    for case in cases:
        matching = case.match(threshold)
        truth += [1] * matching.tp + [0] * matching.fp + [1] * matching.fn
        called += [1] * matching.tp + [1] * matching.fp + [0] * matching.fn
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
    """Hits inside masks; MONAI counts further points inside a lesion that is already hit neither way."""
    scores, hits, n_true = [], [], 0
    fp_probs, tp_probs = [], []
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
        fp, tp, _ = compute_fp_tp_probs_nd(score, points, labels)
        fp_probs.append(fp)
        tp_probs.append(tp)
    table = operating_points(np.concatenate(scores), np.concatenate(hits), n_true=n_true)
    ours = table.rename(columns={"recall": "sensitivity"}).assign(fp_per_patient=table["fp"] / n_images)
    per_image, sensitivity = compute_froc_curve_data(
        np.concatenate(fp_probs), np.concatenate(tp_probs), n_true, n_images
    )
    # MONAI gives a lesion that nothing hits the score 0, which is one more (first) threshold; and it ends at nothing.
    np.testing.assert_allclose(per_image[:-1], ours["fp_per_patient"][::-1])
    np.testing.assert_allclose(sensitivity[:-1], ours["sensitivity"][::-1])
    at = (0.25, 0.5, 1, 2, 4, 8)
    theirs = compute_froc_score(per_image, sensitivity, eval_thresholds=at)
    assert froc_score(ours, at) == pytest.approx(theirs)
