"""What all charts of the plugin share: axes, ink that suits the theme, the mouse. Drawn with Qt alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from lesionkit.explorer import Explorer

Limits = tuple[float, float, float, float]
"""Lowest and highest x, lowest and highest y."""
GRAB = 7.0
"""A press this close to a line, in pixels, takes hold of it."""


class Chart(QWidget):
    """A small chart that reads the explorer whenever it paints; it keeps no data of its own.

    Parameters
    ----------
    explorer : Explorer
        What is shown.
    tip : str
        Tooltip, and what screen readers say.
    height : int
        In pixels.
    """

    left, right, top, bottom = 40, 10, 10, 32
    x_title, y_title = "", ""
    nothing = "Start on a heatmap first"
    """What stands there if there is nothing to show."""
    _frame: Limits | None = None
    """Limits during one painting, where every point asks for them."""

    def __init__(self, explorer: Explorer, *, tip: str, height: int = 128) -> None:
        super().__init__()
        self.explorer = explorer
        self.setMinimumSize(220, height)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding)
        self.setToolTip(tip)
        self.setAccessibleName(self.y_title or type(self).__name__)
        self.setAccessibleDescription(tip)
        self.setMouseTracking(True)

    # ------------------------------------------------------------------ for subclasses
    def limits(self) -> Limits | None:
        """Return the limits of the axes; None if there is nothing to show."""
        raise NotImplementedError

    def paint(self, painter: QPainter) -> None:
        """Draw inside the axes."""
        raise NotImplementedError

    # ------------------------------------------------------------------ from data to pixels
    def area(self) -> QRectF:
        """Where the data are drawn."""
        return QRectF(
            self.left, self.top, max(self.width() - self.left - self.right, 1),
            max(self.height() - self.top - self.bottom, 1),
        )  # fmt: skip

    def to_pixel(self, x: float, y: float) -> QPointF:
        """Return the pixel of a place in the data."""
        (x0, x1, y0, y1), area = self._frame or self.limits() or (0.0, 1.0, 0.0, 1.0), self.area()
        return QPointF(
            area.left() + area.width() * (x - x0) / (x1 - x0), area.bottom() - area.height() * (y - y0) / (y1 - y0)
        )

    def from_pixel(self, at: QPointF) -> tuple[float, float]:
        """Return the place in the data of a pixel."""
        (x0, x1, y0, y1), area = self.limits() or (0.0, 1.0, 0.0, 1.0), self.area()
        return (
            x0 + (at.x() - area.left()) / area.width() * (x1 - x0),
            y0 + (area.bottom() - at.y()) / area.height() * (y1 - y0),
        )

    # ------------------------------------------------------------------ ink
    def ink(self, alpha: float = 1.0) -> QColor:
        """Colour of text and axes in the present theme."""
        colour = QColor(self.palette().color(self.foregroundRole()))
        colour.setAlphaF(alpha)
        return colour

    def suited(self, colour: str, alpha: float = 1.0) -> QColor:
        """Return a colour, darker where the theme is light."""
        chosen = QColor(colour)
        if self.ink().lightnessF() < 0.5:
            chosen = chosen.darker(135)
        chosen.setAlphaF(alpha)
        return chosen

    # ------------------------------------------------------------------ drawing
    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the axes and what is inside."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = QFont(self.font())
        font.setPointSizeF(8.0)
        painter.setFont(font)
        painter.fillRect(self.area(), self.ink(0.05))
        self._frame = limits = self.limits()
        if limits is None:
            painter.setPen(self.ink(0.6))
            wrap = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(self.area().adjusted(6, 0, -6, 0), int(wrap), self.nothing)
        else:
            self._draw_axes(painter, limits)
            painter.save()
            painter.setClipRect(self.area().adjusted(-1, -4, 4, 1))
            self.paint(painter)
            painter.restore()
        self._frame = None
        painter.end()

    def _draw_axes(self, painter: QPainter, limits: Limits) -> None:
        area = self.area()
        x0, x1, y0, y1 = limits
        for value in ticks(y0, y1, 3):
            y = self.to_pixel(x0, value).y()
            painter.setPen(QPen(self.ink(0.13), 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(self.ink(0.75))
            box = QRectF(0, y - 8, self.left - 5, 16)
            painter.drawText(box, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), f"{value:.3g}")
        for value in self.x_ticks(x0, x1):
            x = self.to_pixel(value, y0).x()
            painter.setPen(self.ink(0.75))
            box = QRectF(x - 30, area.bottom() + 2, 60, 14)
            painter.drawText(box, int(Qt.AlignmentFlag.AlignHCenter), f"{value:.3g}")
        painter.setPen(self.ink(0.75))
        box = QRectF(self.left, self.height() - 15, area.width(), 14)
        painter.drawText(box, int(Qt.AlignmentFlag.AlignHCenter), self.x_title)
        painter.setPen(QPen(self.ink(0.4), 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.drawLine(area.topLeft(), area.bottomLeft())

    def x_ticks(self, low: float, high: float) -> list[float]:
        """Numbers under the x axis."""
        return ticks(low, high, 6)

    def polyline(self, painter: QPainter, x: Sequence[float], y: Sequence[float], pen: QPen) -> None:
        """Draw a line; it is broken where a value is not finite."""
        painter.setPen(pen)
        part: list[QPointF] = []
        for a, b in zip(x, y, strict=True):
            if math.isfinite(a) and math.isfinite(b):
                part.append(self.to_pixel(a, b))
            elif part:
                painter.drawPolyline(QPolygonF(part))
                part = []
        if part:
            painter.drawPolyline(QPolygonF(part))

    def legend(self, painter: QPainter, entries: Sequence[tuple[str, QColor]]) -> None:
        """Names in their colours at the upper right."""
        metrics = painter.fontMetrics()
        x = self.area().right() - 4
        for name, colour in reversed(entries):
            x -= metrics.horizontalAdvance(name)
            painter.setPen(colour)
            painter.drawText(QPointF(x, self.area().top() + 10), name)
            x -= 10

    def threshold_pen(self) -> QPen:
        """Pen of the line at the threshold."""
        return QPen(self.ink(0.9), 1.6, Qt.PenStyle.DashLine)


class ThresholdChart(Chart):
    """A chart with a line at the threshold that can be dragged.

    A click elsewhere calls :meth:`clicked`.
    """

    along_x = False
    """Whether the threshold is on the x axis."""
    _dragging = False

    def clicked(self, at: QPointF) -> None:
        """Do what a click at a place means."""

    def on_line(self, at: QPointF) -> bool:
        """Tell whether a place is on the line."""
        if self.limits() is None:
            return False
        line = (
            self.to_pixel(self.explorer.threshold, 0.0) if self.along_x else self.to_pixel(0.0, self.explorer.threshold)
        )
        return abs((at.x() - line.x()) if self.along_x else (at.y() - line.y())) <= GRAB

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold of the line, or click."""
        if event.button() != Qt.MouseButton.LeftButton or self.limits() is None:
            return
        self._dragging = self.on_line(event.position())
        if not self._dragging:
            self.clicked(event.position())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the line, or show that it can be dragged."""
        if self._dragging:
            x, y = self.from_pixel(event.position())
            self.explorer.set_threshold(max(round(x if self.along_x else y, 3), 0.0))
            return
        line = Qt.CursorShape.SizeHorCursor if self.along_x else Qt.CursorShape.SizeVerCursor
        self.setCursor(line if self.on_line(event.position()) else Qt.CursorShape.ArrowCursor)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        self._dragging = False


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, `most` or fewer, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(float(k * step), 12) for k in np.arange(first, math.floor(high / step + 1e-9) + 1)]
