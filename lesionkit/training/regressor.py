"""The Lightning module: the U-Net, the paper's losses, and validation by the detections of whole cases."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesionkit.metrics import CasePoints
from lesionkit.model import UNet
from lesionkit.training.config import TrainConfig
from lesionkit.training.data import CohortData
from lesionkit.training.decoding import detect_case, operating_point

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images, labels, brain masks, and the numbers of their cases."""


class HeatmapRegressor(pl.LightningModule):
    """The U-Net with the paper's losses, summed over the brain: squared error, or weighted cross-entropy for masks."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.model = UNet(config.model)
        if config.frozen == "encoder":
            self.model.encoder.requires_grad_(False)
        self.found: list[tuple[CasePoints, ...]] = []
        self.history: list[dict[str, float]] = []
        self.threshold = 0.5

    @property
    def _data(self) -> CohortData:
        return cast(CohortData, self.trainer.datamodule)  # type: ignore[attr-defined]  # set by fit()

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Begin the random numbers of this step and process, so that a resumed run drops what it would have dropped."""
        place = np.random.SeedSequence([self.config.seed, self.global_step, self.global_rank])
        torch.manual_seed(int(place.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch, and log it beside that of predicting nothing, as means over the epoch."""
        image, label, mask, number = batch
        if self.config.label == "segmentation":
            voxel_loss = self._cross_entropy(self.model.values(image), label)
            nothing = self._loss_of_a_constant(label, mask) / len(image)
        else:
            voxel_loss = (self.model(image) - label) ** 2
            nothing = (mask * label**2).sum() / len(image)
        loss = (mask * voxel_loss).sum() / len(image)
        if not torch.isfinite(loss):
            self._refuse(loss.item(), (mask * voxel_loss).flatten(1).sum(1), number)
        self.log_dict({"loss": loss, "loss_of_nothing": nothing}, on_step=False, on_epoch=True, sync_dist=True)
        self.log_dict({"batch_loss": loss}, on_step=True, on_epoch=False, prog_bar=True, sync_dist=True)
        return loss

    def _cross_entropy(self, values: Tensor, label: Tensor) -> Tensor:
        weight = torch.tensor(self.config.positive_weight, device=values.device)
        logits = values + self.model.config.bias
        return functional.binary_cross_entropy_with_logits(logits, label, pos_weight=weight, reduction="none")

    def _loss_of_a_constant(self, label: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the best constant probability: that of knowing how many voxels are lesion, but not where."""
        lesion = self.config.positive_weight * (mask * label).sum()
        other = (mask * (1 - label)).sum()
        share = (lesion / (lesion + other)).clamp(1e-12, 1 - 1e-7)
        return -(lesion * torch.log(share) + other * torch.log1p(-share))

    def _refuse(self, loss: float, losses: Tensor, number: Tensor) -> None:
        """Stop a training whose loss is no number, naming the cases that made it so."""
        bad = number[~torch.isfinite(losses)].tolist() or number.tolist()
        names = ", ".join(dict.fromkeys(self._data.train_cases[n].subject for n in bad))
        raise FloatingPointError(
            f"the loss is {loss} at step {self.global_step}, on {names}; look at the images named, and lower the "
            "learning rate if nothing is wrong with them"
        )

    def validation_step(self, index: Tensor, batch_index: int) -> None:
        """Detect the lesions of one whole validation case."""
        case = self._data.validation_cases[int(index[0])]
        self.found.append(detect_case(self.model, case, self.config, device=str(self.device)))

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold and log the scores at it."""
        found, self.found = self._gathered(self.found), []
        point = operating_point(found, self.config)
        self.threshold = point.threshold
        scores = {f"val_{name}": rate for name, rate in point.rates.items()} | {"val_threshold": self.threshold}
        for name, score in scores.items():
            self.log(name, score, prog_bar=name == "val_f1", sync_dist=True)
        if not self.trainer.sanity_checking:
            self.history.append({"step": float(self.global_step), **scores})

    def _gathered(self, found: list[tuple[CasePoints, ...]]) -> list[tuple[CasePoints, ...]]:
        """Return the cases of all processes, in an order that does not depend on their number."""
        if self.trainer.world_size == 1:
            return found
        parts: list[list[tuple[CasePoints, ...]]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(parts, found)
        return [part[n] for n in range(len(parts[0])) for part in parts if n < len(part)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history, so that a resumed run has all of it, and the settings, which must be the same there."""
        checkpoint["history"] = self.history
        checkpoint["settings"] = self._data.settings

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
        learned = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimiser = torch.optim.Adam(learned, lr=config.learning_rate, weight_decay=config.weight_decay)
        rising = 0.1 if config.steps != 10 else 0.11  # a rise of exactly one step is a division by zero in torch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, config.steps, pct_start=rising)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
