"""The dock: everything on one explorer, put together. No algorithm, no layer and no file is dealt with here."""

# No `from __future__ import annotations`: napari gives the viewer to the argument called napari_viewer.

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtGui import QCloseEvent, QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QFormLayout,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from lesionkit.explorer import Explorer
from napari_lesionkit import export
from napari_lesionkit.controls import Column, Heading, LayerPicker, foldable, row_of
from napari_lesionkit.network import NetworkPanel
from napari_lesionkit.panels import ChartsPanel, SearchPanel, StepPanel, ThresholdPanel, TruthPanel
from napari_lesionkit.placement import METADATA
from napari_lesionkit.reader import is_heatmap
from napari_lesionkit.session import Session, own_layers

if TYPE_CHECKING:
    import napari

TICK_MS = 16
"""How often a player looks whether something is due."""
EVERYTHING = frozenset(name.removesuffix("_changed") for name in dir(Explorer) if name.endswith("_changed"))
"""Names of all signals: bring everything in step."""


class Courier(QObject):
    """Brings a function from a worker's thread to the thread of the window."""

    called = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.called.connect(lambda function: function(), Qt.ConnectionType.QueuedConnection)


def after_painting(function: Callable[[], object]) -> None:
    """Run a function in the turn of the event loop after the one that paints what has changed."""
    QTimer.singleShot(0, function)


