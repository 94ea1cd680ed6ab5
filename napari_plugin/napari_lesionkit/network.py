"""Runs a checkpoint on image layers, in a process beside the window, with progress and cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from lesionkit.checkpoints import SHIPPED, Card, read_card
from lesionkit.volume import Volume
from napari_lesionkit.controls import LayerPicker
from napari_lesionkit.placement import METADATA, Placement, volume_layer
from napari_lesionkit.process import Cancelled, NetworkProcess
from napari_lesionkit.reader import heat_options, is_heatmap
from napari_lesionkit.session import own_layers

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer


class Prediction(QObject):
    """One run of a network. Its signals arrive in the thread of whoever listens."""

    progressed = Signal(float)
    """Fraction done."""
    finished = Signal(object)
    """The heatmap, a Volume."""
    failed = Signal(str)
    """What went wrong."""
    cancelled = Signal()

    def __init__(self, checkpoint: str, images: Sequence[Volume]) -> None:
        super().__init__()
        self._process = NetworkProcess(checkpoint, images)
        self._thread = threading.Thread(target=self._run, name="lesionkit-network", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop."""
        self._process.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; False if that takes longer than `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._emit(self.finished, self._process.run(lambda part: self._emit(self.progressed, part)))
        except Cancelled:
            self._emit(self.cancelled)
        except Exception as error:  # there is nobody to raise to
            self._emit(self.failed, str(error) or type(error).__name__)

    def _emit(self, signal: Any, *values: Any) -> None:
        try:
            signal.emit(*values)
        except RuntimeError:  # the window is gone
            self.cancel()


class NetworkPanel(QWidget):
    """Choose a checkpoint and its images, run it, get a heatmap layer.

    Parameters
    ----------
    viewer : ViewerModel
        Where the images are and the heatmap goes.
    done : function of a layer
        Called with the new heatmap layer.
    fail : function of a message
        Called if something goes wrong.
    """

    def __init__(self, viewer: ViewerModel, *, done: Callable[[Image], object], fail: Callable[[str], object]) -> None:
        super().__init__()
        self._viewer, self._done, self._fail = viewer, done, fail
        self._pickers: list[LayerPicker] = []
        self._channels: tuple[str, ...] = ()
        self.prediction: Prediction | None = None
        self._of = ""
        self.checkpoint = QComboBox()
        self.checkpoint.addItems([*SHIPPED, "choose a file..."])
        self.checkpoint.setToolTip("The trained network: a shipped one, or a .safetensors file of lesionkit train")
        self.run = QPushButton("Predict")
        self.run.setToolTip("Run the network on the images; the window stays usable meanwhile")
        self.stop = QPushButton("Cancel")
        self.stop.setToolTip("Stop the network at once")
        self.bar = QProgressBar()
        self.bar.setToolTip("How far the network is")
        self.bar.setRange(0, 100)
        self._form = QFormLayout()
        self._form.addRow("network", self.checkpoint)
        buttons = QHBoxLayout()
        for part in (self.run, self.stop, self.bar):
            buttons.addWidget(part)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._form)
        layout.addLayout(buttons)
        self.checkpoint.activated.connect(self._chosen)
        self.run.clicked.connect(lambda *_: self.start())
        self.stop.clicked.connect(lambda *_: self.cancel())
        self._source = SHIPPED[0]
        self.use(SHIPPED[0])

    # ------------------------------------------------------------------ choosing
    def use(self, source: str, layers: Sequence[Layer] = ()) -> None:
        """Use a checkpoint: ask for one image a channel.

        Parameters
        ----------
        source : str
            A shipped checkpoint, or a file.
        layers : sequence of layers, optional
            The images, in the order of the channels; by default guessed from their names.
        """
        try:
            card = read_card(source)
        except ValueError as error:
            self._fail(str(error))
            self.checkpoint.setCurrentText(self._source)
            return
        self._source = source
        if self.checkpoint.findText(source) < 0:
            self.checkpoint.insertItem(len(SHIPPED), source)
        self.checkpoint.setCurrentText(source)
        self._ask_for(card)
        for picker, layer in zip(self._pickers, layers, strict=False):
            picker.choose(layer)
        self._show_state()

    def _chosen(self, row: int) -> None:
        if row < self.checkpoint.count() - 1:
            self.use(self.checkpoint.itemText(row))
            return
        path, _ = QFileDialog.getOpenFileName(self, "Checkpoint", "", "Checkpoints (*.safetensors)")
        self.use(path or self._source)

    def _ask_for(self, card: Card) -> None:
        for picker in self._pickers:
            picker.close_events()
            self._form.removeRow(picker)
        self._pickers, self._channels = [], card.channels
        taken: list[Layer] = []
        for channel in card.channels:
            tip = f"The {channel} image: one of the layers"
            picker = LayerPicker(self._viewer, self._accepts, none="choose a layer", tip=tip)
            self._form.addRow(channel, picker)
            self._pickers.append(picker)
            named = [layer for layer in picker.listed if channel.lower() in layer.name.lower() and layer not in taken]
            free = [layer for layer in picker.listed if layer not in taken]
            if named or (free and len(card.channels) == 1):
                chosen = min(named, key=lambda layer: len(layer.name)) if named else free[-1]
                picker.choose(chosen)
                taken.append(chosen)

    def _accepts(self, layer: Layer) -> bool:
        return type(layer).__name__ == "Image" and not own_layers([layer]) and not is_heatmap(layer.name)

    # ------------------------------------------------------------------ running
    def start(self) -> None:
        """Run the network on the chosen layers."""
        if self.prediction is not None:
            return
        try:
            images = [self._volume(*pair) for pair in zip(self._channels, self._pickers, strict=True)]
        except ValueError as error:
            self._fail(str(error))
            return
        layer = self._pickers[0].layer
        self._of = "" if layer is None else layer.name
        self.prediction = Prediction(self._source, images)
        self.prediction.progressed.connect(self._progressed)
        self.prediction.finished.connect(self._finished)
        self.prediction.failed.connect(self._failed)
        self.prediction.cancelled.connect(self._ended)
        self._show_state()
        self.prediction.start()

    def cancel(self) -> None:
        """Stop the network."""
        if self.prediction is not None:
            self.prediction.cancel()

    def close_events(self) -> None:
        """Stop, and follow the viewer no more."""
        if self.prediction is not None:
            for signal in ("progressed", "finished", "failed", "cancelled"):
                getattr(self.prediction, signal).disconnect()
            self.prediction.cancel()
            self.prediction = None
        for picker in self._pickers:
            picker.close_events()

    def _volume(self, channel: str, picker: LayerPicker) -> Volume:
        layer = picker.layer
        if layer is None:
            raise ValueError(f"the network wants a {channel} image: choose its layer")
        if "affine" not in layer.metadata.get(METADATA, {}):
            raise ValueError(f"layer {layer.name!r} does not say its orientation: open its NIfTI file with lesionkit")
        placement = Placement.of_layer(layer)
        return placement.volume(layer.data)

    def _progressed(self, part: float) -> None:
        self.bar.setRange(0, 100 if part > 0 else 0)  # until the first part is done nobody knows
        self.bar.setValue(round(100 * part))

    def _finished(self, heatmap: Volume) -> None:
        card = read_card(self._source)
        known = {"sigma": card.sigma, "threshold": card.threshold, "checkpoint": Path(self._source).name}
        name = f"{self._of} heatmap"
        data, options, _ = volume_layer(heatmap, name, metadata=known, **heat_options(heatmap.data))
        self._ended()
        self._done(self._viewer.add_image(data, **options))

    def _failed(self, message: str) -> None:
        self._ended()
        self._fail(message)

    def _ended(self) -> None:
        self.prediction = None
        self._show_state()

    def _show_state(self) -> None:
        running = self.prediction is not None
        self.run.setEnabled(not running)
        self.stop.setEnabled(running)
        self.bar.setVisible(running)
        self.bar.setRange(0, 0)
        self.bar.setValue(0)
