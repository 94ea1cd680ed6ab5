"""Train a network on a cohort with points or masks (paper, sections 3.1 and 4.1).

In: a cohort on disk and a `TrainConfig`. Out: the best checkpoint by validation, with the threshold chosen there.

Each training sample is a pure function of `(seed, index)`: which case, which patch, which transform; what dropout drops
is one of `(seed, step, process)`. Runs are repeatable, and a resumed run ends with the weights it would have had.
"""

from __future__ import annotations

from lesionkit.training.config import LabelKind, Preset, TrainConfig
from lesionkit.training.data import CohortData, LoadedCase, PatchDataset, load_case
from lesionkit.training.decoding import detect_case, operating_point
from lesionkit.training.finetune import finetuning_config, sigma_in_voxels
from lesionkit.training.regressor import HeatmapRegressor
from lesionkit.training.run import train

__all__ = [
    "CohortData",
    "HeatmapRegressor",
    "LabelKind",
    "LoadedCase",
    "PatchDataset",
    "Preset",
    "TrainConfig",
    "detect_case",
    "finetuning_config",
    "load_case",
    "operating_point",
    "sigma_in_voxels",
    "train",
]
