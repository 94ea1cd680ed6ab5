"""The groups of controls in the dock, each in step with the explorer: search, stepping, charts, truth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QListWidget,
    QPushButton,
    QSlider,
    QSpinBox,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_lesionkit.charts import AlphaBars, DistanceChart, ProfileChart, ScoreChart
from napari_lesionkit.controls import IconButton, Slider, muted, row_of, silently
from napari_lesionkit.session import ACTIONS, Session


def _narrow(spin: Any) -> Any:
    """Return a box for a number that is typed or turned with the wheel, without buttons that take room."""
    spin.setButtonSymbols(spin.ButtonSymbols.NoButtons)
    spin.setAlignment(Qt.AlignmentFlag.AlignCenter)
    spin.setFixedWidth(58)
    return spin


class Panel(QWidget):
    """A group of controls; it reads the session and keeps no state."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session, self.explorer = session, session.explorer

    def show_state(self, names: frozenset[str]) -> None:
        """Bring the controls in step; `names` says what has changed (`lesionkit.explorer.State.settled`)."""
        raise NotImplementedError

    def attempt(self, command: Any, *arguments: Any) -> None:
        """Do something that may be refused; the reason goes to the explorer's error line."""
        try:
            command(*arguments)
        except (ValueError, TypeError) as error:
            self.explorer.report_error(str(error))


def form_of(panel: QWidget) -> QFormLayout:
    """Return a compact form as a panel's layout."""
    form = QFormLayout(panel)
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(5)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    return form


