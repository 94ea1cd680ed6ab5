"""Settings of a training, the choice of label among them, and the named recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from lesionkit.augment import AugmentConfig
from lesionkit.labels import per_axis
from lesionkit.model import ModelConfig
from lesionkit.placement import Placement

LabelKind = Literal["heatmap", "euclidean", "geodesic", "segmentation"]
"""What a network learns to predict: the paper's Gaussian heatmap, or one of the labels that it is compared with."""

Preset = Literal["cpu", "gad", "flair", "paper"]

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Of Lightning's precisions those in which the weights stay float32, as the checkpoints and validations want them."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the network; its channels are set by the cohort, and a segmentation always ends in a sigmoid."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random transforms."""
    label: LabelKind = "heatmap"
    """What the network learns (paper, table 1). Lesions are taken from a heatmap by fit and subtract, from the others
    by connected components."""
    sigma: float | tuple[float, float, float] = 1.25
    """Standard deviation of the heatmap's Gaussians, voxels (paper: 1.0, 1.25, 1.5); one number, or one an axis."""
    radius: float = 6.0
    """Distance at which a distance map reaches 0, voxels."""
    decay: float = 3.0
    """Exponent of a distance map (the paper's `p`)."""
    contrast: float = 1.0
    """Voxels of way that one unit of normalised intensity is worth in a geodesic map."""
    positive_weight: float = 3.0
    """Weight of a lesion's voxel in the cross-entropy of a segmentation (paper's configuration: 3)."""
    placement: Placement = "mass"
    """Where the training points lie: in the table's place (centres of mass), or on a random voxel of each lesion."""
    jitter_mm: float = 0.0
    """Standard deviation of an error of the training points along each axis, mm; drawn once, as a click is."""
    patch: tuple[int, int, int] = (40, 40, 40)
    """Shape of a training patch, voxels (paper: whole volumes of 64 x 192 x 192)."""
    batch_size: int = 4
    """Patches a step, on all devices together."""
    steps: int = 3000
    """Optimiser steps."""
    learning_rate: float = 1.5e-3
    """Highest rate of the one-cycle schedule."""
    weight_decay: float = 1e-5
    """L2 penalty in Adam."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    lesion_share: float = 0.7
    """Share of patches that hold a given lesion; the others lie anywhere in the brain."""
    uniform_last: float = 0.0
    """Share of the steps, at the end, in which all patches lie anywhere in the brain: a network that sees lesions more
    often than there are some learns to expect them, and its alphas are too high."""
    shares: tuple[tuple[str, float], ...] = ()
    """Relative number of patches from each data set (column `dataset` of `participants.tsv`). Empty: each alike."""
    confluent_mm3: float | None = None
    """Lesions larger than this have no centre worth a point: where the case has a mask, they are left out of points and
    loss in training. None: all are taken."""
    average: float = 0.0
    """Decay of a running average of the weights, which is what is validated and kept; 0: the weights themselves."""
    validate_every: int = 500
    """Steps between two validations."""
    patience: int = 0
    """Stop after so many validations without a better F1; 0: never. The schedule of the learning rate is that of all
    `steps`, so that a training that stops early never reaches its low end."""
    validation_cases: int = 16
    """Most cases of the validation split that a validation during training looks at."""
    threshold_cases: int = 40
    """Most cases of the validation split on which the threshold is chosen at the end."""
    max_distance_mm: float = 6.0
    """Gate of the matching, mm."""
    window: int = 40
    """Edge of the windows when predicting, voxels. Instance norm takes its statistics from what it sees, so
    windows of the size of the patches predict best (a trial with equal weights: F1 0.59 with windows of 40, 0.49 with
    96)."""
    frozen: Literal["nothing", "encoder"] = "nothing"
    """Weights that stay as they start: a detector may learn to segment by decoder and head alone (paper's code),
    or as a whole."""
    workers: int = 1
    """Processes that prepare the patches."""
    seed: int = 0
    """Of the weights, the samples and the dropout."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.label not in get_args(LabelKind):
            raise ValueError(f"label must be one of {', '.join(get_args(LabelKind))}, got {self.label!r}")
        if self.placement not in get_args(Placement):
            raise ValueError(f"placement must be one of {', '.join(get_args(Placement))}, got {self.placement!r}")
        if self.frozen not in ("nothing", "encoder"):
            raise ValueError(f"frozen must be 'nothing' or 'encoder', got {self.frozen!r}")
        for name in ("batch_size", "steps", "validate_every", "validation_cases", "threshold_cases", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        per_axis(self.sigma, 3)  # checks it
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be in [0, 1), got {self.average}")
        if not 0 <= self.uniform_last <= 1:
            raise ValueError(f"uniform_last must be in [0, 1], got {self.uniform_last}")
        if self.confluent_mm3 is not None and not self.confluent_mm3 > 0:
            raise ValueError(f"confluent_mm3 must be positive, got {self.confluent_mm3}")
        if any(not share > 0 for _, share in self.shares):
            raise ValueError(f"shares must be positive, got {self.shares}")
        positive = ("radius", "decay", "positive_weight", "learning_rate", "gradient_clip", "max_distance_mm")
        for name in positive:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("contrast", "jitter_mm", "weight_decay", "workers", "seed", "patience"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.lesion_share <= 1:
            raise ValueError(f"lesion_share must be in [0, 1], got {self.lesion_share}")
        if self.steps < self.validate_every:
            object.__setattr__(self, "validate_every", self.steps)
        if self.label == "segmentation" and self.model.activation != "sigmoid":
            object.__setattr__(self, "model", replace(self.model, activation="sigmoid"))

    @classmethod
    def preset(cls, name: Preset) -> TrainConfig:
        """Return named settings.

        `cpu` trains in about 20 minutes on two cores; `gad` and `flair` are the recipes of the shipped checkpoints;
        `paper` has the size of the paper's network and input.
        """
        small = ModelConfig(levels=4, filters=16, max_filters=128, dropout=0.05, activation="exp")
        if name == "cpu":
            # Many small patches show more lesions for the same work: after 600 steps of about as many voxels validation
            # F1 was 0.68 with 2 patches of 40^3, 0.70 with 4 of 32^3, 0.76 with 8 of 24^3, 0.81 with 24 of 16^3.
            return cls(
                model=replace(small, levels=3, activation="softplus"), patch=(16, 16, 16), batch_size=24, window=16
            )
        if name == "gad":
            return cls(model=small, steps=8000, validate_every=1000, validation_cases=24, threshold_cases=120)
        if name == "flair":
            return cls(
                model=ModelConfig(levels=4, stem=2, max_filters=192, dropout=0.05, activation="softplus"),
                augment=AugmentConfig(
                    rotation=15.0, scale=(0.8, 1.2), intensity=0.25, thick_share=0.35, bias=0.1, gamma=0.15, noise=0.3
                ),
                sigma=2.0, patch=(64, 64, 64), batch_size=1, steps=14_000, learning_rate=2e-3, gradient_clip=64.0,
                lesion_share=0.6, uniform_last=0.15, confluent_mm3=5000.0, average=0.999,
                window=64, validate_every=2500, validation_cases=6, threshold_cases=20,
            )  # fmt: skip
        if name == "paper":
            return cls(sigma=1.0, patch=(192, 192, 64), window=192, steps=20_000, learning_rate=1e-4)
        raise ValueError(f"preset must be 'cpu', 'gad', 'flair' or 'paper', got {name!r}")

    @property
    def peak(self) -> float:
        """What the network's output is multiplied by to get the map: labels are scaled to peak near 1 for the loss.

        For a heatmap the height of a Gaussian of mass 1; the other labels peak at 1 as they are.
        """
        return float(np.prod((2 * np.pi * per_axis(self.sigma, 3) ** 2) ** -0.5)) if self.label == "heatmap" else 1.0
