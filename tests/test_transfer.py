"""From a detector to a segmenter: which masks are used, which weights move, and what the scores count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import DataError, read_volume
from lesionkit.model import ModelConfig
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig, train
from lesionkit.transfer import SegmentationScore, fine_tune, mask_subset, score_segmentation

EASY = SimulationConfig(
    kind="gad", spacing=4.0, min_size=8, lesions=(8.0, 0.2), contrast=(25, 30), lookalikes=0.0, clustered=0.0,
    confluent=0.0,
)  # fmt: skip
TINY = TrainConfig(
    model=ModelConfig(levels=2, filters=8, dropout=0.05), patch=(16, 16, 16), window=24, steps=80, validate_every=80,
    learning_rate=5e-3, lesion_share=0.8, workers=0, max_distance_mm=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(EASY, 10, tmp_path_factory.mktemp("cohort"), seed=1)


@pytest.fixture(scope="module")
def detector(cohort, tmp_path_factory):
    return load_checkpoint(train(cohort, tmp_path_factory.mktemp("run"), TINY, progress=False))


def test_subsets_are_nested_and_leave_other_splits_alone(cohort):
    sizes = {}
    for fraction in (0.01, 0.5, 1.0):
        subset = mask_subset(cohort, fraction, seed=3)
        sizes[fraction] = {case.subject for case in subset.split("train")}
        for split in ("validation", "test"):
            assert subset.split(split) == cohort.split(split)
    assert [len(s) for s in sizes.values()] == [1, 3, 6]
    assert sizes[0.01] < sizes[0.5] < sizes[1.0]
    others = {tuple(c.subject for c in mask_subset(cohort, 0.5, seed=n).split("train")) for n in range(6)}
    assert len(others) > 1
    for fraction in (0.0, 1.1):
        with pytest.raises(ValueError, match="fraction"):
            mask_subset(cohort, fraction, seed=0)
    with pytest.raises(ValueError, match="no training case"):
        mask_subset(replace(cohort, cases=tuple(cohort.split("test"))), 0.5, seed=0)


def test_masks_are_drawn_for_patients_who_have_a_lesion(cohort, tmp_path):
    empty = tmp_path / "none.tsv"
    empty.write_text("x\ty\tz\n", encoding="utf-8")
    ill = cohort.split("train")[-1].subject
    cases = tuple(c if c.subject == ill else replace(c, points=empty) for c in cohort)
    for seed in range(4):
        assert [c.subject for c in mask_subset(replace(cohort, cases=cases), 0.5, seed=seed).split("train")] == [ill]
    healthy = replace(cohort, cases=tuple(replace(c, points=empty) for c in cohort))
    with pytest.raises(ValueError, match="no training case with a lesion"):
        mask_subset(healthy, 0.5, seed=0)


def test_a_detector_becomes_a_segmenter_with_its_encoder_untouched(cohort, detector, tmp_path):
    few = mask_subset(cohort, 0.2, seed=0)
    settings = replace(TINY, frozen="encoder")
    network = load_checkpoint(fine_tune(few, tmp_path / "a", settings, detector=detector, progress=False))
    assert network.card.label == "segmentation"
    before, after = detector.model.state_dict(), network.model.state_dict()
    for name, weight in before.items():
        same = torch.allclose(weight, after[name], atol=1e-3)  # both are stored in half precision
        assert same == name.startswith("encoder."), name
    score = score_segmentation(network, cohort)
    assert 0.3 < score.dice <= 1
    assert len(score.detections) == len(cohort.split("test")) == len(score.subjects)
    truth = [int((read_volume(case.mask).data > 0).sum()) for case in cohort.split("test")]
    assert score.true.tolist() == truth
    assert (score.overlap <= np.minimum(score.true, score.predicted)).all()
    strict = replace(network, card=replace(network.card, threshold=0.99))  # of the detection, not of the outline
    assert score_segmentation(strict, cohort).predicted.tolist() == score.predicted.tolist()


def test_everything_moves_unless_it_is_frozen(cohort, detector, tmp_path):
    settings = replace(TINY, steps=20)
    network = load_checkpoint(fine_tune(cohort, tmp_path / "b", settings, detector=detector, progress=False))
    before, after = detector.model.state_dict(), network.model.state_dict()
    assert not torch.allclose(before["encoder.0.0.weight"], after["encoder.0.0.weight"], atol=1e-3)
    assert not torch.allclose(before["head.weight"], after["head.weight"], atol=1e-3)


def test_dice_counted_by_hand():
    score = SegmentationScore(
        subjects=("a", "b", "c"), overlap=np.array([5, 0, 0]), predicted=np.array([10, 0, 4]),
        true=np.array([10, 0, 0]), detections=(),
    )  # fmt: skip
    assert score.dice == pytest.approx(10 / 24)
    assert score.patient_dice == pytest.approx((0.5 + 0) / 2)


def test_what_cannot_be_is_refused(cohort, detector, tmp_path):
    with pytest.raises(ValueError, match="no detector to start from"):
        fine_tune(cohort, tmp_path, replace(TINY, frozen="encoder"), progress=False)
    with pytest.raises(ValueError, match="predicts 'heatmap'"):
        score_segmentation(detector, cohort)
    with pytest.raises(DataError, match="has channels FLAIR"):
        fine_tune(replace(cohort, channels=("FLAIR",)), tmp_path, TINY, detector=detector, progress=False)
    with pytest.raises(ValueError, match="frozen must be"):
        replace(TINY, frozen="head")
