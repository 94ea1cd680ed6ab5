"""Small controls: buttons with painted icons, sliders with numbers, lists of layers, rows, columns, what folds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, QSignalBlocker, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QComboBox, QFrame, QHBoxLayout, QLabel, QScrollArea, QSizePolicy, QToolButton, QWidget
from superqt import QLabeledDoubleSlider

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

ICONS: dict[str, str] = {
    "first": "|<", "previous": "<<", "back": "<|", "play": ">", "pause": "||", "forward": "|>", "next": ">>",
    "last": ">|",
}  # fmt: skip
"""Icons in letters: a bar and triangles, drawn one beside the other."""


class IconButton(QToolButton):
    """A media button, painted in the colour of the theme: no icon font and no icon theme is needed.

    Parameters
    ----------
    icon : str
        A key of `ICONS`.
    tip : str
        Tooltip.
    run : callable
        What a click does.
    """

    def __init__(self, icon: str, tip: str, run: Callable[[], object]) -> None:
        super().__init__()
        self.icon_name = icon
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setFixedSize(36, 28)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys belong to the viewer
        self.clicked.connect(lambda *_: run())

    def set_icon(self, icon: str) -> None:
        """Show another icon."""
        self.icon_name = icon
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the button and its icon."""
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colour = self.palette().color(self.foregroundRole())
        colour.setAlphaF(1.0 if self.isEnabled() else 0.35)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        marks = ICONS[self.icon_name]
        widths = {"<": 10.0, ">": 10.0, "|": 3.0}
        gap = 3.0 if set(marks) == {"|"} else 1.0
        x = (self.width() - sum(widths[mark] for mark in marks) - gap * (len(marks) - 1)) / 2
        top, bottom, middle = self.height() / 2 - 6, self.height() / 2 + 6, self.height() / 2
        for mark in marks:
            if mark == "|":
                painter.drawRect(QRectF(x, top, 3.0, bottom - top))
            else:
                tip, base = (x + 10, x) if mark == ">" else (x, x + 10)
                painter.drawPolygon(QPolygonF([QPointF(base, top), QPointF(base, bottom), QPointF(tip, middle)]))
            x += widths[mark] + gap
        painter.end()


class Slider(QLabeledDoubleSlider):
    """A slider with its number, which the state can move without being told of it."""

    def __init__(
        self, low: float, high: float, *, tip: str, decimals: int, step: float, changed: Callable[[float], object]
    ) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(low, high)
        self.setDecimals(decimals)
        self.setSingleStep(step)
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.valueChanged.connect(lambda value: changed(round(float(value), decimals)))

    def show_value(self, value: float) -> None:
        """Show the state's value; the range grows if it must."""
        if math.isclose(self.value(), value, abs_tol=10.0 ** -(self.decimals() + 1)):
            return
        with QSignalBlocker(self):
            if not self.minimum() <= value <= self.maximum():
                self.setRange(min(self.minimum(), value), max(self.maximum(), value))
            self.setValue(value)


class LayerPicker(QComboBox):
    """A list of the viewer's layers of a kind; it follows the viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Whose layers.
    accepts : function of a layer
        Which layers are listed.
    none : str
        What the first entry says, which is no layer.
    tip : str
        Tooltip.
    """

    def __init__(self, viewer: ViewerModel, accepts: Callable[[Layer], bool], *, none: str, tip: str) -> None:
        super().__init__()
        self._viewer, self._accepts, self._none = viewer, accepts, none
        self._layers: list[Layer] = []
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for event in self._events():
            event.connect(self.refresh)
        self.refresh()

    def _events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.reordered, events.renamed

    def refresh(self, event: Any = None) -> None:
        """List the layers as they are now; what was chosen stays chosen."""
        chosen = self.layer
        layers = [layer for layer in self._viewer.layers if self._accepts(layer)]
        self._layers = layers
        with QSignalBlocker(self):
            self.clear()
            self.addItem(self._none)
            self.addItems([layer.name for layer in layers])
            self.setCurrentIndex(layers.index(chosen) + 1 if chosen in layers else 0)
        if chosen is not None and chosen not in layers:
            self.currentIndexChanged.emit(0)

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        row = self.currentIndex() - 1
        return self._layers[row] if 0 <= row < len(self._layers) else None

    @property
    def listed(self) -> list[Layer]:
        """All layers in the list."""
        return list(self._layers)

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer."""
        self.setCurrentIndex(self._layers.index(layer) + 1 if layer in self._layers else 0)

    def close_events(self) -> None:
        """Follow the viewer no more."""
        for event in self._events():
            event.disconnect(self.refresh)


class Heading(QLabel):
    """Name of a group of controls, with a line under it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        font = self.font()
        font.setBold(True)
        self.setFont(font)
        self.setContentsMargins(0, 6, 0, 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the text and the line."""
        super().paintEvent(event)
        painter = QPainter(self)
        colour = self.palette().color(self.foregroundRole())
        colour.setAlphaF(0.3)
        painter.setPen(QPen(colour, 1))
        painter.drawLine(0, self.height() - 1, self.width(), self.height() - 1)
        painter.end()


def muted(text: str = "", parent: QWidget | None = None) -> QLabel:
    """Return a line of text that wraps."""
    label = QLabel(text, parent)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def row_of(*parts: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Return widgets in a row; `stretch` is the index of the one that takes the room."""
    row = QHBoxLayout()
    row.setSpacing(4)
    for i, part in enumerate(parts):
        row.addWidget(part, 1 if i == stretch else 0)
    if stretch is None:
        row.addStretch(1)
    return row


def foldable(title: str, content: QWidget) -> QToolButton:
    """Return a button that shows and hides what is under it."""
    button = QToolButton()
    button.setText(title)
    button.setCheckable(True)
    button.setArrowType(Qt.ArrowType.RightArrow)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setToolTip(f"{title}: show or hide")
    content.setVisible(False)

    def fold(shown: bool) -> None:
        content.setVisible(shown)
        button.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)

    button.toggled.connect(fold)
    return button


class Column(QScrollArea):
    """A column that scrolls up and down and is never narrower than what is in it, in any theme."""

    def __init__(self, inside: QWidget) -> None:
        super().__init__()
        self.setWidget(inside)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Grow with the content."""
        if event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            self.setMinimumWidth(self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width())
        return super().eventFilter(watched, event)


def silently(part: QObject, change: Callable[..., object], *values: object) -> None:
    """Change what a control shows without its telling anybody: the state knows already."""
    with QSignalBlocker(part):
        change(*values)
