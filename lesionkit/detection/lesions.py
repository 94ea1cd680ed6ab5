"""The lesions kept by fit-and-subtract, and the joint refit of those that overlap.

Refitting a linked group on the original map after every new peak is what resolves close neighbours (orthogonal matching
pursuit; Stetson, 1987, does the same for crowded star fields).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.detection.config import WIDEST
from lesionkit.detection.group import fit_group
from lesionkit.detection.records import FitStep, Refit
from lesionkit.detection.residual import LESION, Field, Residual

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Array = np.ndarray


class Lesions:
    """What is kept, one row of `LESION` each, in the order in which it was found."""

    def __init__(self, field: Field, residual: Residual) -> None:
        self.field, self.residual = field, residual
        self._table = np.zeros(64, LESION)  # grown in advance
        self.rows = self._table[:0]

    def __len__(self) -> int:
        return len(self.rows)

    def subtract(self, lesion: tuple[Any, ...]) -> None:
        """Keep a lesion as it was fitted, and subtract it from what is left."""
        n = len(self)
        if n == len(self._table):
            self._table = np.concatenate([self._table, self._table])
        self._table[n] = lesion
        self.rows = self._table[: n + 1]
        self.residual.subtract(self.rows[n:])

    def linked(self) -> Int[Array, " m"]:
        """Return the newest lesion's row, after those linked to it, directly or through others.

        The closest are taken if there are many.
        """
        link, new = self.field.config.link**2, len(self) - 1
        away = self._squared(self.rows[new:], self.rows)[0]
        inside, n = away < link, 1
        while n < (n := int(np.count_nonzero(inside))):
            inside |= (self._squared(self.rows[inside], self.rows) < link).any(0)
        inside[new] = False
        rows = inside.nonzero()[0]
        if rows.size >= self.field.config.max_group:
            rows = rows[np.argsort(away[rows], kind="stable")[: self.field.config.max_group - 1]]
        return np.append(rows, new)

    def refit(self, step: FitStep) -> FitStep:
        """Fit the newest lesion and those linked to it together, on the map less all others.

        Drops those that the rest of the group explains. Returns the step told what became of the group.
        """
        group = self.linked()
        if group.size == 1:
            return step
        field, new, live = self.field, len(group) - 1, list(range(len(group)))
        start, others = self.rows[group], np.delete(self.rows, group)
        self.residual.subtract(start, -1.0)
        nearest = np.rint(start["mu"]).astype(int)
        lower, upper = field.bounds(nearest.min(0), nearest.max(0), float(start["width"].max()))
        box = field.less(lower, upper, others)
        newest = start[new].copy()
        while True:
            before = start[live]
            fit = fit_group(
                box, before["mu"] - lower, before["amplitude"], field.sigma,
                width=before["width"] if field.free else None, widths=(1.0, WIDEST),
            )  # fmt: skip
            after = before.copy()
            after["mu"], after["amplitude"], after["width"] = fit.mu + lower, fit.amplitude, fit.width
            worst = self._to_drop(before, after)
            if worst is None or len(live) == 1:
                break
            close = self._squared(after, after[-1:])[worst, 0] < field.config.min_separation**2
            if live[worst] != new and live[-1] == new and close:
                # of two that become one, the older gives its name and the brighter its place
                start["mu"][live[worst]], worst = newest["mu"], len(live) - 1
            del live[worst]
        noise = fit.sse / max(box.size - (field.n_free + field.free) * len(live), 1)
        after["explained"] = 1.0 - fit.sse / fit.energy
        after["variance"], after["covariance"] = fit.covariance[:, 0, 0] * noise, fit.covariance[:, 1:, 1:] * noise
        stay = group[live]
        self.rows[stay] = after
        self.residual.subtract(after)
        gone = np.setdiff1d(group, stay)
        drops = self.rows["found"][gone].tolist()
        self.rows = self._table = np.delete(self.rows, gone)
        points, alphas = field.point(after["mu"]), (fit.amplitude / field.unit).tolist()
        refits = tuple(map(Refit, after["found"].tolist(), points, alphas, fit.width.tolist()))
        if step.number in drops:
            drops.remove(step.number)
            step = step._replace(status="merged")
        return step._replace(refits=refits, drops=tuple(drops))

    def _to_drop(self, before: Array, after: Array) -> int | None:
        """Return the member of a refitted group that should go, None if all may stay."""
        field, config, amplitude = self.field, self.field.config, after["amplitude"]
        bad = amplitude / field.unit < config.lowest_alpha
        moved = np.abs(after["mu"] - before["mu"]) / (field.sigma * after["width"][:, None])
        bad |= (moved > config.guard + 1.0).any(1)
        if not bad.any():
            squared = self._squared(after, after)
            np.fill_diagonal(squared, np.inf)
            if squared.min() < config.min_separation**2:
                a, b = np.unravel_index(int(squared.argmin()), squared.shape)
                bad[a if amplitude[a] < amplitude[b] else b] = True
        rows = np.flatnonzero(bad)
        return int(rows[amplitude[rows].argmin()]) if rows.size else None

    def _squared(self, one: Array, other: Array) -> Float[Array, "m n"]:
        """Return squared distances in sigma, times the width of the wider one."""
        away = (one["mu"][:, None] - other["mu"]) / self.field.sigma
        squared = (away * away).sum(2)
        return np.asarray(
            squared / np.maximum(one["width"][:, None], other["width"]) ** 2 if self.field.free else squared
        )