class SearchPanel(Panel):
    """Settings of the search: sigma, window, mode, and the rarer ones."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        explorer = self.explorer
        self.sigma = Slider(
            0.4, 6.0, decimals=2, step=0.05, changed=self._set_sigma,
            tip="Standard deviation of the Gaussians: searches again while you drag",
        )  # fmt: skip
        self.unit = QComboBox()
        self.unit.addItems(["vox", "mm"])
        self.unit.setToolTip("In what sigma is given; in mm it is the same in all directions of an anisotropic map")
        self.unit.currentIndexChanged.connect(lambda *_: self._show_sigma())
        self.estimate = QPushButton("auto")
        self.estimate.setToolTip("Find the width that fits the isolated peaks of this map best")
        self.estimate.clicked.connect(lambda *_: self.attempt(explorer.set_sigma, "estimate"))
        self.window = _narrow(QSpinBox())
        self.window.setRange(3, 31)
        self.window.setSingleStep(2)
        self.window.setToolTip("Edge of the cube that each fit looks at, in voxels; odd")
        self.window.valueChanged.connect(lambda n: self.attempt(explorer.set_window, n if n % 2 else n + 1))
        self.mode = QComboBox()
        self.mode.addItems(["joint", "paper"])
        self.mode.setToolTip(
            "joint: close neighbours are fitted again together after each new peak; paper: section 3.2 to the letter, "
            f"which never looks back ({ACTIONS['mode'].key})"
        )
        self.mode.currentTextChanged.connect(lambda text: self.attempt(explorer.set_mode, text))
        self.compare = QCheckBox("other mode too")
        self.compare.setToolTip(f"{ACTIONS['compare'].help}: violet, and what differs in the tab Modes")
        self.compare.toggled.connect(explorer.set_comparing)
        self.lowest = _narrow(QDoubleSpinBox())
        self.lowest.setRange(0.001, 1.0)
        self.lowest.setSingleStep(0.01)
        self.lowest.setDecimals(3)
        self.lowest.setToolTip("Fits below this alpha are no lesions (paper, section 3.2, step 4)")
        self.lowest.valueChanged.connect(lambda value: self._change(min_alpha=round(value, 3)))
        self.patience = _narrow(QSpinBox())
        self.patience.setRange(0, 200)
        self.patience.setToolTip("So many failed fits in a row are survived before the search ends (joint mode)")
        self.patience.valueChanged.connect(lambda value: self._change(patience=value))
        form = form_of(self)
        form.addRow("sigma", row_of(self.sigma, self.unit, self.estimate, stretch=0))
        form.addRow("mode", row_of(self.mode, self.compare))
        form.addRow("window", row_of(self.window, QLabel("lowest alpha"), self.lowest))
        form.addRow("survive", row_of(self.patience, QLabel("failed fits in a row")))
        self.show_state(frozenset({"config", "comparing"}))

    def show_state(self, names: frozenset[str]) -> None:
        """Show the settings as asked for."""
        if not names & {"config", "comparing", "trajectory", "case"}:
            return
        config = self.explorer.config
        silently(self.window, self.window.setValue, config.window)
        silently(self.patience, self.patience.setValue, config.patience)
        silently(self.lowest, self.lowest.setValue, config.lowest_alpha)
        silently(self.mode, self.mode.setCurrentText, config.mode)
        silently(self.compare, self.compare.setChecked, self.explorer.comparing)
        self._show_sigma()

    def _show_sigma(self) -> None:
        sigma = self.explorer.label_sigma
        if self.unit.currentText() == "mm":
            sigma = tuple(s * mm for s, mm in zip(sigma, self.explorer.spacing, strict=True))
        self.sigma.show_value(sum(sigma) / len(sigma))

    def _set_sigma(self, value: float) -> None:
        in_mm = self.unit.currentText() == "mm"
        self.attempt(self.explorer.set_sigma, tuple(value / mm for mm in self.explorer.spacing) if in_mm else value)

    def _change(self, **settings: Any) -> None:
        self.attempt(lambda: self.explorer.set_config(replace(self.explorer.config, **settings)))


class StepPanel(Panel):
    """Walking through the steps: buttons, scrubbing, speed, and a line that says where we are."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        explorer = self.explorer
        names = ("first", "previous", "back", "play", "forward", "next", "last")
        self.buttons = {
            name: IconButton(name, ACTIONS[name].help, lambda name=name: session.do(name)) for name in names
        }
        self.scrub = QSlider(Qt.Orientation.Horizontal)
        self.scrub.setToolTip("Every phase of every iteration, from the start to the end")
        self.scrub.valueChanged.connect(explorer.go_to)
        self.speed = QSlider(Qt.Orientation.Horizontal)
        self.speed.setRange(1, 30)
        self.speed.setFixedWidth(70)
        self.speed.setToolTip("Phases played a second")
        self.speed.valueChanged.connect(lambda value: explorer.set_speed(float(value)))
        self.speed_text = QLabel()
        self.follow = QCheckBox("follow the peak")
        self.follow.setToolTip(ACTIONS["follow"].help)
        self.follow.toggled.connect(explorer.set_follow)
        self.status = muted()
        self.status.setMinimumHeight(34)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row_of(*self.buttons.values()))
        layout.addWidget(self.scrub)
        layout.addLayout(row_of(self.follow, QLabel("   speed"), self.speed, self.speed_text))
        layout.addWidget(self.status)
        self.show_state(frozenset({"trajectory", "cursor", "speed", "follow", "playing"}))

    def show_state(self, names: frozenset[str]) -> None:
        """Show cursor, speed and status."""
        explorer = self.explorer
        if names & {"trajectory", "cursor", "case"}:
            silently(self.scrub, self.scrub.setRange, -1, max(explorer.trajectory.last, 0))
            silently(self.scrub, self.scrub.setValue, explorer.cursor)
        if names & {"trajectory", "cursor", "lesions", "score", "busy", "case"}:
            self.status.setText(self.text())
        if "follow" in names:
            silently(self.follow, self.follow.setChecked, explorer.follow)
        if "speed" in names:
            silently(self.speed, self.speed.setValue, round(explorer.speed))
            self.speed_text.setText(f"{explorer.speed:g}/s")
        if "playing" in names:
            self.buttons["play"].set_icon("pause" if explorer.playing else "play")

    def text(self) -> str:
        """Where we are, and what the threshold keeps."""
        explorer = self.explorer
        if self.session.source is None:
            return "Choose a heatmap and press Step through."
        if self.session.drafting:
            return "No heatmap: click on the lesions, and watch the label grow."
        here, end = explorer.lesions, explorer.outcome
        kept = (
            f"{int(here.kept.sum())} of {len(here)} lesions kept so far, {int(end.kept.sum())} of {len(end)} at the end"
        )
        searching = " <i>searching...</i>" if explorer.busy else ""
        return f"<b>{explorer.status}</b>{searching}<br>{kept}"