class LesionkitWidget(QWidget):
    """Step through fit and subtract on a heatmap, tune it, compare, annotate, export.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer whose layers are worked on.
    """

    _closed = _docked = False  # Qt sends events before the constructor has run

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._window: Callable[[], QWidget | None] = lambda: None  # a strong reference would keep the viewer alive
        self.session = Session(napari_viewer, before_removal=self._make_current)
        self.explorer = self.session.explorer
        self._courier = Courier()
        self.explorer.set_dispatch(self._courier.called.emit, later=after_painting)
        self.timer = QTimer(self)
        self.timer.setInterval(TICK_MS)
        self.timer.timeout.connect(self._tick)
        self._build()
        self.explorer.settled.connect(self._show_state)
        self.session.source_changed.connect(self._on_source)
        napari_viewer.layers.events.inserted.connect(self._on_inserted)
        self.session.bind_keys()
        self._guess()
        self._show_state(EVERYTHING)

    # ------------------------------------------------------------------ what it is made of
    def _build(self) -> None:
        session = self.session
        self.heatmap = LayerPicker(
            self.viewer,
            _is_image,
            none="choose a layer",
            tip="The heatmap that is taken apart; or an image to annotate",
        )
        self.points = LayerPicker(
            self.viewer, _is_points, none="as known, or set here", tip="A points layer that holds the true lesions"
        )
        self.points.activated.connect(lambda *_: self._take_truth())
        self.start = QPushButton("Step through")
        self.start.setToolTip("Take the heatmap apart: maximum, fit, subtract, again and again")
        self.start.clicked.connect(lambda *_: self.begin())
        self.draft = QPushButton("Annotate")
        self.draft.setToolTip(
            "No heatmap: set true points on this image, and watch the label that a network would learn"
        )
        self.draft.clicked.connect(lambda *_: self.begin_draft())
        self.network = NetworkPanel(self.viewer, done=self._predicted, fail=self.explorer.report_error)
        self.search, self.steps = SearchPanel(session), StepPanel(session)
        self.threshold, self.charts = ThresholdPanel(session), ChartsPanel(session)
        self.truth = TruthPanel(session)
        self.truth.load.clicked.connect(lambda *_: self.load_truth())
        self.truth.save.clicked.connect(lambda *_: self.save_truth())
        self.panels = (self.search, self.steps, self.threshold, self.charts, self.truth)
        self.export = self._export_menu()
        self.error = QLabel()
        self.error.setWordWrap(True)
        self.error.setObjectName("lesionkit_error")
        self.error.setStyleSheet("color: #ff8f7a; font-weight: bold;")
        self.error.setToolTip("What went wrong; it goes away with the next search that succeeds")
        self._lay_out()

    def _lay_out(self) -> None:
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(8, 4, 8, 4)
        layout.setSpacing(3)
        choice = QFormLayout()
        choice.setVerticalSpacing(5)
        choice.addRow("heatmap", self.heatmap)
        choice.addRow("truth", self.points)
        layout.addLayout(choice)
        layout.addLayout(row_of(self.start, self.draft, self.export, stretch=0))
        self.predict = foldable("Predict a heatmap with a network", self.network)
        layout.addWidget(self.predict)
        layout.addWidget(self.network)
        for title, panel, stretch in (
            ("Search", self.search, 0), ("Steps", self.steps, 0), ("Alpha", self.threshold, 3), ("", self.charts, 3),
            ("Truth", self.truth, 0),
        ):  # fmt: skip
            if title:
                layout.addWidget(Heading(title))
            layout.addWidget(panel, stretch)
        scroll = Column(inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.error)

    def _export_menu(self) -> QPushButton:
        button = QPushButton("Export")
        button.setToolTip("Write lesions, a GIF of the stepping, or a notebook of this view")
        menu = QMenu(button)
        for title, tip, run in (
            ("Lesions (TSV)...", "The lesions at the threshold, in mm", self.save_lesions),
            ("Stepping (GIF)...", "What the canvas shows, from start to end", self.save_gif),
            ("Notebook...", "A notebook that reproduces this view", self.save_notebook),
        ):
            action = menu.addAction(title)
            action.setToolTip(tip)
            action.triggered.connect(lambda *_, run=run: run())
        button.setMenu(menu)
        return button

    # ------------------------------------------------------------------ starting
    def begin(self, layer: Any = None, **options: Any) -> None:
        """Take a heatmap apart: a layer, or the chosen one."""
        self._try(self.session.start, layer or self.heatmap.layer, **self._truth(options))

    def begin_draft(self, layer: Any = None, **options: Any) -> None:
        """Set true points on a layer, or on the chosen one."""
        self._try(self.session.draft, layer or self.heatmap.layer, **self._truth(options))

    def _take_truth(self) -> None:
        """Take the chosen points layer as the truth of what is looked at."""
        if self.points.layer is not None:
            self._try(self.session.set_truth_layer, self.points.layer)

    def _truth(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"truth": self.points.layer, **options} if self.points.layer is not None else options

    def _try(self, command: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Do something that may be refused; the reason stands in the error line."""
        self.explorer.clear_error()
        if arguments and arguments[0] is None:
            self.explorer.report_error("no layer is chosen: open a heatmap, or predict one")
            return None
        try:
            return command(*arguments, **options)
        except (ValueError, OSError) as error:
            self.explorer.report_error(str(error))
            return None

    def _predicted(self, layer: Any) -> None:
        self.heatmap.choose(layer)
        self.begin(layer)

    def _guess(self) -> None:
        """Choose the layer that is most likely the heatmap."""
        likely = [layer for layer in self.heatmap.listed if _is_heatmap(layer)]
        if self.heatmap.layer is None and likely:
            self.heatmap.choose(likely[-1])

    def _on_inserted(self, event: Any = None) -> None:
        self._guess()

    # ------------------------------------------------------------------ files
    def save_lesions(self, path: str = "") -> None:
        """Write the lesions at the threshold."""
        self._write(path, "Lesions", "lesions.tsv", "Tables (*.tsv)", export.write_lesions)

    def save_truth(self, path: str = "") -> None:
        """Write the true points."""
        kinds = "Points (*.tsv *.csv *.mrk.json *.fcsv)"
        self._write(path, "True points", "points.tsv", kinds, export.write_truth)

    def save_notebook(self, path: str = "") -> None:
        """Write a notebook of the present view."""
        layer = self.session.source
        source = None if layer is None or self.session.drafting else layer.metadata.get(METADATA, {}).get("path")

        def write(target: str, explorer: Any, placement: Any) -> None:
            export.write_notebook(target, explorer, placement, source=source)

        self._write(path, "Notebook", "lesions.ipynb", "Notebooks (*.ipynb)", write)

    def save_gif(self, path: str = "") -> None:
        """Write the stepping as a GIF."""

        def write(target: str, explorer: Any, placement: Any) -> None:
            def progress(part: float) -> None:
                self.steps.status.setText(f"writing the GIF: {100 * part:.0f} %")
                QApplication.processEvents()

            export.write_gif(target, self.viewer, explorer, progress=progress)
            self.steps.show_state(EVERYTHING)

        self._write(path, "Stepping", "stepping.gif", "Pictures (*.gif)", write)

    def load_truth(self, path: str = "") -> None:
        """Read true points."""
        if self.session.placement is None:
            self.explorer.report_error("start on a heatmap first: points need a map to lie on")
            return
        kinds = "Points (*.tsv *.csv *.mrk.json *.json *.fcsv *.nii *.nii.gz)"
        path = path or QFileDialog.getOpenFileName(self, "True points", "", kinds)[0]
        points = self._try(export.read_truth, path, self.explorer, self.session.placement) if path else None
        if points is not None:
            self.explorer.set_truth(points)

    def _write(self, path: str, title: str, name: str, kinds: str, write: Callable[..., Any]) -> None:
        if self.session.placement is None:
            self.explorer.report_error("start on a heatmap first: there is nothing to write")
            return
        path = path or QFileDialog.getSaveFileName(self, title, name, kinds)[0]
        if path:
            self._try(write, path, self.explorer, self.session.placement)

    # ------------------------------------------------------------------ from the state
    def _show_state(self, names: frozenset[str]) -> None:
        for panel in self.panels:
            panel.show_state(names)
        if "playing" in names:
            self.timer.start() if self.explorer.playing else self.timer.stop()
        if "error" in names:
            self.error.setText(self.explorer.error)
            self.error.setVisible(bool(self.explorer.error))

    def _on_source(self) -> None:
        layer = self.session.source
        if layer is not None:
            self.heatmap.choose(layer)
        for panel in self.panels:
            panel.setEnabled(layer is not None)
        self.export.setEnabled(layer is not None)
        self._show_state(EVERYTHING)

    def _tick(self) -> None:
        self.explorer.tick()

    # ------------------------------------------------------------------ life
    def close_session(self) -> None:
        """Give back keys, layers, timers and threads; what closing, docking away and the end of napari lead to."""
        if self._closed:
            return
        self._closed = True
        self.timer.stop()
        self.explorer.settled.disconnect(self._show_state, missing_ok=True)
        self.session.source_changed.disconnect(self._on_source, missing_ok=True)
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        for picker in (self.heatmap, self.points, self.network):
            picker.close_events()
        self.session.close()

    def event(self, event: QEvent) -> bool:
        """Notice when the dock is closed: napari then takes the widget out of its parent, and never closes it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parentWidget() is not None:
                self._docked = True
            elif self._docked:
                self.close_session()
        return super().event(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Give everything back."""
        self.close_session()
        super().closeEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        """Do not play where nobody looks."""
        if not self._closed:
            self.explorer.pause()
        super().hideEvent(event)

    def showEvent(self, event: QShowEvent) -> None:
        """Remember the window, weakly."""
        self._window = weakref.ref(self.window())
        super().showEvent(event)

    def _make_current(self) -> None:
        """Make the window's OpenGL contexts current.

        napari frees what a removed layer drew without doing so, and with Mesa the next picture then crashes.
        """
        window = self._window()
        if window is None:
            return
        from qtpy.QtOpenGLWidgets import QOpenGLWidget

        for canvas in window.findChildren(QOpenGLWidget):
            canvas.makeCurrent()


def _is_image(layer: Any) -> bool:
    return type(layer).__name__ == "Image" and not own_layers([layer])


def _is_points(layer: Any) -> bool:
    return type(layer).__name__ == "Points" and not own_layers([layer])


def _is_heatmap(layer: Any) -> bool:
    known = layer.metadata.get(METADATA, {})
    return "sigma" in known or is_heatmap(layer.name)
