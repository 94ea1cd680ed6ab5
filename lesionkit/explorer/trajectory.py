"""All steps of one search, ready to be walked in both directions.

In: a heatmap and a :class:`~lesionkit.detection.FitConfig`. Out: a :class:`Trajectory`: the detections, the lesions
after every step, and for every step the region that it changes, before and after. Walking copies these patches, so that
going back gives the same residual, bit for bit, and costs what the patches cost, not what the map costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from lesionkit.detection import Detections, FitConfig, FitStep, detect
from lesionkit.detection.records import REACH, Box, lesions_after, subtract

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

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
        self.moments = _moments(self.steps, heatmap.ndim)
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
        """Return a trajectory without steps: before the first search, or if it failed."""
        ndim = heatmap.ndim
        sigma = (1.0,) * ndim if isinstance(config.sigma, str) else tuple(config.sigma_per_axis(ndim).tolist())
        nothing = np.zeros(0)
        return cls(
            Detections(
                mu=np.zeros((0, ndim)),
                alpha=nothing,
                width=nothing,
                alpha_window=nothing,
                covariance=np.zeros((0, ndim, ndim)),
                alpha_se=nothing,
                explained=nothing,
                lesion_flags=(),
                found=(),
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


def _moments(steps: tuple[FitStep, ...], ndim: int) -> tuple[Moment, ...]:
    """Return the lesions before the first step and after each; one object for as long as nothing changes."""
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