class ThresholdPanel(Panel):
    """The threshold as a slider, and the bars of alpha with the same threshold as a line."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.threshold = Slider(
            0.0, 1.5, decimals=3, step=0.01, changed=self.explorer.set_threshold,
            tip="Lesions with at least this alpha are kept; nothing is fitted again (Shift+Q, Shift+W)",
        )  # fmt: skip
        self.bars = AlphaBars(self.explorer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.bars, 1)
        layout.addLayout(row_of(QLabel("threshold"), self.threshold, stretch=1))
        self.show_state(frozenset({"threshold"}))

    def show_state(self, names: frozenset[str]) -> None:
        """Show threshold and bars."""
        if "threshold" in names:
            self.threshold.show_value(self.explorer.threshold)
        if names & {"trajectory", "cursor", "threshold", "score", "case"}:
            self.bars.update()


class ChartsPanel(Panel):
    """Profile, scores, distances and differences of the modes, one at a time."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.profile, self.scores = ProfileChart(self.explorer), ScoreChart(self.explorer)
        self.distances = DistanceChart(self.explorer)
        self.axis = QComboBox()
        self.axis.setToolTip("The axis of the map along which the profile is taken")
        self.axis.setMinimumContentsLength(14)
        self.axis.currentIndexChanged.connect(self._set_axis)
        self.differences = QListWidget()
        self.differences.setToolTip("Where joint and paper mode disagree; click: go there")
        self.differences.itemClicked.connect(lambda item: self._go_to(self.differences.row(item)))
        self.differences.setWordWrap(True)
        self.differences.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tabs = QTabWidget()
        profile = QWidget()
        layout = QVBoxLayout(profile)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.addWidget(self.profile, 1)
        layout.addLayout(row_of(QLabel("along"), self.axis))
        for title, part, tip in (
            ("Profile", profile, "A line through the current peak"),
            ("F1", self.scores, "Scores against the threshold"),
            ("Distance", self.distances, "Alpha against the distance to the truth"),
            ("Modes", self.differences, "Paper mode beside joint mode"),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(part, title), tip)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.tabs)
        self.show_state(frozenset({"case", "comparison"}))

    def show_state(self, names: frozenset[str]) -> None:
        """Repaint the charts that have changed."""
        if "case" in names:
            titles = ("i: left to right", "j: back to front", "k: bottom to top")
            known = self.session.placement is not None and self.session.placement.turned
            chosen = max(self.axis.currentIndex(), 0)
            with QSignalBlocker(self.axis):
                self.axis.clear()
                self.axis.addItems([titles[a] if known else f"axis {a}" for a in range(self.explorer.heatmap.ndim)])
                self.axis.setCurrentIndex(min(chosen, self.axis.count() - 1))
        if names & {"cursor", "trajectory", "residual", "case"}:
            self.profile.update()
        if names & {"curve", "threshold", "score", "truth", "case"}:
            self.scores.update()
        if names & {"curve", "threshold", "score", "truth", "cursor", "case"}:
            self.distances.update()
        if names & {"comparison", "comparing", "case"}:
            self._list_differences()

    def _list_differences(self) -> None:
        comparison = self.explorer.comparison
        self.differences.clear()
        if comparison is None:
            self.differences.addItem("Tick 'other mode too' (Shift+N) to compare paper and joint mode.")
        elif not comparison.differences:
            self.differences.addItem("Both modes find the same lesions at this threshold.")
        else:
            self.differences.addItems([str(one) for one in comparison.differences])

    def _go_to(self, row: int) -> None:
        comparison = self.explorer.comparison
        if comparison is not None and row < len(comparison.differences):
            self.explorer.move_to(comparison.differences[row].point)

    def _set_axis(self, axis: int) -> None:
        self.profile.axis = max(axis, 0)
        self.profile.update()


