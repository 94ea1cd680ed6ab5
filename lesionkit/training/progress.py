"""How far a training is, in one line of the terminal. In: Lightning's hooks. Out: steps, time, loss, validation F1."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from lesionkit.terminal import Bar, Terminal
from lesionkit.training.regressor import HeatmapRegressor


class StepBar(pl.Callback):
    """Shows a whole training as one bar; Lightning's own counts epochs, of which this one knows no end."""

    def __init__(self) -> None:
        texts = (TextColumn("{task.description}"), TextColumn("{task.fields[scores]}"))
        self.bar = Bar(Terminal(), texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn())
        self.task = self.bar.add_task("training", scores="")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the step at which the training does."""
        self.bar.disable |= not trainer.is_global_zero
        self.bar.console.quiet = not trainer.is_global_zero
        total = cast(HeatmapRegressor, pl_module).config.steps
        self.bar.update(self.task, total=total, completed=trainer.global_step)
        self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the step that is done."""
        self._show(trainer, "training")

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Say why the steps stand still."""
        self._show(trainer, "validating")

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the new score."""
        self._show(trainer, "training")

    def on_train_end(self, *_: Any) -> None:
        """Leave the line as it stands."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Give the terminal back."""
        self.bar.stop()

    def _show(self, trainer: pl.Trainer, doing: str) -> None:
        """Show the step, and what is logged for a progress bar."""
        scores = "  ".join(f"{name} {float(value):.3f}" for name, value in trainer.progress_bar_metrics.items())
        self.bar.update(self.task, description=doing, completed=trainer.global_step, scores=scores)
