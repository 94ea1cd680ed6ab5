"""From a point detector to a segmenter with few masks (paper, section 3.3, tables 2 and 4).

In: a trained detector (or none: from scratch) and a cohort of which a share of the training masks may be used. Out: a
segmentation network, and how well it outlines and finds lesions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from lesionkit.checkpoints import Checkpoint
from lesionkit.components import ComponentConfig, detect_components
from lesionkit.inference import predict_array
from lesionkit.io import Case, Cohort, DataError, read_points, read_volume
from lesionkit.metrics import CasePoints
from lesionkit.training import TrainConfig, load_case, train
from lesionkit.training.decoding import case_points

INSIDE = 0.5
"""Probability from which on a voxel belongs to a lesion. The threshold of the best detection F1 serves another end: it
may be so high, where few masks were seen, that it cuts away most of each lesion."""


def mask_subset(cohort: Cohort, fraction: float, *, seed: int) -> Cohort:
    """Keep a random share of the training cases: those whose masks have been drawn.

    Parameters
    ----------
    cohort : Cohort
        With a training split.
    fraction : float
        Share of the training cases, above 0 and at most 1 (paper: 0.01, 0.05, 0.1).
    seed : int
        Of the draw. For one seed, a smaller share is part of a larger one.

    Returns
    -------
    Cohort
        At least one training case, each with a lesion, as an empty mask teaches no outline; all cases of the other
        splits. With `fraction` 1 the cohort as it is.

    Raises
    ------
    ValueError
        If `fraction` is out of range, or there is no training case, or none with a lesion.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    cases = cohort.split("train")
    if not cases:
        raise ValueError(f"cohort {cohort.folder.name} has no training case; at least one is wanted")
    if fraction == 1:
        return cohort
    order = np.random.default_rng([seed, 77]).permutation(len(cases))
    with_lesion = (cases[n].subject for n in order if _has_lesion(cases[n]))
    kept = set(islice(with_lesion, max(1, round(fraction * len(cases)))))
    if not kept:
        raise ValueError(f"cohort {cohort.folder.name} has no training case with a lesion; at least one is wanted")
    return replace(cohort, cases=tuple(c for c in cohort.cases if c.split != "train" or c.subject in kept))


def _has_lesion(case: Case) -> bool:
    if case.points is not None:
        return len(read_points(case.points)) > 0
    return case.mask is not None and bool((read_volume(case.mask).data > 0).any())


def fine_tune(
    cohort: Cohort,
    folder: str | Path,
    config: TrainConfig,
    *,
    detector: Checkpoint | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train a segmentation network, from a detector's weights or from scratch.

    Parameters
    ----------
    cohort : Cohort
        Its training cases need lesion masks (see :func:`mask_subset`).
    folder : path
        As in :func:`lesionkit.training.train`.
    config : TrainConfig
        Steps, rate, patches and so on; ``frozen="encoder"`` trains decoder and head alone. The label becomes
        ``"segmentation"``, the network's shape the detector's.
    detector : Checkpoint, optional
        What to start from; None: from scratch.
    resume, progress
        As in :func:`lesionkit.training.train`.

    Returns
    -------
    Path
        Of the segmentation network's checkpoint.

    Raises
    ------
    ValueError
        If the encoder is to be frozen without a detector: it would stay random.
    DataError
        If the cohort has other channels than the detector, or a training case has no mask.
    """
    if detector is None:
        if config.frozen != "nothing":
            raise ValueError("frozen is 'encoder' but there is no detector to start from; 'nothing' is wanted")
        return train(cohort, folder, replace(config, label="segmentation"), resume=resume, progress=progress)
    if detector.card.channels != cohort.channels:
        raise DataError(
            f"{cohort.folder}: has channels {', '.join(cohort.channels)}; checkpoint {detector.name} wants "
            f"{', '.join(detector.card.channels)}"
        )
    settings = replace(config, label="segmentation", model=detector.model.config)
    weights = detector.model.state_dict()
    return train(cohort, folder, settings, resume=resume, progress=progress, weights=weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationScore:
    """How well lesions are outlined and found."""

    subjects: tuple[str, ...]
    """Names of the patients."""
    overlap: Int[np.ndarray, " cases"]
    """Voxels of each patient that are lesion in truth and prediction."""
    predicted: Int[np.ndarray, " cases"]
    """Voxels that are predicted."""
    true: Int[np.ndarray, " cases"]
    """Voxels that are lesion."""
    detections: tuple[CasePoints, ...]
    """Lesions of each patient: connected components of the probabilities from the network's own threshold on."""

    @property
    def dice(self) -> float:
        """Voxel-wise F1 of all patients together (the paper's segmentation F1); NaN where there is no lesion voxel."""
        total = int(self.predicted.sum() + self.true.sum())
        return 2 * int(self.overlap.sum()) / total if total else math.nan

    @property
    def patient_dice(self) -> float:
        """Mean Dice of the patients with any lesion voxel, true or predicted; NaN where there is none."""
        total = self.predicted + self.true
        return float(np.mean(2 * self.overlap[total > 0] / total[total > 0])) if total.any() else math.nan


def score_segmentation(
    checkpoint: Checkpoint,
    cohort: Cohort,
    *,
    split: str = "test",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> SegmentationScore:
    """Segment the cases of a split, and detect their lesions at the network's threshold, chosen on validation cases.

    Parameters
    ----------
    checkpoint : Checkpoint
        A segmentation network.
    cohort : Cohort
        With lesion masks in the split.
    split : str
        The split that is scored.
    device : str
        A torch device.
    progress : callable, optional
        Called with the number of cases done and of all.

    Returns
    -------
    SegmentationScore

    Raises
    ------
    ValueError
        If the network does not segment.
    DataError
        If the split is empty or a case has no mask.
    """
    card = checkpoint.card
    if card.label != "segmentation":
        raise ValueError(f"checkpoint {checkpoint.name} predicts {card.label!r}; a segmentation network is wanted")
    cases = cohort.split(split)
    if not cases:
        raise DataError(f"{cohort.folder}: the {split} split has no case")
    counts: list[tuple[int, int, int]] = []
    found: list[CasePoints] = []
    for done, entry in enumerate(cases, start=1):
        case = load_case(entry, with_mask=True)
        probability = predict_array(checkpoint.model, case.image, case.mask, window=card.window, device=device)
        assert case.lesions is not None
        counts.append(_overlap(probability >= INSIDE, case.lesions.numpy()))
        parts = detect_components(probability, ComponentConfig.for_label("segmentation", card.threshold))
        found.append(case_points(case, parts.points, parts.score))
        if progress is not None:
            progress(done, len(cases))
    overlap, predicted, true = np.array(counts, dtype=np.int64).T
    return SegmentationScore(
        subjects=tuple(case.subject for case in cases), overlap=overlap, predicted=predicted, true=true,
        detections=tuple(found),
    )  # fmt: skip


def _overlap(predicted: Bool[np.ndarray, "i j k"], true: Bool[np.ndarray, "i j k"]) -> tuple[int, int, int]:
    return int((predicted & true).sum()), int(predicted.sum()), int(true.sum())
