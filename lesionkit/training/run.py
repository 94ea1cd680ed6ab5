"""Train on a cohort, keep the best network, and write it as one file.

In: a cohort on disk and a `TrainConfig`. Out: the best checkpoint by validation, with the threshold chosen there.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor

import lesionkit
from lesionkit.checkpoints import Card, load_state, save_checkpoint
from lesionkit.inference import fast_bf16
from lesionkit.io import Cohort, atomic_path
from lesionkit.preprocessing import PREPROCESSING
from lesionkit.training.config import Precision, TrainConfig
from lesionkit.training.data import CohortData
from lesionkit.training.decoding import OperatingPoint, detect_case, operating_point
from lesionkit.training.folder import check_main_guard, claim, interrupted, is_over, origin
from lesionkit.training.progress import StepBar
from lesionkit.training.regressor import HeatmapRegressor
from lesionkit.training.watch import AtomicCheckpointIO, BackgroundWatch, CtrlC, Filmstrip

LOG_EVERY = 10
"""Steps between two entries of the loss of a batch in the logs."""


def train(
    cohort: Cohort,
    folder: str | Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    weights: Mapping[str, Tensor] | None = None,
    keep_start: bool = False,
    watchers: Sequence[pl.Callback] = (),
    devices: int = 1,
    num_nodes: int = 1,
    precision: str | None = None,
) -> Path:
    """Train on the cohort's training split and keep the best network by validation F1.

    Parameters
    ----------
    cohort : Cohort
        With training and validation splits.
    folder : path
        Receives `model.safetensors` (the best), `history.csv` (a row a validation), `filmstrip.png` (the predicted
        map of one validation case after each), `log/` (for CSV and, where it is installed, TensorBoard) and
        `working/`, the checkpoints to resume from.
    config : TrainConfig, optional
        Default: the `cpu` preset. The network's channels are set to the cohort's.
    resume : bool
        Go on from the last completed validation in `folder`, if there is one; what is finished stays as it is. Without
        it the checkpoints of an earlier training there are dropped, and its `model.safetensors` is replaced at the end.
    progress : bool
        Show a progress bar.
    weights : mapping of str to Tensor, optional
        What the network starts from, such as those of a detector that is to become a segmenter (paper, section 3.3).
    keep_start : bool
        Keep `weights` themselves if nothing better comes of them (step 0 in the checkpoint's card).
    watchers : sequence of Callback
        Lightning's callbacks that look on, called after our own, so that the film strip is there.
    devices, num_nodes : int
        GPUs (or processes where there is none) of a machine, and machines, that share each batch. Lightning starts the
        processes of a machine by running the command again; on several machines, start it on each, as Lightning's page
        on clusters says.
    precision : {"32-true", "bf16-mixed", "16-mixed"}, optional
        Default: bfloat16 on a GPU and where the CPU multiplies it natively.

    Returns
    -------
    Path
        Of the checkpoint.

    Raises
    ------
    DataError
        If the cohort has no usable training or validation case, `folder` cannot be written, or what is to be resumed
        cannot be read or has other settings or patients.
    FloatingPointError
        If the loss is no number; the message names the cases of the batch.
    """
    config = config or TrainConfig.preset("cpu")
    config = replace(config, model=replace(config.model, channels=len(cohort.channels)))
    world = devices * num_nodes
    if config.batch_size % world:
        raise ValueError(
            f"batch_size must be a multiple of the {world} processes that share it, got {config.batch_size}"
        )
    if precision not in (None, *get_args(Precision)):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if config.workers:
        check_main_guard()
    pl.seed_everything(config.seed, verbose=False)
    module = HeatmapRegressor(config)
    if weights is not None:
        module.model.load_state_dict(dict(weights))
    folder = Path(folder)
    path, last = folder / "model.safetensors", folder / "working" / "last.ckpt"
    ctrl_c = CtrlC()
    with _quiet():
        trainer = _trainer(
            config, folder, [ctrl_c, *watchers], progress=progress, devices=devices, num_nodes=num_nodes,
            precision=precision,
        )  # fmt: skip
        data = CohortData(cohort, config, scratch=folder / "working" / f"cases_{trainer.global_rank}")
        data.setup()  # before anything is written: the cohort may be unusable
        if min(config.validation_cases, len(data.validation_cases)) < world:
            raise ValueError(f"devices * num_nodes is {world}, more than there are validation cases to share")
        state = interrupted(folder, data.settings) if resume else None
        over = state is not None and is_over(state, config)
        if over and path.is_file() and path.stat().st_mtime >= last.stat().st_mtime:
            return path
        for place in (folder, folder / "working"):  # Lightning had nothing to say against the settings
            claim(place)
        if state is None and trainer.is_global_zero:
            if resume:
                print(f"{folder}: has no checkpoint to go on from, so the training begins")
            for name in ("best.ckpt", "last.ckpt"):  # of an earlier training, which a resumed one would go on with
                (folder / "working" / name).unlink(missing_ok=True)
        try:
            with ctrl_c:
                if not over:
                    trainer.fit(module, data, ckpt_path=None if state is None else str(last))
                ctrl_c.check()
        except BaseException as error:
            ctrl_c.check()  # whatever else went wrong on the way
            raise origin(error, folder) from error
    if state is not None and over:
        module.on_load_checkpoint(state)
    if trainer.is_global_zero:
        with atomic_path(folder / "history.csv") as temporary:
            pd.DataFrame(module.history).to_csv(temporary, index=False)
        _export(module, data, last.parent, path, start=weights if keep_start else None)
    data.close()
    trainer.strategy.barrier("exported")  # the others must not leave, nor look for the file, before it is there
    return path


def _trainer(
    config: TrainConfig,
    folder: Path,
    watchers: Sequence[pl.Callback],
    *,
    progress: bool,
    devices: int,
    num_nodes: int,
    precision: str | None,
) -> pl.Trainer:
    """Return Lightning's trainer, with our own callbacks before those that look on."""
    working = folder / "working"
    best = ModelCheckpoint(working, monitor="val_f1", mode="max", filename="best", enable_version_counter=False)
    last = ModelCheckpoint(working, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks: list[pl.Callback] = [best, last, BackgroundWatch(), Filmstrip(folder / "filmstrip.png")]
    if config.patience:
        callbacks.append(EarlyStopping("val_f1", mode="max", patience=config.patience, check_on_train_epoch_end=False))
    if config.average:
        callbacks.append(EMAWeightAveraging(decay=config.average))
    if progress:
        callbacks.append(StepBar())
    loggers: list[Logger] = [CSVLogger(str(folder), name="log")]
    if find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(str(folder), name="log", version="tensorboard"))
    accelerator = "auto" if torch.cuda.is_available() else "cpu"
    if precision is None:
        # On a CPU torch (2.13) takes the bfloat16 gradient of a convolution over 2 voxels an axis from unset memory.
        deepest = min(config.patch) // (config.model.stem * 2 ** (config.model.levels - 1))
        precision = "bf16-mixed" if accelerator == "auto" or (fast_bf16() and deepest > 2) else "32-true"
    return pl.Trainer(
        accelerator=accelerator,
        max_epochs=-1,  # steps count
        max_steps=config.steps,
        precision=cast(Any, precision),
        devices=devices,
        num_nodes=num_nodes,
        strategy="ddp" if devices * num_nodes > 1 else "auto",
        use_distributed_sampler=False,  # the samples of a process follow from their numbers
        plugins=[AtomicCheckpointIO()],
        gradient_clip_val=config.gradient_clip,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, *watchers],
        logger=loggers,
        log_every_n_steps=LOG_EVERY,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning says of what is meant to be from the user."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices found, tips
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # a short last epoch
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # within Lightning
        # A resumed run first closes the epoch that it stopped in, without a validation of its own.
        warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")
        yield


def _export(
    module: HeatmapRegressor, data: CohortData, working: Path, path: Path, *, start: Mapping[str, Tensor] | None
) -> None:
    """Keep the best, the last or the first weights, by F1 on many validation cases, in the one-file checkpoint."""
    config = module.config
    model, cases = module.model.cpu(), data.validation_cases[: config.threshold_cases]
    networks = {} if start is None else {0: {f"model.{name}": weight for name, weight in start.items()}}
    for name in ("best.ckpt", "last.ckpt"):
        stored = load_state(working / name)
        networks[int(stored["global_step"])] = stored["state_dict"]
    tried: list[tuple[float, int, OperatingPoint]] = []
    for step, state in networks.items():
        module.load_state_dict(state)
        point = operating_point([detect_case(model.eval(), case, config) for case in cases], config)
        tried.append((point.rates["f1"], step, point))
    _, step, point = max(tried, key=lambda row: row[:2])
    module.load_state_dict(networks[step])
    first = data.train_cases[0]
    card = Card(
        kind=data.cohort.kind,
        channels=tuple(data.cohort.channels),
        spacing=first.spacing,
        label=config.label,
        sigma=config.sigma,
        threshold=round(point.threshold, 4),
        scale=config.peak,
        window=config.window,
        preprocessing=PREPROCESSING,
        version=lesionkit.__version__,
        training={
            "config": asdict(config),
            "cohort": {
                "name": data.cohort.folder.name,
                "train": len(data.train_cases),
                "val": len(cases),
                **data.cohort.extra,
            },
            "step": step,
            "validation": point.rates,
        },
    )
    save_checkpoint(path, model, card)
