"""All steps of one search, ready to be walked in both directions.

In: a heatmap and a :class:`~lesionkit.detection.FitConfig`. Out: a :class:`Trajectory`: the detections, the lesions
after every step, and for every step the region that it changes, before and after. Walking copies these patches, so that
going back gives the same residual, bit for bit, and costs what the patches cost, not what the map costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lesionkit.detection import Detections, FitConfig, FitStep, detect
from lesionkit.detection.records import REACH, Box, lesions_after, subtract

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

WORDS = {
    "kept": "kept",
    "weak": "too weak",
    "escaped": "centre ran away",
    "merged": "merged into its neighbours",
    "not_converged": "did not converge",
}
"""What became of a fit, in words: the statuses of a :class:`~lesionkit.detection.FitStep`."""
MOST_CHANGES = 2
"""Refitted lesions that a status line names; the others are counted."""
SEEN_ALPHA, SEEN_MOVE = 0.005, 0.05
"""Changes of alpha, and of a centre in voxels, from which on they are seen."""
MOST_BYTES = 64 << 20
"""Patches kept at most, in bytes; those beyond are computed again when they are asked for."""


class Phase(IntEnum):
    """What one iteration shows, in this order (paper, section 3.2, steps 1 to 3)."""

    MAXIMUM = 0
    """The highest voxel of the residual is located."""
    FIT = 1
    """A Gaussian is fitted around it."""
    SUBTRACT = 2
    """The Gaussian is subtracted; in joint mode its neighbours are refitted too."""


class Fit(NamedTuple):
    """The Gaussian of a step."""

    mu: Float[np.ndarray, " ndim"]
    """Centre, float voxel index; may lie anywhere, or be NaN, where no Gaussian fits."""
    alpha: float


class Change(NamedTuple):
    """What a step did to a lesion that an earlier step had found."""

    found: int
    """The step that found it."""
    before: Fit
    after: Fit | None
    """None if the step removed it."""

    @property
    def is_seen(self) -> bool:
        """Whether anybody would see it."""
        before, after = self.before, self.after
        if after is None:
            return True
        return abs(after.alpha - before.alpha) >= SEEN_ALPHA or bool((abs(after.mu - before.mu) >= SEEN_MOVE).any())


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """The lesions after some steps, in the order in which they were found."""

    mu: Float[np.ndarray, "n ndim"]
    """Centres, float voxel index."""
    alpha: Float[np.ndarray, " n"]
    """Existence probabilities."""
    width: Float[np.ndarray, " n"]
    """Standard deviations over sigma."""
    found: tuple[int, ...]
    """For each lesion, the step that found it."""

    def lesion(self, found: int) -> Fit | None:
        """Return the lesion that a step found; None if it is not there."""
        if found not in self.found:
            return None
        row = self.found.index(found)
        return Fit(self.mu[row], float(self.alpha[row]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """The part of the residual that a step changes. Both arrays are read-only."""

    box: Box
    """Where it is: one slice an axis."""
    before: Float[np.ndarray, " ..."]
    """The residual in the box before the step."""
    after: Float[np.ndarray, " ..."]
    """The residual in the box after it."""


class Trajectory:
    """Every step of one search.

    Parameters
    ----------
    detections : Detections
        The result of :func:`~lesionkit.detection.detect`; its heatmap must be an array.

    Notes
    -----
    Positions on a trajectory are numbered ``3 * iteration + phase``; -1 is the start, where nothing has happened.
    """

    def __init__(self, detections: Detections) -> None:
        heatmap = detections.heatmap
        if callable(heatmap):
            raise TypeError("detections.heatmap must be an array, got a function that loads it")
        self.detections = detections
        self.heatmap: Num[np.ndarray, " ..."] = heatmap
        self.steps: tuple[FitStep, ...] = detections.steps
        self.moments = _moments(detections, heatmap.ndim)
        self._widths = np.where(np.array(heatmap.shape) == 1, 0.0, detections.sigma)
        boxes = [self._changed(*pair) for pair in zip(self.moments, self.moments[1:], strict=False)]
        self.boxes: tuple[Box | None, ...] = tuple(boxes)
        self._patches: dict[int, Patch | None] = {}
        room = MOST_BYTES
        for i in range(len(self.steps)):
            patch = self._cut(i)
            room -= patch.before.nbytes + patch.after.nbytes if patch else 0
            if room < 0:
                break
            self._patches[i] = patch

    @classmethod
    def of(cls, heatmap: Num[np.ndarray, " ..."], config: FitConfig) -> Trajectory:
        """Search a map; errors are those of :func:`~lesionkit.detection.detect`."""
        return cls(detect(heatmap, config))

    @classmethod
    def empty(cls, heatmap: Num[np.ndarray, " ..."], config: FitConfig) -> Trajectory:
        """Return a trajectory without steps or lesions: before the first search, or if it failed."""
        return cls.given(heatmap, config, np.zeros((0, heatmap.ndim)), np.zeros(0))

    @classmethod
    def given(
        cls,
        heatmap: Num[np.ndarray, " ..."],
        config: FitConfig,
        mu: Float[np.ndarray, "n ndim"],
        alpha: Float[np.ndarray, " n"],
    ) -> Trajectory:
        """Return a trajectory without steps, of lesions that were found in another way: connected components, say."""
        n, ndim = len(alpha), heatmap.ndim
        sigma = (1.0,) * ndim if isinstance(config.sigma, str) else tuple(config.sigma_per_axis(ndim).tolist())
        unknown = np.full(n, np.nan)
        return cls(
            Detections(
                mu=mu,
                alpha=alpha,
                width=np.ones(n),
                alpha_window=unknown,
                covariance=np.full((n, ndim, ndim), np.nan),
                alpha_se=unknown,
                explained=unknown,
                lesion_flags=((),) * n,
                found=tuple(range(n)),
                steps=(),
                stopped="floor",
                flags=(),
                sigma=sigma,
                config=config,
                heatmap=heatmap,
            )
        )

    @property
    def sigma(self) -> Float[np.ndarray, " ndim"]:
        """Standard deviation used, one an axis, in voxels."""
        return np.array(self.detections.sigma)

    @property
    def last(self) -> int:
        """The last position; -1 if there are no steps."""
        return 3 * len(self.steps) - 1

    @property
    def peak_of_unit_alpha(self) -> float:
        """Height of a Gaussian of alpha 1, in units of the map."""
        if self.detections.config.scale == "peak":
            return 1.0
        placed = np.array(self.heatmap.shape) > 1
        return math.prod((1.0 / (math.sqrt(2.0 * math.pi) * s) for s in self.sigma[placed].tolist()), start=1.0)

    def fit(self, cursor: int) -> Fit | None:
        """Return the Gaussian at a position; None before it is fitted. In joint mode subtracting may refit it."""
        if cursor < 0 or cursor % 3 == Phase.MAXIMUM:
            return None
        step = self.steps[cursor // 3]
        refitted = self.moments[cursor // 3 + 1].lesion(step.number) if cursor % 3 == Phase.SUBTRACT else None
        return refitted or Fit(step.mu, step.alpha)

    def peak(self, cursor: int) -> Float[np.ndarray, " ndim"] | None:
        """Return where to look: the maximum of a step, then the centre fitted to it; None at the start."""
        if cursor < 0:
            return None
        step, fit = self.steps[cursor // 3], self.fit(cursor)
        lost = fit is None or step.status in ("not_converged", "escaped")
        return np.array(step.voxel, dtype=float) if fit is None or lost else fit.mu

    def changes(self, cursor: int) -> tuple[Change, ...]:
        """Return what the step subtracted at a position does to earlier lesions: joint refits, and lesions merged."""
        if cursor < 0 or cursor % 3 != Phase.SUBTRACT:
            return ()
        before, after = self.moments[cursor // 3 : cursor // 3 + 2]
        step = self.steps[cursor // 3]
        pairs = [(found, before.lesion(found), after.lesion(found)) for found in before.found]
        touched = {refit.step for refit in step.refits} | set(step.drops)
        changes = [Change(found, was, now) for found, was, now in pairs if was is not None and found in touched]
        return tuple(change for change in changes if change.is_seen)

    def status(self, cursor: int) -> str:
        """Return a position in one line."""
        n = len(self.steps)
        if cursor < 0:
            return f"start, {n} steps" if n else f"{len(self.detections)} lesions"
        step, phase = self.steps[cursor // 3], Phase(cursor % 3)
        head = f"{step.number + 1} of {n}, {phase.name.lower()}: "
        fit, changes = self.fit(cursor), self.changes(cursor)
        if fit is None:
            return f"{head}{step.value:.3g} at {step.voxel}"
        told = [
            f"lesion {found + 1} {was.alpha:.2f} → {'gone' if now is None else f'{now.alpha:.2f}'}"
            for found, was, now in changes[:MOST_CHANGES]
        ]
        more = [f"{len(changes) - MOST_CHANGES} more refitted"] if len(changes) > MOST_CHANGES else []
        return ", ".join([f"{head}alpha {fit.alpha:.2f}", WORDS[step.status], *step.flags, *told, *more])

    def patch(self, i: int) -> Patch | None:
        """Return what step `i` changes; None if that is nothing."""
        return self._patches[i] if i in self._patches else self._cut(i)

    def _cut(self, i: int) -> Patch | None:
        box = self.boxes[i]
        if box is None:
            return None
        before, after = self._residual(self.moments[i], box), self._residual(self.moments[i + 1], box)
        before.setflags(write=False)
        after.setflags(write=False)
        return Patch(box=box, before=before, after=after)

    def _residual(self, moment: Moment, box: Box) -> Float[np.ndarray, " ..."]:
        """Subtract the lesions of a moment in a box, one by one in the order of a replay of the whole map."""
        lower, upper = self._bounds(moment.mu, moment.width)
        near = np.ones(len(moment.mu), bool)
        for axis, part in enumerate(box):
            near &= (lower[:, axis] < part.stop) & (upper[:, axis] > part.start)
        detections = self.detections
        return subtract(
            self.heatmap,
            moment.mu[near],
            moment.alpha[near],
            detections.sigma,
            width=moment.width[near],
            scale=detections.config.scale,
            region=box,
        )

    def _bounds(
        self, mu: Float[np.ndarray, "n ndim"], width: Float[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, "n ndim"], Int[np.ndarray, "n ndim"]]:
        """First voxel of each lesion's box, and the one after the last."""
        nearest, reach = np.rint(mu).astype(int), np.ceil(REACH * width[:, None] * self._widths).astype(int)
        return nearest - reach, nearest + reach + 1

    def _changed(self, one: Moment, other: Moment) -> Box | None:
        """Return the box of all lesions that differ between two moments; None if nothing in the map does."""
        if one is other:
            return None
        was, now = (
            dict(zip(m.found, zip(*m.mu.T.tolist(), m.width.tolist(), m.alpha.tolist(), strict=True), strict=True))
            for m in (one, other)
        )
        changed = np.array([values for _, values in was.items() ^ now.items()])
        if not changed.size:
            return None
        lower, upper = self._bounds(changed[:, :-2], changed[:, -2])
        first = np.maximum(lower.min(0), 0).tolist()
        stop = np.minimum(upper.max(0), self.heatmap.shape).tolist()
        if any(b <= a for a, b in zip(first, stop, strict=True)):
            return None
        return tuple(slice(a, b) for a, b in zip(first, stop, strict=True))


def _moments(detections: Detections, ndim: int) -> tuple[Moment, ...]:
    """Return the lesions before the first step and after each; one object for as long as nothing changes."""
    steps = detections.steps
    if not steps:
        return (Moment(mu=detections.mu, alpha=detections.alpha, width=detections.width, found=detections.found),)
    moments = [Moment(mu=np.zeros((0, ndim)), alpha=np.zeros(0), width=np.zeros(0), found=())]
    for i, step in enumerate(steps):
        if step.status != "kept" and not step.refits and not step.drops:
            moments.append(moments[-1])
            continue
        lesions = lesions_after(steps[: i + 1])
        mu = np.array([one.mu for one in lesions.values()]).reshape(-1, ndim)
        alpha, width = (np.array([getattr(one, of) for one in lesions.values()], float) for of in ("alpha", "width"))
        moments.append(Moment(mu=mu, alpha=alpha, width=width, found=tuple(lesions)))
    return tuple(moments)
