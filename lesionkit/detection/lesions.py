"""The lesions kept by fit-and-subtract, and the joint refit of those that overlap.

Refitting a linked group on the original map after every new peak is what resolves close neighbours (orthogonal matching
pursuit; Stetson, 1987, does the same for crowded star fields).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.detection.group import fit_group
from lesionkit.detection.records import FitStep, Refit
from lesionkit.detection.residual import Field, Residual

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Array = np.ndarray

LESION = np.dtype(
    [
        ("found", int),  # by this step
        ("mu", float, 3),
        ("amplitude", float),
        ("variance", float),  # of the amplitude
        ("explained", float),  # share of the energy around it
        ("covariance", float, (3, 3)),  # of mu
    ]
)


class Lesions:
    """What is kept, one row of `LESION` each, in the order in which it was found."""

    def __init__(self, field: Field, residual: Residual) -> None:
        self.field, self.residual = field, residual
        self._table = np.zeros(64, LESION)  # grown in advance
        self.rows = self._table[:0]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mu(self) -> Float[Array, "n 3"]:
        """Centres."""
        return self.rows["mu"]

    @property
    def amplitude(self) -> Float[Array, " n"]:
        """Heights."""
        return self.rows["amplitude"]

    def subtract(self, lesion: tuple[Any, ...]) -> None:
        """Keep a lesion as it was fitted, and subtract it from what is left."""
        n = len(self)
        if n == len(self._table):
            self._table = np.concatenate([self._table, self._table])
        self._table[n] = lesion
        self.rows = self._table[: n + 1]
        self.residual.subtract(self.mu[n:], self.amplitude[n:])

    def linked(self) -> Int[Array, " m"]:
        """Return the newest lesion's row, after those linked to it, directly or through others.

        The closest are taken if there are many.
        """
        link, new = self.field.config.link**2, len(self) - 1
        away = self._squared(self.mu[-1:], self.mu)[0]
        inside, n = away < link, 1
        while n < (n := int(np.count_nonzero(inside))):
            inside |= (self._squared(self.mu[inside], self.mu) < link).any(0)
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
        field, config = self.field, self.field.config
        start, amplitude = self.mu[group], self.amplitude[group]
        others, new, live = np.delete(self.rows, group), len(group) - 1, list(range(len(group)))
        self.residual.subtract(start, -amplitude)
        lower, upper = field.bounds(np.rint(start.min(0)).astype(int), np.rint(start.max(0)).astype(int))
        box = field.less(lower, upper, others["mu"], others["amplitude"])
        newest = start[new].copy()
        while True:
            fit = fit_group(box, start[live] - lower, amplitude[live], field.sigma)
            mu = fit.mu + lower
            worst = self._to_drop(start[live], mu, fit.amplitude)
            if worst is None or len(live) == 1:
                break
            close = self._squared(mu, mu[-1:])[worst, 0] < config.min_separation**2
            if live[worst] != new and live[-1] == new and close:
                # of two that become one, the older gives its name and the brighter its place
                start[live[worst]], worst = newest, len(live) - 1
            del live[worst]
        stay, noise = group[live], fit.sse / max(box.size - field.n_free * len(live), 1)
        rows = self.rows[stay]
        rows["mu"], rows["amplitude"], rows["explained"] = mu, fit.amplitude, 1.0 - fit.sse / fit.energy
        rows["variance"], rows["covariance"] = fit.covariance[:, 0, 0] * noise, fit.covariance[:, 1:, 1:] * noise
        self.rows[stay] = rows
        self.residual.subtract(mu, fit.amplitude)
        gone = np.setdiff1d(group, stay)
        drops = self.rows["found"][gone].tolist()
        self.rows = self._table = np.delete(self.rows, gone)
        alphas = (fit.amplitude / field.unit).tolist()
        refits = tuple(map(Refit, rows["found"].tolist(), field.point(mu), alphas))
        if step.number in drops:
            drops.remove(step.number)
            step = step._replace(status="merged")
        return step._replace(refits=refits, drops=tuple(drops))

    def _to_drop(
        self, before: Float[Array, "m 3"], mu: Float[Array, "m 3"], amplitude: Float[Array, " m"]
    ) -> int | None:
        """Return the member of a refitted group that should go, None if all may stay."""
        config = self.field.config
        bad = amplitude / self.field.unit < config.lowest_alpha
        bad |= (np.abs(mu - before) / self.field.sigma > config.guard + 1.0).any(1)
        if not bad.any():
            squared = self._squared(mu, mu)
            np.fill_diagonal(squared, np.inf)
            if squared.min() < config.min_separation**2:
                a, b = np.unravel_index(int(squared.argmin()), squared.shape)
                bad[a if amplitude[a] < amplitude[b] else b] = True
        rows = np.flatnonzero(bad)
        return int(rows[amplitude[rows].argmin()]) if rows.size else None

    def _squared(self, one: Float[Array, "m 3"], other: Float[Array, "n 3"]) -> Float[Array, "m n"]:
        """Return squared distances in sigma."""
        away = (one[:, None] - other) / self.field.sigma
        return np.asarray((away * away).sum(2))
