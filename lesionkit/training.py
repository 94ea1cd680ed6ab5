"""Train the heatmap regressor on a cohort with points (paper, sections 3.1 and 4.1).

In: a cohort on disk and a `TrainConfig`. Out: the best checkpoint by validation, with the threshold chosen there.

Each training sample is a pure function of `(seed, index)`: which case, which patch, which transform. Runs are
repeatable, and a resumed run sees the samples it would have seen.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lesionkit
from lesionkit.augment import AugmentConfig, apply_transform, draw_transform
from lesionkit.checkpoints import Card, save_checkpoint
from lesionkit.detection import detect
from lesionkit.inference import fast_bf16, fit_config, predict_array
from lesionkit.io import Case, Cohort, DataError, read_points, read_volume
from lesionkit.labels import gaussian_heatmap
from lesionkit.metrics import CasePoints, ScoreTable, choose_threshold, precision_recall, score_points
from lesionkit.model import ModelConfig, UNet
from lesionkit.preprocessing import prepare

Preset = Literal["cpu", "gad", "flair", "paper"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape of the network; its channels are set by the cohort."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random transforms."""
    sigma: float = 1.25
    """Standard deviation of the label, voxels (paper: 1.0, 1.25, 1.5)."""
    patch: tuple[int, int, int] = (40, 40, 40)
    """Shape of a training patch, voxels (paper: whole volumes of 64 x 192 x 192)."""
    batch_size: int = 4
    """Patches a step."""
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
    validate_every: int = 500
    """Steps between two validations."""
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
    workers: int = 1
    """Processes that prepare the patches."""
    seed: int = 0
    """Of the weights, the samples and the dropout."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("batch_size", "steps", "validate_every", "validation_cases", "threshold_cases", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("sigma", "learning_rate", "gradient_clip", "max_distance_mm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.lesion_share <= 1:
            raise ValueError(f"lesion_share must be in [0, 1], got {self.lesion_share}")
        if self.steps < self.validate_every:
            object.__setattr__(self, "validate_every", self.steps)

    @classmethod
    def preset(cls, name: Preset) -> TrainConfig:
        """Return named settings.

        `cpu` trains in about 20 minutes on two cores; `gad` and `flair` are the recipes of the shipped checkpoints;
        `paper` has the size of the paper's network and input.
        """
        small = ModelConfig(levels=4, filters=16, max_filters=128, dropout=0.05, activation="exp")
        if name == "cpu":
            return cls(model=small)
        if name == "gad":
            return cls(model=small, steps=4000)
        if name == "flair":
            return cls(
                model=small, steps=4000, sigma=1.5, patch=(48, 48, 48), batch_size=2, window=48, validate_every=1000,
                validation_cases=2, threshold_cases=10,
            )  # fmt: skip
        if name == "paper":
            return cls(sigma=1.0, patch=(192, 192, 64), window=192, steps=20_000, learning_rate=1e-4)
        raise ValueError(f"preset must be 'cpu', 'gad', 'flair' or 'paper', got {name!r}")

    @property
    def peak(self) -> float:
        """Height of a label Gaussian of mass 1; the loss sees labels divided by it, so that they peak near 1."""
        return float((2 * np.pi * self.sigma**2) ** -1.5)


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """One case in memory, ready for the network."""

    subject: str
    split: str
    image: Float[Tensor, "channels i j k"]
    """Normalised, float16 to spare memory."""
    mask: Bool[np.ndarray, "i j k"]
    points: Float[np.ndarray, "n 3"]
    """Voxel indices of the lesions."""
    points_mm: Float[np.ndarray, "n 3"]
    sizes: Float[np.ndarray, " n"]
    """Voxels of each lesion; NaN where the table does not say."""
    spacing: tuple[float, float, float]
    affine: Float[np.ndarray, "4 4"]


def load_case(case: Case) -> LoadedCase:
    """Read and normalise the images of a case, and its points.

    Raises
    ------
    DataError
        If the case has no table of points, or its images do not fit together.
    """
    if case.points is None:
        raise DataError(f"{case.subject}: has no table of points; training and evaluation want one")
    volumes = [read_volume(path) for path in case.images]
    try:
        image, mask = prepare(volumes)
    except ValueError as error:
        raise DataError(f"{case.images[0]}: {error}") from error
    table = read_points(case.points)
    points_mm = table[["x", "y", "z"]].to_numpy(dtype=float)
    sizes = table["size_vox"].to_numpy(dtype=float) if "size_vox" in table else np.full(len(table), np.nan)
    first = volumes[0]
    return LoadedCase(
        case.subject, case.split, torch.from_numpy(image).half(), mask, first.to_voxel(points_mm), points_mm, sizes,
        first.spacing, first.affine,
    )  # fmt: skip


class PatchDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Augmented patches, drawn anew for each index: image, heatmap (peak about 1) and brain mask."""

    def __init__(self, cases: Sequence[LoadedCase], config: TrainConfig, *, start: int, length: int) -> None:
        self.cases, self.config, self.start, self.length = cases, config, start, length
        self.brains = [np.flatnonzero(case.mask) for case in cases]

    def __len__(self) -> int:
        """Return the number of patches."""
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw sample `start + index`; the same every time."""
        config = self.config
        rng = np.random.default_rng([config.seed, self.start + index])
        number = int(rng.integers(len(self.cases)))
        case = self.cases[number]
        size = np.array(config.patch)
        if len(case.points) and rng.random() < config.lesion_share:
            centre = case.points[rng.integers(len(case.points))] + rng.uniform(-0.4, 0.4, 3) * size
        else:
            brain = self.brains[number]
            centre = np.array(np.unravel_index(brain[rng.integers(len(brain))], case.mask.shape)) + rng.uniform(
                -0.5, 0.5, 3
            )
        centre = np.clip(centre, 2, np.array(case.mask.shape) - 3)
        transform = draw_transform(config.augment, case.image.shape[0], rng=rng)
        patch, points = apply_transform(case.image, case.points, transform, centre, config.patch)
        label = gaussian_heatmap(points, config.patch, config.sigma, border="truncate") / np.float32(config.peak)
        return patch, torch.from_numpy(label)[None], (patch[:1] != 0)


class CohortData(pl.LightningDataModule):
    """Training patches and whole validation cases of a cohort."""

    def __init__(self, cohort: Cohort, config: TrainConfig) -> None:
        super().__init__()
        self.cohort, self.config = cohort, config
        self.train_cases: list[LoadedCase] = []
        self.validation_cases: list[LoadedCase] = []

    def setup(self, stage: str | None = None) -> None:
        """Load the training and validation splits into memory."""
        if self.train_cases:
            return
        self.train_cases = [load_case(case) for case in self.cohort.split("train")]
        self.validation_cases = [load_case(case) for case in self.cohort.split("validation")]
        for name, cases in (("train", self.train_cases), ("validation", self.validation_cases)):
            if not any(len(case.points) for case in cases):
                raise DataError(
                    f"{self.cohort.folder}: the {name} split has no lesion; patients with points are wanted"
                )
        first = self.train_cases[0]
        for case in (*self.train_cases, *self.validation_cases):
            if not np.allclose(case.spacing, first.spacing, rtol=0.05):
                raise DataError(
                    f"{self.cohort.folder}: {case.subject} has voxels of {case.spacing} mm and {first.subject} of "
                    f"{first.spacing} mm; one spacing for the whole cohort is wanted"
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the patches of one epoch, that is, of the steps between two validations."""
        config = self.config
        done = self.trainer.global_step if self.trainer is not None else 0
        steps = min(config.validate_every, max(config.steps - done, 1))
        dataset = PatchDataset(
            self.train_cases, config, start=done * config.batch_size, length=steps * config.batch_size
        )
        return DataLoader(dataset, batch_size=config.batch_size, num_workers=config.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return indices of validation cases; the cases are too large to collate."""
        n = min(self.config.validation_cases, len(self.validation_cases))
        return DataLoader(range(n), batch_size=1)  # type: ignore[arg-type]  # a range is a map-style data set


class HeatmapRegressor(pl.LightningModule):
    """The U-Net with the paper's loss: squared error summed over the brain."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.model = UNet(config.model)
        self.found: list[CasePoints] = []
        self.history: list[dict[str, float]] = []
        self.threshold = 0.5

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the loss of a batch, and log it as a ratio to that of predicting nothing."""
        image, label, mask = batch
        output = self.model(image)
        loss = (mask * (output - label) ** 2).sum() / len(image)
        nothing = (mask * label**2).sum() / len(image)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {float(loss)} at step {self.global_step}")
        self.log_dict({"loss": loss, "loss_of_nothing": nothing}, on_step=False, on_epoch=True)
        return cast(Tensor, loss)

    def validation_step(self, index: Tensor, batch_index: int) -> None:
        """Detect the lesions of one whole validation case."""
        data = cast(CohortData, self.trainer.datamodule)  # type: ignore[attr-defined]
        case = data.validation_cases[int(index[0])]
        self.found.append(detect_case(self.model, case, self.config, device=str(self.device)))

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold and log the scores at it."""
        found, self.found = self.found, []
        self.threshold = _best_threshold(found, self.config)
        pooled = score_points(found, self.threshold, max_distance=self.config.max_distance_mm).pooled
        rates = {"f1": pooled.f1, "precision": pooled.precision, "recall": pooled.recall}
        scores = {f"val_{name}": float(np.nan_to_num(rate)) for name, rate in rates.items()} | {
            "val_threshold": self.threshold
        }
        self.log_dict(scores)
        if not self.trainer.sanity_checking:
            self.history.append({"step": float(self.global_step), **scores})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history, so that a resumed run has all of it."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the history."""
        self.history = list(checkpoint.get("history", []))

    def on_train_epoch_end(self) -> None:
        """Say in one line how it stands."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if "loss" not in metrics:  # a resumed run closes the epoch that it stopped in
            return
        ratio = metrics.get("loss", np.nan) / max(metrics.get("loss_of_nothing", np.nan), 1e-6)
        f1 = metrics.get("val_f1", np.nan)
        self.print(
            f"step {self.global_step:6d}  loss/nothing {ratio:.3f}  "
            f"validation F1 {f1:.3f}  threshold {self.threshold:.3f}"
        )

    def configure_optimizers(self) -> Any:
        """Return Adam with a one-cycle schedule."""
        config = self.config
        optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, config.steps, pct_start=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _best_threshold(found: Sequence[CasePoints], config: TrainConfig) -> float:
    """Choose the threshold on validation cases; 1/2 for a network that has not found a single lesion yet."""
    hits = precision_recall(found, max_distance=config.max_distance_mm)["tp"].any()
    return choose_threshold(found, max_distance=config.max_distance_mm) if hits else 0.5


def detect_case(model: UNet, case: LoadedCase, config: TrainConfig, *, device: str = "cpu") -> CasePoints:
    """Predict and detect, without a threshold: what `choose_threshold` and the scores start from."""
    heatmap = predict_array(model, case.image, case.mask, window=config.window, device=device)
    found = detect(heatmap * np.float32(config.peak), fit_config(config.sigma))
    return CasePoints(
        predicted=found.mu @ case.affine[:3, :3].T + case.affine[:3, 3],
        score=found.alpha,
        true=case.points_mm,
        sizes=case.sizes,
        subject=case.subject,
        split=case.split,
    )


def train(
    cohort: Cohort,
    folder: str | Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train on the cohort's training split and keep the best network by validation F1.

    Parameters
    ----------
    cohort : Cohort
        With training and validation splits.
    folder : path
        Receives `model.safetensors` (the best), `history.csv` and the working checkpoints.
    config : TrainConfig, optional
        Default: the `cpu` preset. The network's channels are set to the cohort's.
    resume : bool
        Go on from the last completed validation in `folder`, if there is one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        Of the checkpoint.

    Raises
    ------
    DataError
        If the cohort has no usable training or validation case.
    """
    config = config or TrainConfig.preset("cpu")
    config = replace(config, model=replace(config.model, channels=len(cohort.channels)))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(config.seed, verbose=False)
    data, module = CohortData(cohort, config), HeatmapRegressor(config)
    data.setup()
    working = folder / "working"
    best = ModelCheckpoint(working, monitor="val_f1", mode="max", filename="best", enable_version_counter=False)
    last = ModelCheckpoint(working, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    accelerator = "auto" if torch.cuda.is_available() else "cpu"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # within Lightning
        # A resumed run first closes the epoch that it stopped in, without a validation of its own.
        warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices found, tips
        trainer = pl.Trainer(
            accelerator=accelerator,
            max_epochs=-1,  # steps count
            max_steps=config.steps,
            precision="bf16-mixed" if accelerator == "auto" or fast_bf16() else "32-true",
            gradient_clip_val=config.gradient_clip,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            callbacks=[best, last, *([RichProgressBar()] if progress else [])],
            logger=CSVLogger(str(folder), name="log"),
            log_every_n_steps=config.validate_every,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        stopped = working / "last.ckpt"
        trainer.fit(module, data, ckpt_path=str(stopped) if resume and stopped.is_file() else None)
    pd.DataFrame(module.history).to_csv(folder / "history.csv", index=False)
    return _export(module, data, working, folder)


def _export(module: HeatmapRegressor, data: CohortData, working: Path, folder: Path) -> Path:
    """Keep the better of the best and the last weights, by F1 on many validation cases, in the one-file checkpoint."""
    config = module.config
    model, cases = module.model.cpu(), data.validation_cases[: config.threshold_cases]
    tried: list[tuple[float, int, float, ScoreTable, dict[str, Tensor]]] = []
    for name in ("best.ckpt", "last.ckpt"):
        stored = torch.load(working / name, map_location="cpu", weights_only=True)
        if tried and stored["global_step"] == tried[0][1]:
            continue
        module.load_state_dict(stored["state_dict"])
        found = [detect_case(model.eval(), case, config) for case in cases]
        threshold = _best_threshold(found, config)
        table = score_points(found, threshold, max_distance=config.max_distance_mm)
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        tried.append((float(np.nan_to_num(table.pooled.f1)), int(stored["global_step"]), threshold, table, weights))
    _, step, threshold, scores, weights = max(tried, key=lambda row: row[:2])
    model.load_state_dict(weights)
    first = data.train_cases[0]
    card = Card(
        kind=data.cohort.kind,
        channels=tuple(data.cohort.channels),
        spacing=first.spacing,
        sigma=config.sigma,
        threshold=round(threshold, 4),
        scale=config.peak,
        window=config.window,
        version=lesionkit.__version__,
        training={
            "config": asdict(config),
            "cohort": {
                "name": data.cohort.folder.name,
                "train": len(data.train_cases),
                "val": len(found),
                **data.cohort.extra,
            },
            "step": step,
            "validation": {
                "f1": scores.pooled.f1,
                "precision": scores.pooled.precision,
                "recall": scores.pooled.recall,
            },
        },
    )
    path = folder / "model.safetensors"
    save_checkpoint(path, model, card)
    return path
