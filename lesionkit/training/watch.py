"""What watches a training: Ctrl-C, a film strip of one case, a word when only background is learned, safe checkpoints.

In: Lightning's hooks. Out: `filmstrip.png`, one line on the terminal, and checkpoints that are whole or not there.
"""

from __future__ import annotations

import io
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self, cast

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lesionkit.inference import predict_array
from lesionkit.io import atomic_path
from lesionkit.io.pictures import write_png
from lesionkit.terminal import TERMINATED
from lesionkit.training.data import CohortData, LoadedCase
from lesionkit.training.regressor import HeatmapRegressor

EARLY = 3
"""Validations within which a network that learns only the background is spoken of."""
DIVERGES = 2.0
"""Loss, as a multiple of that of predicting nothing, beyond which a network predicts worse than only background."""

BY_CHANCE = 100.0
"""The same, beyond which a map is noise and the lesions that it finds are found by chance."""

_HEAT = np.array([(27, 12, 65), (106, 23, 110), (184, 50, 90), (238, 106, 36), (252, 165, 10), (252, 255, 164)])


class CtrlC(pl.Callback):
    """Stops a training at the next batch after Ctrl-C or SIGTERM, and at once after a second one; a context manager.

    Python drops an exception that comes while an object is deleted or a process forks, and an epoch begins and ends
    with that: an interruption that is raised where it comes would be lost there.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.pressed: int | None = None

    def __enter__(self) -> Self:
        """Listen; another thread than the main one hears of no signal."""
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
        self._listens = threading.current_thread() is threading.main_thread() and callable(self._before[signal.SIGINT])
        for number in self.SIGNALS if self._listens else ():
            signal.signal(number, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the signals as they were found, which Lightning does not."""
        for number in self.SIGNALS if self._listens else ():
            signal.signal(number, self._before[number])

    def check(self) -> None:
        """Raise the interruption, if there was one."""
        if self.pressed == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        if self.pressed is not None:
            raise KeyboardInterrupt

    def on_train_batch_start(self, *_: Any) -> None:
        """Look before each training batch."""
        self.check()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Look before each validation case."""
        self.check()

    def _press(self, number: int, frame: FrameType | None) -> None:
        again, self.pressed = self.pressed is not None, number
        before = self._before[signal.Signals(number)]
        if again and callable(before):
            before(number, frame)
        elif again:
            self.check()


class Filmstrip(pl.Callback):
    """Keeps one axial slice of the predicted map of a fixed validation case from each epoch, as one picture.

    The case is the first that has a lesion, the slice that of its largest lesion. The first frame shows the MRI and the
    label's points alone; then comes one frame an epoch, six in a row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[UInt8[np.ndarray, "rows columns 3"]] = []

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Predict, add a frame, and write the picture anew."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        module = cast(HeatmapRegressor, pl_module)
        cases = cast(CohortData, trainer.datamodule).validation_cases  # type: ignore[attr-defined]  # set by fit()
        case = next(case for case in cases if len(case.points))
        k, place = self._slice(case)
        window = module.config.window
        heatmap = predict_array(module.model, case.image, case.mask, window=window, device=str(module.device))
        if not self.frames:
            self.frames.append(_frame(case, np.zeros_like(heatmap[:, :, k]), k, place))
        self.frames.append(_frame(case, heatmap[:, :, k], k, None))
        write_png(self.path, _tiled(self.frames))

    def state_dict(self) -> dict[str, Any]:
        """Return the frames, so that a resumed training has all of them."""
        return {"frames": [torch.from_numpy(frame) for frame in self.frames]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the frames of the interrupted training."""
        self.frames = [frame.numpy() for frame in state_dict["frames"]]

    @staticmethod
    def _slice(case: LoadedCase) -> tuple[int, Float[np.ndarray, "n 3"]]:
        """Slice of the largest lesion (the first, where sizes are not known), and the points within 2 voxels of it."""
        largest = int(np.argmax(np.nan_to_num(case.sizes)))
        k = int(np.clip(round(case.points[largest, 2]), 0, case.mask.shape[2] - 1))
        return k, case.points[np.abs(case.points[:, 2] - k) <= 2]


def _frame(
    case: LoadedCase, heat: Float[np.ndarray, "i j"], k: int, points: Float[np.ndarray, "n 3"] | None
) -> UInt8[np.ndarray, "rows columns 3"]:
    """MRI in grey with the map in the colours of heat over it; anterior up, the patient's right on the right."""
    grey = case.image[0, :, :, k].float().numpy()
    brain = case.mask[:, :, k]
    shade = np.where(brain, np.clip(90 + 35 * grey, 10, 255), 0)[..., None] * np.ones(3)
    level = np.clip(heat, 0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(level, steps, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    cover = np.clip(4 * level, 0, 0.85)[..., None]
    picture = ((1 - cover) * shade + cover * colour).round().astype(np.uint8)
    for x, y, _ in points if points is not None else ():
        angle = np.linspace(0, 2 * np.pi, 40)
        i, j = (np.rint(c + 4 * f(angle)).astype(int) for c, f in ((x, np.cos), (y, np.sin)))
        inside = (i >= 0) & (i < picture.shape[0]) & (j >= 0) & (j < picture.shape[1])
        picture[i[inside], j[inside]] = (47, 191, 143)
    return np.ascontiguousarray(np.swapaxes(picture, 0, 1)[::-1])


def _tiled(frames: list[UInt8[np.ndarray, "rows columns 3"]], columns: int = 6) -> UInt8[np.ndarray, "rows columns 3"]:
    """Put frames into rows, enlarged by a whole factor to about 200 pixels."""
    factor = max(1, round(200 / frames[0].shape[1]))
    frames = [frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in frames]
    rows, width, _ = frames[0].shape
    n = min(columns, len(frames))
    sheet = np.zeros((-(-len(frames) // n) * (rows + 2), n * (width + 2), 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // n * (rows + 2), number % n * (width + 2)
        sheet[top : top + rows, left : left + width] = frame
    return sheet


class BackgroundWatch(pl.Callback):
    """Says in one line, early, that a network has learned nothing but the background: the commonest failure."""

    def __init__(self) -> None:
        self.epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """Return how many epochs were watched, so that a resumed training does not begin to count again."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.epochs = state_dict["epochs"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the loss with that of predicting nothing, and look at the validation."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "loss" not in metrics:
            return
        self.epochs += 1
        message = nothing_learned(metrics["loss"], metrics["loss_of_nothing"], metrics.get("val_f1", 0.0))
        if message and self.epochs <= EARLY:
            pl_module.print(message)


def nothing_learned(loss: float, nothing: float, f1: float) -> str:
    """Return a line if a loss and a validation are those of a network that has learned nothing, else an empty one.

    Parameters
    ----------
    loss, nothing : float
        Mean loss of the epoch, and that of predicting nothing on the same patches.
    f1 : float
        Of the validation, at its best threshold. Recall alone would not tell: at the lowest threshold of a map of noise
        some of its many blobs lie on lesions.
    """
    share = loss / max(nothing, 1e-9)
    if share < 0.95 or (f1 > 0.1 and share <= BY_CHANCE):
        return ""
    if share > DIVERGES:
        return (
            f"the loss is {share:.3g} times that of predicting nothing (validation F1 {f1:.2f}): if it stays so, the "
            "training diverges; try a lower learning rate, then a smaller gradient_clip"
        )
    return (
        f"the network predicts only background (loss {share:.2f} of that of predicting nothing, validation F1 "
        f"{f1:.2f}): if it stays so, look whether the points lie on the lesions, then try a larger sigma, a larger "
        "lesion_share, another learning rate, or the output softplus"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and then puts it in its place.

    Lightning writes into the system's temporary folder and moves from there; between two disks a move is a copy, which
    a full disk or a power cut can leave half done, over the checkpoint that was there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write as a whole or not at all; raises `DataError` where the system refuses."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.getbuffer())
