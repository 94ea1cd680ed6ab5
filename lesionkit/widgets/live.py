"""A training to look on at: loss and film strip in a notebook, drawn anew after each validation.

In: Lightning's callbacks, or networks and a case. Out: pictures; the one of a training is replaced as it goes on, and
interrupting the cell stops the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import DisplayHandle, Image
from jaxtyping import Float

from lesionkit.checkpoints import Checkpoint
from lesionkit.figures import F1_CURVE, training_figure
from lesionkit.inference import predict_array
from lesionkit.labels import gaussian_heatmap
from lesionkit.model import UNet
from lesionkit.training import LoadedCase
from lesionkit.training.regressor import HeatmapRegressor
from lesionkit.widgets.printing import print_maps

NEAR = 2
"""Voxels from a slice within which a lesion is said to be in it."""


class Watch(pl.Callback):
    """Shows how a training stands; for `watchers` of :func:`~lesionkit.training.train`.

    Parameters
    ----------
    folder : path
        Of the training, where its film strip is.
    stop_at : int, optional
        Step after which the training stops, as if somebody had interrupted it.
    cases : mapping of str to LoadedCase, optional
        Whole cases, by name, whose loss is followed instead of that of the training's patches: one that is trained on
        beside one that is not shows overfitting.
    quiet : bool
        Take notes only, show nothing.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        stop_at: int | None = None,
        cases: Mapping[str, LoadedCase] | None = None,
        quiet: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.stop_at = stop_at
        self.quiet = quiet
        self.cases = dict(cases or {})
        self.history: list[tuple[int, float, float]] = []
        """Step, loss as a share of that of predicting nothing, and F1 on validation."""
        self.losses: dict[str, list[float]] = {name: [] for name in self.cases}
        """The same share for each of `cases`."""
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
        module = cast(HeatmapRegressor, pl_module)
        module.model.eval()
        for name, case in self.cases.items():
            config = module.config
            self.losses[name].append(loss_share(module.model, case, sigma=config.sigma, window=config.window))
        module.model.train()
        if self.quiet:
            return
        bundle = self.draw()._repr_mimebundle_()  # as plotly shows it here; in this form it can be replaced
        if self._shown:
            self._handle.update(bundle, raw=True)
        else:
            self._handle.display(bundle, raw=True)
            self._shown = True

    def draw(self) -> go.Figure:
        """Draw loss, F1 and film strip."""
        steps, ratio, f1 = np.array(self.history).T
        losses = {f"loss, {name}": values for name, values in self.losses.items()} or {"loss": ratio}
        strip = self.folder / "filmstrip.png"
        return training_figure(
            pd.DataFrame({"step": steps, **losses, F1_CURVE: f1}), strip=strip.read_bytes() if strip.is_file() else None
        )


def loss_share(model: UNet, case: LoadedCase, *, sigma: float | tuple[float, float, float], window: int = 40) -> float:
    """Return the squared error of a network on a whole case, as a share of what predicting nothing costs.

    Parameters
    ----------
    model : UNet
        Whose output peaks at 1, where a lesion of mass 1 is.
    case : LoadedCase
        With at least one point.
    sigma : float or (float, float, float)
        Of the label, voxels.
    window : int
        Edge of the windows of the prediction, voxels.
    """
    label = gaussian_heatmap(case.points, case.mask.shape, sigma)
    label /= np.prod((2 * np.pi * np.broadcast_to(sigma, 3) ** 2) ** -0.5)
    error = predict_array(model, case.image, case.mask, window=window) - label
    return float((error[case.mask] ** 2).sum() / (label[case.mask] ** 2).sum())


def compare_maps(networks: Mapping[str, Checkpoint], case: LoadedCase) -> Image:
    """Show what several networks make of one slice of a case, the one with the most lesions, beside the MRI.

    Parameters
    ----------
    networks : mapping of str to Checkpoint
        By the name that stands above the map. A map is shown from 0 to the peak of a lesion of mass 1.
    case : LoadedCase
        With at least one point.
    """
    near_each = (np.abs(case.points[:, None, 2] - case.points[:, 2]) <= NEAR).sum(axis=0)
    level = int(np.clip(round(float(case.points[near_each.argmax(), 2])), 0, case.mask.shape[2] - 1))
    maps: dict[str, Float[np.ndarray, "i j"] | None] = {"MRI and true points": None}
    for name, network in networks.items():
        maps[name] = predict_array(network.model, case.image, case.mask, window=network.card.window)[:, :, level]
    near = case.points[np.abs(case.points[:, 2] - level) <= NEAR, :2]
    grey = case.image[0, :, :, level].float().numpy()
    return Image(print_maps(np.where(case.mask[:, :, level], grey, grey.min()), maps, near), format="png")
