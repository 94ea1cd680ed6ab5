"""Four charts: alpha of every step, the profile through a peak, scores by threshold, alpha against distance."""

from __future__ import annotations

import math

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, Qt
from qtpy.QtGui import QHelpEvent, QPainter, QPen
from qtpy.QtWidgets import QToolTip

from lesionkit.explorer import Explorer, Phase
from napari_lesionkit.chart import Chart, Limits, ThresholdChart, ticks
from napari_lesionkit.colours import CURRENT, VERDICTS

NO_TRUTH = "No truth is known: load points, or set them by clicks (G)"


class AlphaBars(ThresholdChart):
    """One bar a step; pale until the step has happened, coloured by what threshold and truth say of it."""

    x_title, y_title = "iteration (click: go there)", "alpha"

    def __init__(self, explorer: Explorer) -> None:
        tip = (
            "Alpha, the existence probability, of every step. Drag the dashed line: the threshold. Click a bar: go to "
            "that fit. Green: kept; orange: false alarm; grey: below the threshold, or no lesion."
        )
        super().__init__(explorer, tip=tip, height=150)

    def limits(self) -> Limits | None:
        """From the first step to the last, from 0 to the highest alpha."""
        steps = self.explorer.steps
        if not steps:
            return None
        return 0.5, max(len(steps), 8) + 0.5, 0.0, 1.12 * max(1.0, self.explorer.threshold, float(self.heights().max()))

    def heights(self) -> np.ndarray:
        """Alpha of every step: as at the end for lesions, as first fitted for what became none; 0 to 1.5."""
        detections = self.explorer.detections
        alpha = np.array([step.alpha for step in detections.steps])
        alpha[list(detections.found)] = detections.alpha
        return np.clip(np.nan_to_num(alpha), 0.0, 1.5)

    def x_ticks(self, low: float, high: float) -> list[float]:
        """Whole numbers only."""
        return [value for value in ticks(low, high, 8) if value >= 1 and value == int(value)]

    def paint(self, painter: QPainter) -> None:
        """Draw the bars, the current one outlined, and the threshold."""
        explorer, area = self.explorer, self.area()
        found = dict(zip(explorer.detections.found, explorer.outcome.verdicts, strict=True))
        width = area.width() / (self.limits() or (0, 1))[1]
        gap = min(width * 0.2, 3.0)
        base = area.bottom()
        for i, alpha in enumerate(self.heights().tolist()):
            verdict = found.get(i)
            colour = self.suited(VERDICTS[verdict or "below"], 1.0 if i < explorer.n_subtracted else 0.4)
            top = self.to_pixel(i + 1, alpha)
            bar = QRectF(top.x() - width / 2 + gap / 2, top.y(), max(width - gap, 1.0), base - top.y())
            if verdict is None:
                painter.setPen(QPen(colour, 1, Qt.PenStyle.DotLine))
                painter.drawRect(bar)
            else:
                painter.fillRect(bar, colour)
            if i == explorer.iteration:
                painter.setPen(QPen(self.suited(CURRENT), 2))
                painter.drawRect(bar.adjusted(-1, -1, 1, 0))
        y = self.to_pixel(1, explorer.threshold).y()
        painter.setPen(self.threshold_pen())
        painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        painter.setPen(self.ink())
        label = f"threshold {explorer.threshold:.2f}: {int(explorer.outcome.kept.sum())} of {len(explorer.outcome)}"
        painter.drawText(QPointF(area.right() - painter.fontMetrics().horizontalAdvance(label) - 4, y - 4), label)

    def step_at(self, at: QPointF) -> int | None:
        """Return the step whose bar is above or below a place."""
        i = math.floor(self.from_pixel(at)[0] + 0.5) - 1
        return i if 0 <= i < len(self.explorer.steps) else None

    def clicked(self, at: QPointF) -> None:
        """Go to the fit of a bar."""
        step = self.step_at(at)
        if step is not None:
            self.explorer.go_to_step(step, Phase.FIT)

    def event(self, event: QEvent) -> bool:
        """Say what a bar is."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent) and self.limits() is not None:
            i = self.step_at(QPointF(event.pos()))
            if i is not None:
                step = self.explorer.steps[i]
                flags = "".join(f", {flag}" for flag in step.flags)
                text = f"iteration {i + 1}: alpha {self.heights()[i]:.2f}, {step.status}{flags}"
                QToolTip.showText(event.globalPos(), text, self)
                return True
        return super().event(event)


class ProfileChart(Chart):
    """A line of voxels through the current maximum: residual, fit, and what subtracting leaves."""

    x_title, y_title = "mm from the maximum", "profile"
    nothing = "Step to a maximum first (K)"

    def __init__(self, explorer: Explorer) -> None:
        tip = (
            "The map along one axis through the current maximum: before (grey), the fitted Gaussian (yellow), after "
            "subtracting it (blue). The shaded part is the window that the fit looks at."
        )
        super().__init__(explorer, tip=tip)
        self.axis = 0
        """Along which axis of the map."""

    def limits(self) -> Limits | None:
        """Follow the profile; the y axis always holds 0."""
        profile = self._profile()
        if profile is None or len(profile.index) < 2:
            return None
        shown = np.concatenate([profile.residual, profile.fit, profile.after])
        shown = shown[np.isfinite(shown)]
        low, high = min(float(shown.min()), 0.0), max(float(shown.max()), 0.0)
        room = 0.06 * (high - low) or 1.0
        return float(profile.offset_mm[0]), float(profile.offset_mm[-1]), low - room, high + 2.4 * room

    def _profile(self):  # type: ignore[no-untyped-def]  # the state's type would be loaded for it
        return self.explorer.profile(min(self.axis, self.explorer.heatmap.ndim - 1))

    def paint(self, painter: QPainter) -> None:
        """Draw as much as the phase has shown."""
        profile, phase = self._profile(), self.explorer.phase
        x = profile.offset_mm.tolist()
        seen = np.flatnonzero(profile.window)
        if len(seen):
            half = 0.5 * abs(x[1] - x[0])
            first, last = self.to_pixel(x[seen[0]] - half, 0).x(), self.to_pixel(x[seen[-1]] + half, 0).x()
            painter.fillRect(QRectF(first, self.area().top(), last - first, self.area().height()), self.ink(0.07))
        zero = self.to_pixel(x[0], 0.0)
        painter.setPen(QPen(self.ink(0.35), 1))
        painter.drawLine(zero, QPointF(self.area().right(), zero.y()))
        before, fit, after = self.ink(0.75), self.suited(CURRENT), self.suited("#4aa8ff")
        names = [("residual", before)]
        self.polyline(painter, x, profile.residual.tolist(), QPen(before, 2))
        for a, b in zip(x, profile.residual.tolist(), strict=True):
            painter.setBrush(before)
            painter.drawEllipse(self.to_pixel(a, b), 1.7, 1.7)
        if phase is not None and phase >= Phase.FIT:
            names.append(("fit", fit))
            self.polyline(painter, x, profile.fit.tolist(), QPen(fit, 2))
        if phase is Phase.SUBTRACT:
            names.append(("after", after))
            self.polyline(painter, x, profile.after.tolist(), QPen(after, 2))
        self.legend(painter, names)


class ScoreChart(ThresholdChart):
    """Precision, recall and F1 against the threshold, the present one marked."""

    x_title, y_title = "threshold (drag the line)", "scores"
    nothing = NO_TRUTH
    along_x = True

    def __init__(self, explorer: Explorer) -> None:
        tip = (
            "F1, precision and recall of this map against the threshold. Drag the dashed line, or click: the threshold."
        )
        super().__init__(explorer, tip=tip)

    def limits(self) -> Limits | None:
        """From threshold 0 to the highest alpha; scores from 0 to 1."""
        curve = self.explorer.curve
        if curve is None or not len(curve.threshold):
            return None
        return 0.0, 1.05 * max(float(curve.threshold[0]), self.explorer.threshold, 0.1), 0.0, 1.12

    def paint(self, painter: QPainter) -> None:
        """Draw the curves as the steps that they are."""
        curve, score = self.explorer.curve, self.explorer.score
        if curve is None or score is None:
            return
        edges = np.append(curve.threshold, 0.0)
        names = []
        for name, values, colour, wide in (
            ("recall", curve.recall, "#4aa8ff", 1.3), ("precision", curve.precision, "#f2725c", 1.3),
            ("F1", curve.f1, "#2fbf8f", 2.4),
        ):  # fmt: skip
            shade = self.suited(colour)
            x, y = np.repeat(edges, 2)[1:-1], np.repeat(values, 2)
            self.polyline(painter, x.tolist(), y.tolist(), QPen(shade, wide))
            names.append((name, shade))
        place = self.to_pixel(self.explorer.threshold, 0.0).x()
        painter.setPen(self.threshold_pen())
        painter.drawLine(QPointF(place, self.area().top()), QPointF(place, self.area().bottom()))
        if math.isfinite(score.f1):
            painter.setPen(QPen(self.ink(), 1.5))
            painter.setBrush(self.suited("#2fbf8f"))
            painter.drawEllipse(self.to_pixel(self.explorer.threshold, score.f1), 4.5, 4.5)
        self.legend(painter, names)

    def clicked(self, at: QPointF) -> None:
        """Put the threshold where the click is, and take hold of it."""
        self.explorer.set_threshold(max(round(self.from_pixel(at)[0], 3), 0.0))
        self._dragging = True


class DistanceChart(ThresholdChart):
    """Every candidate's alpha against its distance to the truth: what a threshold and a gate can tell apart."""

    x_title, y_title = "distance to the nearest true point, mm", "alpha against distance"
    nothing = NO_TRUTH

    def __init__(self, explorer: Explorer) -> None:
        tip = (
            "Alpha of every candidate against its distance to the nearest true point. Dotted: the largest distance "
            "of a hit. Drag the dashed line: the threshold. Click a dot: go to that fit."
        )
        super().__init__(explorer, tip=tip)

    def limits(self) -> Limits | None:
        """Distances to twice the gate; farther ones stand at the border."""
        spread = self.explorer.spread
        if spread is None or not len(spread.alpha):
            return None
        high = 1.12 * max(1.0, float(np.nanmax(spread.alpha)), self.explorer.threshold)
        return 0.0, self._farthest(), 0.0, high

    def _farthest(self) -> float:
        return 2.5 * max(self.explorer.max_distance, 1.0)

    def places(self) -> list[QPointF]:
        """Return the pixel of every candidate."""
        spread = self.explorer.spread
        if spread is None:
            return []
        x = np.minimum(spread.distance_mm, 0.985 * self._farthest())
        return [self.to_pixel(a, b) for a, b in zip(x.tolist(), spread.alpha.tolist(), strict=True)]

    def paint(self, painter: QPainter) -> None:
        """Draw gate, threshold and dots."""
        area, explorer = self.area(), self.explorer
        gate = self.to_pixel(explorer.max_distance, 0.0).x()
        painter.setPen(QPen(self.ink(0.6), 1.2, Qt.PenStyle.DotLine))
        painter.drawLine(QPointF(gate, area.top()), QPointF(gate, area.bottom()))
        y = self.to_pixel(0.0, explorer.threshold).y()
        painter.setPen(self.threshold_pen())
        painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        current = explorer.iteration
        for place, verdict, found in zip(self.places(), explorer.outcome.verdicts, explorer.outcome.found, strict=True):
            painter.setPen(QPen(self.suited(CURRENT), 2) if found == current else QPen(self.ink(0.5), 0.6))
            painter.setBrush(self.suited(VERDICTS[verdict], 0.9))
            painter.drawEllipse(place, 4.0, 4.0)
        self.legend(painter, [("hit", self.suited(VERDICTS["tp"])), ("false alarm", self.suited(VERDICTS["fp"])),
                              ("below", self.suited(VERDICTS["below"]))])  # fmt: skip

    def clicked(self, at: QPointF) -> None:
        """Go to the fit of the nearest dot."""
        away = [math.hypot(place.x() - at.x(), place.y() - at.y()) for place in self.places()]
        if away and min(away) < 12.0:
            self.explorer.jump_to_lesion(int(np.argmin(away)))
