"""Train on a cohort, keep the best network, and write it as one file.

In: a cohort on disk and a `TrainConfig`. Out: the best checkpoint by validation, with the threshold chosen there.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor

import lesionkit
from lesionkit.checkpoints import Card, save_checkpoint
from lesionkit.inference import fast_bf16
from lesionkit.io import Cohort, DataError, atomic_path
from lesionkit.preprocessing import PREPROCESSING
from lesionkit.training.config import TrainConfig
from lesionkit.training.data import CohortData
from lesionkit.training.decoding import OperatingPoint, detect_case, operating_point
from lesionkit.training.regressor import HeatmapRegressor
from lesionkit.training.watch import AtomicCheckpointIO, BackgroundWatch, CtrlC, Filmstrip


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
        Go on from the last completed validation in `folder`, if there is one.
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
    precision : str, optional
        Lightning's, such as `32-true` or `bf16-mixed`. Default: bfloat16 on a GPU and where the CPU multiplies it
        natively.

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
    world = devices * num_nodes
    if config.batch_size % world:
        raise ValueError(
            f"batch_size must be a multiple of the {world} processes that share it, got {config.batch_size}"
        )
    folder = Path(folder)
    pl.seed_everything(config.seed, verbose=False)
    scratch = folder / "working" / f"cases_{os.environ.get('LOCAL_RANK', '0')}"
    data, module = CohortData(cohort, config, scratch=scratch), HeatmapRegressor(config)
    if weights is not None:
        module.model.load_state_dict(dict(weights))
    data.setup()  # before anything is written: the cohort may be unusable
    if min(config.validation_cases, len(data.validation_cases)) < world:
        raise ValueError(f"devices * num_nodes is {world}, more than there are validation cases to share")
    working = folder / "working"
    best = ModelCheckpoint(working, monitor="val_f1", mode="max", filename="best", enable_version_counter=False)
    last = ModelCheckpoint(working, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    accelerator = "auto" if torch.cuda.is_available() else "cpu"
    if precision is None:
        precision = "bf16-mixed" if accelerator == "auto" or fast_bf16() else "32-true"
    ctrl_c = CtrlC()
    callbacks: list[pl.Callback] = [ctrl_c, best, last, BackgroundWatch(), Filmstrip(folder / "filmstrip.png")]
    if config.patience:
        callbacks.append(EarlyStopping("val_f1", mode="max", patience=config.patience, check_on_train_epoch_end=False))
    callbacks += watchers
    if progress:
        callbacks.append(RichProgressBar())
    loggers: list[Logger] = [CSVLogger(str(folder), name="log")]
    if find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(str(folder), name="log", version="tensorboard"))
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
            precision=cast(Any, precision),
            devices=devices,
            num_nodes=num_nodes,
            strategy="ddp" if world > 1 else "auto",
            use_distributed_sampler=False,  # the samples of a process follow from their numbers
            plugins=[AtomicCheckpointIO()],
            gradient_clip_val=config.gradient_clip,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=loggers,
            log_every_n_steps=config.validate_every,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        stopped = working / "last.ckpt"
        _make_folder(folder)  # Lightning had nothing to say against the settings
        try:
            with ctrl_c:
                trainer.fit(module, data, ckpt_path=str(stopped) if resume and stopped.is_file() else None)
                ctrl_c.check()
        except BaseException as error:
            ctrl_c.check()  # whatever else went wrong on the way
            raise _origin(error) from error
    path = folder / "model.safetensors"
    if trainer.is_global_zero:
        with atomic_path(folder / "history.csv") as temporary:
            pd.DataFrame(module.history).to_csv(temporary, index=False)
        _export(module, data, working, path, start=weights if keep_start else None)
    data.close()
    trainer.strategy.barrier("exported")  # the others must not leave, nor look for the file, before it is there
    return path


def _origin(error: BaseException) -> BaseException:
    """Return the Ctrl-C or the refusal of the system that an error goes back to: Lightning stumbles in cleaning up."""
    origin: BaseException | None = error
    while origin is not None and not isinstance(origin, KeyboardInterrupt | OSError):
        origin = origin.__context__
    return origin or error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        wanted = "a folder that can be written is wanted"
        raise DataError(f"{folder}: cannot be made ({error.strerror or error}); {wanted}") from error


def _export(
    module: HeatmapRegressor, data: CohortData, working: Path, path: Path, *, start: Mapping[str, Tensor] | None
) -> None:
    """Keep the best, the last or the first weights, by F1 on many validation cases, in the one-file checkpoint."""
    config = module.config
    model, cases = module.model.cpu(), data.validation_cases[: config.threshold_cases]
    networks = {} if start is None else {0: {f"model.{name}": weight for name, weight in start.items()}}
    for name in ("best.ckpt", "last.ckpt"):
        stored = torch.load(working / name, map_location="cpu", weights_only=True)
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
