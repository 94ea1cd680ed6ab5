"""A training to look on at: loss and film strip in a notebook, drawn anew after each validation.

In: Lightning's callbacks. Out: one picture that is replaced; interrupting the cell stops the training.
"""

from __future__ import annotations

import io
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from IPython.display import DisplayHandle, Image

from lesionkit.widgets.printing import picture_of, quiet, sheet


class Watch(pl.Callback):
    """Shows how a training stands; for `watchers` of :func:`~lesionkit.training.train`.

    Parameters
    ----------
    folder : path
        Of the training, where its film strip is.
    stop_at : int, optional
        Step after which the training stops, as if somebody had interrupted it.
    """

    def __init__(self, folder: str | Path, *, stop_at: int | None = None) -> None:
        self.folder = Path(folder)
        self.stop_at = stop_at
        self.history: list[tuple[int, float, float]] = []
        self._handle = DisplayHandle()
        self._shown = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note loss and score, and draw."""
        if self.stop_at is not None and trainer.global_step >= self.stop_at:
            trainer.should_stop = True
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "loss" not in metrics:
            return
        ratio = metrics["loss"] / max(metrics.get("loss_of_nothing", np.nan), 1e-9)
        self.history.append((trainer.global_step, ratio, metrics.get("val_f1", np.nan)))
        picture = Image(self.draw(), format="png")
        if self._shown:
            self._handle.update(picture)
        else:
            self._handle.display(picture)
            self._shown = True

    def draw(self) -> bytes:
        """Draw loss, F1 and film strip."""
        from matplotlib.image import imread

        strip = self.folder / "filmstrip.png"
        figure = sheet(11.0, 4.2)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
        steps, ratio, f1 = np.array(self.history).T
        left.plot(steps, ratio, "o-", color="#4aa8ff", ms=4, label="loss / loss of predicting nothing")
        left.plot(steps, f1, "o-", color="#2fbf8f", ms=4, label="F1 on validation")
        left.set(xlabel="step", ylim=(0, max(1.05, 1.05 * float(np.nanmax(ratio)))), xlim=(0, None))
        left.legend(fontsize=8, frameon=False)
        quiet(left)
        right.set_axis_off()
        if strip.is_file():
            right.imshow(imread(io.BytesIO(strip.read_bytes())))
            right.set_title(
                "one slice of a validation case: MRI with its points, then the map after each validation", fontsize=8
            )
        return picture_of(figure)