class TruthPanel(Panel):
    """True points: setting them by clicks, undo, the label, the score, files."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        explorer = self.explorer
        self.annotate = QPushButton("annotate")
        self.annotate.setCheckable(True)
        self.annotate.setToolTip(
            f"{ACTIONS['annotate'].help}: click: a point; drag a point: move it; Shift+click: remove it"
        )
        self.annotate.toggled.connect(session.set_annotating)
        self.undo, self.redo = QPushButton("undo"), QPushButton("redo")
        for button, name in ((self.undo, "undo"), (self.redo, "redo")):
            button.setToolTip(ACTIONS[name].help)
            button.clicked.connect(lambda *_, name=name: session.do(name))
        self.label = QCheckBox("show the label")
        self.label.setToolTip("The heatmap that a network would learn from these points at this sigma, live")
        self.label.toggled.connect(session.show_label)
        session.label_changed.connect(self._show_label)
        self.gate = _narrow(QDoubleSpinBox())
        self.gate.setRange(0.0, 100.0)
        self.gate.setSuffix(" mm")
        self.gate.setDecimals(1)
        self.gate.setToolTip("A detection this close to a true point is a hit")
        self.gate.valueChanged.connect(lambda value: explorer.set_matching(max_distance=value))
        self.load, self.save = QPushButton("load..."), QPushButton("save...")
        self.load.setToolTip("Read true points: TSV, CSV, 3D Slicer (.mrk.json, .fcsv), label images")
        self.save.setToolTip("Write the true points: TSV, CSV, 3D Slicer (.mrk.json, .fcsv), napari (_napari.csv)")
        self.score = muted()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row_of(self.annotate, self.undo, self.redo, self.load, self.save))
        layout.addLayout(row_of(self.label, QLabel("   hit within"), self.gate))
        layout.addWidget(self.score)
        session.annotating_changed.connect(self._show_annotating)
        self.show_state(frozenset({"truth", "score"}))
        self.gate.setValue(explorer.max_distance)

    def show_state(self, names: frozenset[str]) -> None:
        """Show the score and what can be undone."""
        if names & {"truth", "case"}:
            self.undo.setEnabled(self.explorer.can_undo)
            self.redo.setEnabled(self.explorer.can_redo)
        if names & {"truth", "score", "threshold", "case"}:
            self.score.setText(self.text())

    def text(self) -> str:
        """Precision, recall and F1 at the threshold."""
        truth, score = self.explorer.truth, self.explorer.score
        if truth is None or score is None:
            return "No truth is known: load points, or set them by clicks."
        if self.session.drafting or not self.explorer.steps:
            return f"<b>{len(truth)}</b> true point{'' if len(truth) == 1 else 's'}"

        def number(value: float) -> str:
            return f"{value:.2f}" if math.isfinite(value) else "-"

        counts = f"{score.tp} found, {score.fp} false alarms, {score.fn} missed"
        return (
            f"<b>F1 {number(score.f1)}</b> &nbsp; precision {number(score.precision)} &nbsp; "
            f"recall {number(score.recall)}<br>{counts}"
        )

    def _show_annotating(self, annotating: bool) -> None:
        silently(self.annotate, self.annotate.setChecked, annotating)

    def _show_label(self, shown: bool) -> None:
        silently(self.label, self.label.setChecked, shown)
