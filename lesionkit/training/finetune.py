"""Go on from a trained network on other data, and give sigma in mm on anisotropic voxels.

In: a checkpoint, a cohort and settings. Out: the settings with which `train` fine-tunes the checkpoint.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import numpy as np

from lesionkit.checkpoints import Checkpoint
from lesionkit.io import Cohort, DataError, read_volume
from lesionkit.training.config import LabelKind, TrainConfig

LEARNING_RATE = 3e-4
"""Highest rate when fine-tuning: a fifth of that of a training, so that what was learned is not overwritten."""

_TAKEN_OVER = ("patch", "batch_size", "radius", "decay", "contrast")


def finetuning_config(checkpoint: Checkpoint, cohort: Cohort, config: TrainConfig) -> TrainConfig:
    """Return settings that fit a checkpoint: its network, label, sigma, patches and windows, and a low learning rate.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where to go on from; hand `checkpoint.model.state_dict()` to `train` as its weights.
    cohort : Cohort
        Of the checkpoint's channels and spacing; `lesionkit.importing` makes one.
    config : TrainConfig
        Gives the rest: steps, augmentation, seed.

    Raises
    ------
    DataError
        If the cohort has other channels or another spacing than the checkpoint.
    ValueError
        If another label is asked for.
    """
    card = checkpoint.card
    if config.label not in ("heatmap", card.label):
        raise ValueError(f"label is {config.label!r}; {checkpoint.name} was trained on {card.label!r}, which is wanted")
    mend = "import the images again with --like and this checkpoint"
    if cohort.channels != card.channels:
        raise DataError(
            f"{cohort.folder}: has channels {', '.join(cohort.channels)}; checkpoint {checkpoint.name} wants "
            f"{', '.join(card.channels)}: {mend}"
        )
    spacing = cohort_spacing(cohort)
    if not np.allclose(spacing, card.spacing, rtol=0.05):
        raise DataError(
            f"{cohort.folder}: has voxels of {_by(spacing)} mm; checkpoint {checkpoint.name} wants {_by(card.spacing)} "
            f"mm: {mend}"
        )
    known = {field.name for field in fields(TrainConfig)}
    before = card.training.get("config", {})
    taken: dict[str, Any] = {name: before[name] for name in _TAKEN_OVER if name in before and name in known}
    if "patch" in taken:
        taken["patch"] = tuple(taken["patch"])
    return replace(
        config, model=checkpoint.model.config, label=cast(LabelKind, card.label), sigma=card.sigma, window=card.window,
        learning_rate=min(config.learning_rate, LEARNING_RATE), **taken,
    )  # fmt: skip


def sigma_in_voxels(cohort: Cohort, sigma_mm: float) -> tuple[float, float, float]:
    """Return one sigma an axis, in voxels of the cohort, for a Gaussian that is round in mm.

    Raises
    ------
    ValueError
        If `sigma_mm` is not positive.
    DataError
        If the cohort has no case.
    """
    if not (np.isfinite(sigma_mm) and sigma_mm > 0):
        raise ValueError(f"sigma_mm is {sigma_mm}; a positive number (mm) is wanted")
    i, j, k = (sigma_mm / length for length in cohort_spacing(cohort))
    return i, j, k


def cohort_spacing(cohort: Cohort) -> tuple[float, float, float]:
    """Return the spacing of the first image of a cohort, mm, axes in RAS+."""
    if not len(cohort):
        raise DataError(f"{cohort.folder}: has no patient; one at least is wanted")
    return read_volume(cohort[0].images[0]).spacing


def _by(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{length:.3g}" for length in spacing)
