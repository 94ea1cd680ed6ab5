"""Fit-and-subtract: a predicted heatmap in, lesions with existence probabilities out (paper, section 3.2).

The loop finds the highest voxel, fits ``alpha * N(mu, sigma)`` in a small window around it, subtracts it, and repeats.
In ``joint`` mode every new lesion is then refitted together with the kept lesions that it overlaps, on the original
map; ``paper`` mode is the same loop without that. Maps are 2-D or 3-D arrays; points are float voxel indices in their
axis order; sigma is a standard deviation in voxels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lesionkit.detection.candidates import Candidate, Field
from lesionkit.detection.kept import Kept
from lesionkit.detection.maxima import Maxima, as_heatmap
from lesionkit.detection.records import Detections, FitConfig, FitStep, Refit
from lesionkit.detection.width import estimate_sigma

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

Array = np.ndarray

DEFAULT = FitConfig()
PREFETCH = 64
"""Most windows fitted in one batch ahead of need."""
MOST_SEEDS = 1024
"""Most maxima considered for that."""
FEW = 64
"""With no more voxels than this in the list there is nothing to look ahead to."""
LEVELS = 2
"""Batches made ahead of need, each on what the one before will leave."""
MOST_PLATEAUS = 20
"""Plateaus after which a map is not worth searching on."""
MOST_MISFITS = 12
"""Misfits, less good fits in between, after which a map is no sum of Gaussians of this sigma. Crowds 1.5 sigma apart
reach 4, with sigma taken a third too small 11; shells and rings go on to `max_lesions`."""


def fit_steps(heatmap: Num[np.ndarray, " ..."], config: FitConfig | None = None) -> Iterator[FitStep]:
    """Yield one fitted candidate at a time, the highest maximum first.

    Parameters
    ----------
    heatmap, config
        As for :func:`detect`.

    Yields
    ------
    FitStep
        Records from which :meth:`Detections.replay` rebuilds every moment.

    Raises
    ------
    TypeError, ValueError
        As :func:`detect`, on the first step at the latest.

    References
    ----------
    Paper, section 3.2, steps 1 to 4.
    """
    return _search(heatmap, config).run()


def detect(heatmap: Num[np.ndarray, " ..."], config: FitConfig | None = None) -> Detections:
    """Run fit-and-subtract to its end.

    Parameters
    ----------
    heatmap : 2-D or 3-D array
        Predicted map, any real dtype, any memory layout; never changed. It is kept by reference in the result, for
        replays.
    config : FitConfig, optional
        Settings; the defaults if None.

    Returns
    -------
    Detections
        Empty where nothing is found.

    Raises
    ------
    TypeError
        If the map is not an array of real numbers.
    ValueError
        If the map is not 2-D or 3-D, or a voxel is NaN or infinite (the message names the first).

    References
    ----------
    Paper, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from lesionkit import FitConfig, detect, gaussian_heatmap
    >>> heatmap = gaussian_heatmap([(10.2, 12.0, 9.6)], (24, 24, 24), sigma=1.0)
    >>> found = detect(heatmap, FitConfig(sigma=1.0))
    >>> found.mu.round(2).tolist(), found.alpha.round(2).tolist()
    ([[10.2, 12.0, 9.6]], [1.0])
    """
    search = _search(heatmap, config)
    steps = tuple(search.run())
    return search.detections(steps)


def _search(heatmap: Num[np.ndarray, "..."], config: FitConfig | None) -> _Search:
    """Prepare a search of a map, its sigma known."""
    heatmap, config = as_heatmap(heatmap), config or DEFAULT
    if config.sigma == "estimate":
        config = replace(config, sigma=estimate_sigma(heatmap, config=config).sigma)
    return _Search(heatmap, config)


class _Search:
    """The state of one search: the kept lesions, the maxima that remain, and fits made before their turn."""

    def __init__(self, heatmap: Num[np.ndarray, "..."], config: FitConfig) -> None:
        self.config = config
        self.field = Field(heatmap, config)
        self.kept = Kept(self.field)
        self.patience = config.patience if self.field.joint else 0
        self.discarded: list[tuple[Int[Array, " 3"], Int[Array, " 3"]]] = []
        self.ahead: dict[int, Candidate] = {}  # by voxel number
        self.needs: dict[int, set[int]] = {}  # for each of them, those that it takes as kept
        self.beside: defaultdict[int, set[int]] = defaultdict(set)  # and those that touch it
        self.seeds = np.zeros(0, int)
        self.lead = PREFETCH
        self.stopped = "floor"

    def run(self) -> Iterator[FitStep]:
        """Locate, fit, subtract, repeat."""
        self.maxima: Maxima = self.field.maxima()
        failures, plateaus, misfits, number, most = 0, 0, 0, 0, 2 * self.config.max_lesions + 10
        while True:
            if len(self.kept) >= self.config.max_lesions:
                self.stopped = "max_lesions"
                return
            if number >= most:
                self.stopped = "max_steps"
                return
            k = self.maxima.highest()
            if k < 0:
                if not self._descend():
                    self.stopped = "plateau" if self.maxima.truncated else "floor"
                    return
                continue
            if k not in self.ahead or self.needs[k]:
                self._fit_ahead(k)
            steps = self._keep_ahead(k, number) or [self._step(k, number)]
            yield from steps
            number += len(steps)
            last = steps[-1]
            if last.status in ("kept", "merged"):
                failures = 0
                for step in steps if self.field.joint and last.status == "kept" else ():
                    misfits = misfits + 1 if "misfit" in step.flags else max(misfits - 1, 0)
                if misfits > MOST_MISFITS:
                    self.stopped = "misfit"
                    return
            elif "plateau" in last.flags:
                plateaus += 1
                if plateaus > (MOST_PLATEAUS if self.field.joint else 0):
                    self.stopped = "plateau"
                    return
            else:
                failures += 1
                if failures > self.patience:
                    self.stopped = last.status
                    return

    def _descend(self) -> bool:
        """Lower the level of the search; False when it is at the floor."""
        if not self.maxima.descend():
            return False
        if len(self.kept):
            self._add(self.kept.mu, -self.kept.amplitude)
        for lower, upper in self.discarded:
            self.maxima.discard_box(lower, upper)
        self.ahead.clear()
        self.beside.clear()
        self.seeds = np.zeros(0, int)
        if self.maxima.flat.size <= FEW:
            return True
        seeds = self.maxima.peaks()
        if seeds.size > MOST_SEEDS:
            seeds = seeds[np.argsort(-self.maxima.residual[seeds], kind="stable")[:MOST_SEEDS]]
        self.seeds = seeds
        return True

    def _add(self, mu: Float[Array, "m 3"], amplitude: Float[Array, " m"]) -> None:
        self.maxima.add(mu, amplitude, self.field.inverse, self.field.reach)

    def _discard(self, lower: Int[Array, " 3"], upper: Int[Array, " 3"]) -> None:
        self.discarded.append((lower, upper))
        self.maxima.discard_box(lower, upper)

    def _discard_like(self, voxel: Int[Array, " 3"]) -> None:
        """Never return a merged candidate, nor its neighbours that would be merged as well.

        The residual of a broad peak is a shell around the lesion that was kept. Within `min_separation` of that lesion,
        voxels closer together than a fit may move (`guard`) lead to the same end.
        """
        sigma, config = self.field.sigma, self.config
        offset = (self.kept.mu - voxel) * self.field.inverse
        kept = self.kept.mu[int(np.add.reduce(offset * offset, 1).argmin())]
        finite = np.where(np.isfinite(sigma), sigma, 0.0)
        apart, near = config.min_separation * finite, np.floor(config.guard * finite).astype(int)
        lower = np.clip(np.ceil(kept - apart).astype(int), voxel - near, voxel)
        upper = np.clip(np.floor(kept + apart).astype(int), voxel, voxel + near)
        self._discard(lower, upper + 1)

    # ------------------------------------------------------------------ one candidate
    def _step(self, k: int, number: int) -> FitStep:
        """Take one candidate, whatever becomes of it."""
        entry = self.ahead.pop(k)
        voxel = self.maxima.index[:, k]
        if self.field.joint:
            centre = voxel
            for _ in range(3):  # the window follows the peak
                mu = np.array(entry.mu)
                if np.abs(mu - centre).max() <= 1.0 or entry.status == "not_converged":
                    break
                nearest = np.rint(mu).astype(int)
                centre = np.clip(nearest, np.maximum(centre - 2, 0), np.minimum(centre + 2, self.field.shape - 1))
                (entry,) = self.field.fit(
                    voxel[None],
                    self.kept.mu,
                    self.kept.amplitude,
                    centres=centre[None],
                    height=np.array([entry.height]),
                )
        step = FitStep(number, *entry.record)
        if entry.status == "kept":
            merged, refits, drops = self._keep(number, entry)
            if merged:
                self._discard_like(voxel)
            elif drops:
                self._discard(voxel, voxel + 1)
            return step._replace(status="merged" if merged else "kept", refits=refits, drops=drops)
        if entry.plateau:
            self._discard(*self.field.plateau(voxel, entry.height))
        else:
            self._discard(voxel, voxel + 1)
        return step

    def _keep(self, number: int, entry: Candidate) -> tuple[bool, tuple[Refit, ...], tuple[int, ...]]:
        """Subtract a new lesion, after a refit with its neighbours in joint mode; tell whether it was merged."""
        new = np.array([entry.mu])
        group = self.kept.linked(new[0]) if self.field.joint and len(self.kept) else []
        self.kept.append(number, [entry])
        if not group:
            self._add(new, np.array([-entry.amplitude]))
            self._forget(new)
            return False, (), ()
        mu, amplitude, refits, drops = self.kept.refit([*group, len(self.kept) - 1])
        self._add(mu, amplitude)
        self._forget(np.concatenate([mu, new]))
        return number in drops, refits, tuple(n for n in drops if n != number)

    # ------------------------------------------------------------------ many at once
    def _fit_ahead(self, k: int) -> None:
        """Fit the window of voxel `k`, and in the same batch those of other maxima that nothing before them will touch.

        A maximum that brighter ones touch is fitted in the next batch, on what these fits will leave: it *needs* them.
        """
        residual, ahead = self.maxima.residual, self.ahead
        ahead.pop(k, None)
        self.seeds = self.seeds[residual[self.seeds] > self.maxima.level]
        numbers = [k]
        if self.lead > 1:
            seeds = self.seeds[np.argsort(-residual[self.seeds], kind="stable")]
            numbers += [n for n in seeds[: 2 * self.lead].tolist() if n != k]
        if len(numbers) == 1 and not ahead:
            (ahead[k],) = self.field.fit(self.maxima.index[:, numbers].T, self.kept.mu, self.kept.amplitude)
            self.needs[k] = set()
            return
        numbers += ahead.keys() - set(numbers)
        where = self.maxima.index[:, numbers].T
        needs: defaultdict[int, list[int]] = defaultdict(list)  # those before it that touch it
        rows, columns = self.field.touching(where, where)
        before = columns < rows
        for i, j in zip(rows[before].tolist(), columns[before].tolist(), strict=True):
            n, m = numbers[i], numbers[j]
            needs[n].append(m)
            self.beside[n].add(m)
            self.beside[m].add(n)
        waiting = [n for n in numbers if n not in ahead]
        for _ in range(LEVELS):
            ready = [n for n in waiting if n not in needs or all(m in ahead for m in needs[n])][: self.lead]
            under = {n: [ahead[m] for m in needs[n]] for n in ready if n in needs}
            if under:  # the shoulder of a brighter maximum vanishes with it
                low = {n for n, fits in under.items() if self._height(n, fits) <= self.maxima.level}
                waiting = [n for n in waiting if n not in low]
                ready = [n for n in ready if n not in low]
            if not ready:
                continue
            fits = self.field.fit(
                self.maxima.index[:, ready].T,
                self.kept.mu,
                self.kept.amplitude,
                under=[under.get(n, []) for n in ready] if under else None,
            )
            for n, fit in zip(ready, fits, strict=True):
                if n == k or fit.top:  # else what is subtracted moved the maximum to another voxel
                    ahead[n] = fit
                    self.needs[n] = set(needs[n]) if n in needs else set()
            if 2 * sum(fit.top for fit in fits) < len(ready):  # flat maxima move
                self.lead = max(self.lead // 4, 1)
            done = set(ready)
            waiting = [n for n in waiting if n not in done]
            if not waiting:
                return

    def _height(self, n: int, under: list[Candidate]) -> float:
        """Return the residual that some fits will leave at a voxel."""
        height, voxel = float(self.maxima.residual[n]), self.maxima.index[:, n].tolist()
        inverse = self.field.inverse.tolist()
        for fit in under:
            squared = sum(((x - m) * i) ** 2 for x, m, i in zip(voxel, fit.mu, inverse, strict=True))
            height -= fit.amplitude * math.exp(-0.5 * squared)
        return height

    def _keep_ahead(self, k: int, number: int) -> list[FitStep]:
        """Keep lesions whose fits are made and touch nothing, as many as come next in any case; possibly none.

        The steps are those of a loop that takes one at a time: only candidates above everything else that is left
        count.
        """
        ahead = self.ahead
        if not ahead[k].clean:
            return []
        chosen = {k: ahead[k]}
        for n in sorted(ahead, key=lambda n: -ahead[n].height):
            if len(chosen) + len(self.kept) >= self.config.max_lesions:
                break
            entry = ahead[n]
            if n != k:
                if not entry.clean or (self.needs[n] and not self.needs[n] <= chosen.keys()):
                    break
                chosen[n] = entry
        taken = list(chosen.values())
        mu = np.array([entry.mu for entry in taken])
        if len(taken) > 1 or len(self.kept):
            n_free = self._n_free(mu, list(chosen))
            if not n_free:
                return []
            taken, mu = taken[:n_free], mu[:n_free]
        amplitude = np.array([entry.amplitude for entry in taken])
        self._add(mu, -amplitude)
        if len(taken) > 1:
            left = float(self.maxima.residual.max())
            n_next = max(sum(entry.height >= left for entry in taken), 1)
            if n_next < len(taken):  # what is left of the others comes before these
                self._add(mu[n_next:], amplitude[n_next:])
                taken, mu, amplitude = taken[:n_next], mu[:n_next], amplitude[:n_next]
        numbers = list(chosen)[: len(taken)]
        for n in numbers:
            del ahead[n]
        if len(numbers) > 1:
            self.lead = min(2 * self.lead, PREFETCH)
        self.kept.append(number, taken)
        self._forget(mu, numbers)
        return [FitStep(number + i, *entry.record) for i, entry in enumerate(taken)]

    def _n_free(self, mu: Float[Array, "m 3"], numbers: list[int]) -> int:
        """Return how many candidates, from the first on, are linked to no lesion and touched by nothing unforeseen."""
        if len(numbers) == 1:
            return int(not (self.field.joint and self.field.linked(mu, self.kept.mu).any()))
        n_free = len(numbers)
        before: set[int] = set()
        for i, n in enumerate(numbers):
            if (self.beside[n] & before) - self.needs[n]:
                n_free = i
                break
            before.add(n)
        if self.field.joint:
            rows, columns = self.field.linked(mu, mu).nonzero()
            linked = rows[columns < rows]
            if len(self.kept):
                near = np.logical_or.reduce(self.field.linked(mu, self.kept.mu), axis=1)
                linked = np.concatenate([linked, np.flatnonzero(near)])
            if linked.size:
                n_free = min(n_free, int(linked.min()))
        return n_free

    def _forget(self, mu: Float[Array, "m 3"], foreseen: list[int] | None = None) -> None:
        """Drop the fits made ahead that a change at `mu` touches, unless they were made on its result."""
        if not self.ahead:
            return
        numbers = list(self.ahead)
        touched = defaultdict(list)
        rows, columns = self.field.touching(self.maxima.index[:, numbers].T, mu)
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            touched[numbers[i]].append(j)
        for n, changes in touched.items():
            needs = self.needs[n]
            if foreseen and all(foreseen[j] in needs for j in changes):
                self.needs[n] = needs.difference(foreseen)
            else:
                del self.ahead[n]
                self.lead = max(self.lead // 2, 1)  # in a crowd looking ahead is in vain

    # ------------------------------------------------------------------ the result
    def detections(self, steps: tuple[FitStep, ...]) -> Detections:
        """Collect what was kept."""
        kept, field = self.kept, self.field
        flags = [name for name in ("plateau", "saturated") if any(name in step.flags for step in steps)]
        if self.stopped == "misfit":
            flags.append("misfit")
        alpha = kept.amplitude / field.unit
        if self.config.scale == "mass" and alpha.size and sorted(alpha.tolist())[alpha.size // 2] > 3.0:
            flags.append("peak_scaled?")
        return Detections(
            mu=field.layout.point(kept.mu.copy()),
            alpha=alpha,
            alpha_window=np.array([steps[i].alpha_window for i in kept.found]),
            covariance=field.layout.covariance(kept.covariance),
            alpha_se=np.sqrt(kept.variance) / field.unit,
            explained=kept.explained.copy(),
            lesion_flags=tuple(steps[i].flags for i in kept.found),
            found=tuple(kept.found),
            steps=steps,
            stopped=self.stopped,
            flags=tuple(flags),
            sigma=tuple(field.sigma_per_axis.tolist()),
            config=self.config,
            heatmap=field.heatmap,
        )
