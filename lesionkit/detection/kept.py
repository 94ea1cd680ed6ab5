"""The lesions kept by fit-and-subtract, and the joint refit of those that overlap.

Refitting a linked group on the original map after every new peak is what resolves close neighbours (orthogonal matching
pursuit; Stetson, 1987, does the same for crowded star fields).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lesionkit.detection.candidates import Candidate, Field
from lesionkit.detection.groups import fit_group
from lesionkit.detection.records import Refit

if TYPE_CHECKING:
    from jaxtyping import Float

Array = np.ndarray


_COLUMNS = 15
"""Of a lesion's row: mu (3), amplitude, its variance, share explained, covariance of mu (9)."""


class Kept:
    """Lesions in the axis order of the map's memory, one row each, in the order in which they were found."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._rows = np.zeros((0, _COLUMNS))  # grown in advance: the first len(self) count
        self.found: list[int] = []

    def __len__(self) -> int:
        return len(self.found)

    @property
    def mu(self) -> Float[Array, "n 3"]:
        """Centres."""
        return self._rows[: len(self.found), :3]

    @property
    def amplitude(self) -> Float[Array, " n"]:
        """Heights."""
        return self._rows[: len(self.found), 3]

    @property
    def variance(self) -> Float[Array, " n"]:
        """Variances of the heights."""
        return self._rows[: len(self.found), 4]

    @property
    def explained(self) -> Float[Array, " n"]:
        """Shares of the energy around them that the fits explain."""
        return self._rows[: len(self.found), 5]

    @property
    def covariance(self) -> Float[Array, "n 3 3"]:
        """Covariances of the centres."""
        return self._rows[: len(self.found), 6:].reshape(-1, 3, 3)

    def append(self, number: int, taken: list[Candidate]) -> None:
        """Add lesions as they were fitted; `number` is the step of the first."""
        first, last = len(self), len(self) + len(taken)
        if last > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros((last, _COLUMNS))])
        rows = self._rows[first:last]
        rows[:, :6] = [(*one.mu, one.amplitude, one.covariance[3] * one.noise, one.explained) for one in taken]
        rows[:, 6:] = 0.0
        rows[:, 6::4] = [[x * one.noise for x in one.covariance[:3]] for one in taken]
        self.found += range(number, number + len(taken))

    def linked(self, mu: Float[Array, " 3"]) -> list[int]:
        """Return the rows linked to a new lesion, directly or through others; the closest if there are many."""
        inside = self.field.linked(mu[None], self.mu)[0]
        grow = np.flatnonzero(inside)
        while grow.size and grow.size < len(inside):
            more = self.field.linked(self.mu[grow], self.mu).any(0) & ~inside
            inside |= more
            grow = np.flatnonzero(more)
        linked = np.flatnonzero(inside)
        if linked.size >= self.field.config.max_group:
            squared = (((self.mu[linked] - mu) * self.field.inverse) ** 2).sum(1)
            linked = linked[np.argsort(squared, kind="stable")[: self.field.config.max_group - 1]]
        return [int(i) for i in linked]

    def refit(self, group: list[int]) -> tuple[Float[Array, "m 3"], Float[Array, " m"], tuple[Refit, ...], list[int]]:
        """Fit a group together, the new lesion last in it, on the map less all others; drop what the rest explains.

        Returns
        -------
        mu, amplitude : (m, 3), (m,) float
            Gaussians that, added to the residual, bring it up to date; the new lesion was not in it yet.
        refits : tuple of Refit
            The members that stay.
        drops : list of int
            The steps that found those that do not.
        """
        field = self.field
        mu, amplitude = self.mu[group], self.amplitude[group]
        start = mu.copy()
        lower = np.maximum(np.rint(mu.min(0)).astype(int) - field.half, 0)
        upper = np.minimum(np.rint(mu.max(0)).astype(int) + field.half + 1, field.shape)
        box = field.less(lower, upper, np.delete(self.mu, group, 0), np.delete(self.amplitude, group))
        live = list(range(len(group)))
        while True:
            fit = fit_group(box, start[live] - lower, amplitude[live], field.sigma)
            new = fit.mu + lower
            worst = self._to_drop(start[live], new, fit.amplitude)
            if worst is None or len(live) == 1:
                break
            last = len(group) - 1
            if (
                live[worst] != last
                and live[-1] == last
                and self._squared(new)[worst, -1] < field.config.min_separation**2
            ):
                # Of two that become one, the older gives its name and the brighter its place.
                start[live[worst]], worst = mu[last], len(live) - 1
            del live[worst]
        noise = fit.sse / max(box.size - (1 + field.n_placed) * len(live), 1)
        rows = [group[i] for i in live]
        self.mu[rows], self.amplitude[rows] = new, fit.amplitude
        self.variance[rows], self.explained[rows] = fit.covariance[:, 0, 0] * noise, 1.0 - fit.sse / fit.energy
        self._rows[rows, 6:] = (fit.covariance[:, 1:, 1:] * noise).reshape(-1, 9)
        points, alphas = field.layout.point(new), (fit.amplitude / field.unit).tolist()
        refits = tuple(Refit(self.found[i], point, alpha) for i, point, alpha in zip(rows, points, alphas, strict=True))
        gone = sorted(set(group) - set(rows))
        drops = [self.found[i] for i in gone]
        if gone:
            self._rows = np.delete(self._rows, gone, axis=0)
            self.found = [n for i, n in enumerate(self.found) if i not in gone]
        change = np.concatenate([mu[:-1], new]), np.concatenate([amplitude[:-1], -fit.amplitude])
        return *change, refits, drops

    def _to_drop(
        self, before: Float[Array, "m 3"], mu: Float[Array, "m 3"], amplitude: Float[Array, " m"]
    ) -> int | None:
        """Return the member of a refitted group that should go, None if all may stay."""
        bad = amplitude / self.field.unit < self.field.min_alpha
        bad |= (np.abs(mu - before) * self.field.inverse > self.field.config.guard + 1.0).any(1)
        if not bad.any() and len(mu) > 1:
            squared = self._squared(mu)
            if squared.min() < self.field.config.min_separation**2:
                a, b = np.unravel_index(int(squared.argmin()), squared.shape)
                bad[a if amplitude[a] < amplitude[b] else b] = True
        if not bad.any():
            return None
        rows = np.flatnonzero(bad)
        return int(rows[amplitude[rows].argmin()])

    def _squared(self, mu: Float[Array, "m 3"]) -> Float[Array, "m m"]:
        """Return squared distances in sigma; infinite from each to itself."""
        squared: Float[Array, "m m"] = (((mu[:, None] - mu) * self.field.inverse) ** 2).sum(2)
        np.fill_diagonal(squared, np.inf)
        return squared
