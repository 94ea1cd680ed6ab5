"""What an interactive view shows of one detection: plain state, what follows from it, and the signals that it changed.

Views read a :class:`State` and listen to its signals; they keep no state of their own.
:class:`~lesionkit.explorer.Explorer` is the state with the methods that change it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from psygnal import Signal

from lesionkit.detection import Detections, FitConfig, FitStep
from lesionkit.detection.records import Box, subtract
from lesionkit.explorer import readings
from lesionkit.explorer.annotation import Annotation
from lesionkit.explorer.case import Case
from lesionkit.explorer.refit import Refitter
from lesionkit.explorer.sections import Sections, ellipsoid_sections
from lesionkit.explorer.signals import Announcer
from lesionkit.explorer.trajectory import Change, Fit, Moment, Patch, Phase, Trajectory
from lesionkit.labels import gaussian_heatmap
from lesionkit.matching import Gate, Matching, match_points

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Num

T = TypeVar("T")
Verdict = Literal["tp", "fp", "kept", "below"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesions:
    """Lesions of one moment, what the threshold does to them, and what the truth says."""

    mu: Float[np.ndarray, "n ndim"]
    """Centres, float voxel index, in the order in which they were found."""
    alpha: Float[np.ndarray, " n"]
    """Existence probabilities."""
    found: tuple[int, ...]
    """For each lesion, the step that found it."""
    kept: Bool[np.ndarray, " n"]
    """Whether ``alpha >= threshold``."""
    matching: Matching | None
    """Of the kept lesions with the true points; None if no truth is known."""

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """For each lesion: hit, false alarm, kept (no truth is known), or below the threshold."""
        marks: list[Verdict] = ["below"] * len(self)
        for i, row in enumerate(np.flatnonzero(self.kept).tolist()):
            marks[row] = "kept" if self.matching is None else "tp" if self.matching.matched_predicted[i] else "fp"
        return tuple(marks)


class State:
    """What is there to be seen of one detection: signals and readings. :class:`Explorer` changes it.

    A signal fires when a change is complete, once, and only if what it stands for is different; its argument is the
    value at that moment.
    """

    case_changed = Signal(description="another heatmap or image")
    config_changed = Signal(FitConfig, description="sigma, window, mode or another setting, as asked for")
    trajectory_changed = Signal(description="the steps: bars of alpha, the range of the cursor")
    residual_changed = Signal(tuple, description="the residual was edited in place in these boxes")
    cursor_changed = Signal(int, description="the cursor, or the step on which it stands")
    lesions_changed = Signal(description="the lesions at the cursor, and what threshold and truth say of them")
    threshold_changed = Signal(float)
    truth_changed = Signal(description="the true points")
    answer_changed = Signal(bool, description="whether views tell hits, false alarms and missed lesions")
    label_changed = Signal(description="the label heatmap of the true points")
    score_changed = Signal(description="the lesions at the end of the search, and their score")
    curve_changed = Signal(description="scores against the threshold; alpha against the distance to the truth")
    comparing_changed = Signal(bool)
    comparison_changed = Signal(description="paper beside joint mode")
    position_changed = Signal(tuple, description="the voxel that the views show")
    follow_changed = Signal(bool)
    playing_changed = Signal(bool)
    speed_changed = Signal(float)
    busy_changed = Signal(bool, description="whether a search runs in the worker")
    error_changed = Signal(str, description="a message; empty if there is none")
    settled = Signal(frozenset, description="after all signals of a change: their names, for views that draw once")

    def __init__(
        self, case: Case, annotation: Annotation, config: FitConfig, threshold: float, refitter: Refitter
    ) -> None:
        self._config, self._threshold = config, threshold
        self._gate: tuple[float, Gate] = (6.0, "before")
        self._comparing, self._follow, self._speed, self._error = False, True, 3.0, ""
        self._refitter = refitter
        self._n_edits = 0
        self._begin(case, annotation)
        self._edited.clear()  # nobody has seen it before
        self._announcer = Announcer(self._keys(), self._emit, self.settled.emit)

    def _begin(self, case: Case, annotation: Annotation) -> None:
        """Stand at the start of a map that has not been searched yet."""
        heatmap = case.heatmap
        self._case, self._annotation = case, annotation
        self._trajectory = Trajectory.empty(heatmap, self._config)
        self._rival: Detections | None = None
        self._cursor, self._playing = -1, False
        self._answer = False
        self._wanted: int | None = -1  # where the person went; None: to the end, wherever it is
        self._position = tuple(((np.array(heatmap.shape) - 1) / 2).tolist())
        self._residual = subtract(heatmap, np.zeros((0, heatmap.ndim)), np.zeros(0), (1.0,) * heatmap.ndim)
        self._edited: list[Box] = [tuple(slice(0, n) for n in heatmap.shape)]
        self._n_edits += 1

    # ------------------------------------------------------------------ reading: plain state
    @property
    def heatmap(self) -> Num[np.ndarray, " ..."]:
        """The predicted map; not to be changed."""
        return self._case.heatmap

    @property
    def image(self) -> Num[np.ndarray, " ..."] | None:
        """What it was predicted from."""
        return self._case.image

    @property
    def affine(self) -> Float[np.ndarray, "m m"]:
        """Voxel index to mm."""
        return self._case.affine

    @property
    def spacing(self) -> tuple[float, ...]:
        """Edge lengths of a voxel, in mm."""
        return self._case.spacing

    @property
    def config(self) -> FitConfig:
        """The settings as asked for; `detections` says with which the steps were made."""
        return self._config

    @property
    def trajectory(self) -> Trajectory:
        """All steps."""
        return self._trajectory

    @property
    def detections(self) -> Detections:
        """What the search found, whatever the threshold."""
        return self._trajectory.detections

    @property
    def steps(self) -> tuple[FitStep, ...]:
        """The records of the search."""
        return self._trajectory.steps

    @property
    def threshold(self) -> float:
        """Smallest alpha that is kept."""
        return self._threshold

    @property
    def max_distance(self) -> float:
        """Largest distance of a hit, in mm."""
        return self._gate[0]

    @property
    def gate(self) -> Gate:
        """When far pairs are ruled out."""
        return self._gate[1]

    @property
    def truth(self) -> Float[np.ndarray, "n ndim"] | None:
        """True points, float voxel index; None if no truth is known. Read-only."""
        return self._annotation.points if self._annotation.known else None

    @property
    def answer(self) -> bool:
        """Whether views may tell hits, false alarms and missed lesions; until then a person predicts them.

        Where there are no steps to walk through, there is nothing to predict.
        """
        return self._annotation.known and (self._answer or not (self.steps or self.busy))

    @property
    def can_undo(self) -> bool:
        """Whether there is a change of the true points to take back."""
        return self._annotation.earlier is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is an undo to take back."""
        return self._annotation.later is not None

    @property
    def playing(self) -> bool:
        """Whether :meth:`tick` moves the cursor."""
        return self._playing

    @property
    def speed(self) -> float:
        """Phases played a second."""
        return self._speed

    @property
    def position(self) -> tuple[float, ...]:
        """The voxel that the views show."""
        return self._position

    @property
    def follow(self) -> bool:
        """Whether the position follows the peak."""
        return self._follow

    @property
    def comparing(self) -> bool:
        """Whether the other mode is searched too."""
        return self._comparing

    @property
    def busy(self) -> bool:
        """Whether a search runs, or waits, in the worker."""
        return self._refitter.busy

    @property
    def error(self) -> str:
        """What went wrong; empty if nothing did."""
        return self._error

    # ------------------------------------------------------------------ reading: the cursor
    @property
    def cursor(self) -> int:
        """``3 * iteration + phase``; -1 at the start."""
        return self._cursor

    @property
    def iteration(self) -> int:
        """Number of the current step; -1 at the start."""
        return self._cursor // 3

    @property
    def phase(self) -> Phase | None:
        """Phase of the current step; None at the start."""
        return Phase(self._cursor % 3) if self._cursor >= 0 else None

    @property
    def step(self) -> FitStep | None:
        """The current step; None at the start."""
        return self.steps[self._cursor // 3] if self._cursor >= 0 else None

    @property
    def n_subtracted(self) -> int:
        """Number of iterations that the residual has behind it."""
        return (self._cursor + 1) // 3

    @property
    def moment(self) -> Moment:
        """The lesions at the cursor."""
        return self._trajectory.moments[self.n_subtracted]

    @property
    def residual(self) -> Float[np.ndarray, " ..."]:
        """The map less the lesions at the cursor; edited in place until another map is loaded. Not to be changed."""
        return self._residual

    @property
    def patch(self) -> Patch | None:
        """What the current step changes in the residual; None at the start, and where nothing changes."""
        return self._trajectory.patch(self.iteration) if self._cursor >= 0 else None

    @property
    def fit(self) -> Fit | None:
        """The current step's Gaussian; None before it is fitted. In joint mode subtracting may refit it."""
        return self._trajectory.fit(self._cursor)

    @property
    def peak(self) -> Float[np.ndarray, " ndim"] | None:
        """Where to look: the current maximum, then the centre fitted to it; None at the start."""
        return self._trajectory.peak(self._cursor)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the current step has just done to earlier lesions: the sight of a joint refit."""
        return self._trajectory.changes(self._cursor)

    @property
    def status(self) -> str:
        """The cursor in one line."""
        return self._trajectory.status(self._cursor)

    # ------------------------------------------------------------------ reading: what follows from it
    @property
    def lesions(self) -> Lesions:
        """The lesions at the cursor, judged."""
        moment = self.moment
        return self._cached("lesions", lambda: self._judge(moment.mu, moment.alpha, moment.found))

    @property
    def told(self) -> tuple[Verdict, ...]:
        """What views say of each lesion at the cursor: its verdict, or only kept or not while the answer is hidden."""
        lesions = self.lesions
        return lesions.verdicts if self.answer else tuple("kept" if kept else "below" for kept in lesions.kept)

    @property
    def outcome(self) -> Lesions:
        """The lesions at the end of the search, judged."""
        end = self.detections
        return self._cached("outcome", lambda: self._judge(end.mu, end.alpha, end.found), key="score")

    @property
    def kept(self) -> Detections:
        """What the search found, at the threshold."""
        return self._cached("kept", lambda: self.detections.filter(self._threshold), key="score")

    @property
    def score(self) -> Matching | None:
        """Hits, misses, precision, recall and F1 of the outcome at the threshold; None if no truth is known."""
        return self.outcome.matching

    @property
    def label_sigma(self) -> tuple[float, ...]:
        """Width of the labels: the sigma asked for, or the one that was estimated; voxels, one an axis."""
        config, ndim = self._config, self.heatmap.ndim
        return self.detections.sigma if isinstance(config.sigma, str) else tuple(config.sigma_per_axis(ndim).tolist())

    @property
    def label(self) -> Float[np.ndarray, " ..."]:
        """The heatmap that a network would learn from these true points at this sigma (paper, section 3.1)."""
        points, shape = self._annotation.points, self.heatmap.shape
        return self._cached("label", lambda: gaussian_heatmap(points, shape, self.label_sigma))

    @property
    def curve(self) -> readings.Curve | None:
        """Scores against the threshold; None if no truth is known."""
        truth, end = self.truth, self.detections
        if truth is None:
            return None
        max_distance, gate = self._gate
        return self._cached(
            "curve",
            lambda: readings.score_curve(
                end.mu, end.alpha, truth, max_distance=max_distance, spacing=self.spacing, gate=gate
            ),
        )

    @property
    def spread(self) -> readings.Spread | None:
        """Alpha against the distance to the truth; None if no truth is known."""
        truth = self.truth
        if truth is None:
            return None
        return self._cached(
            "spread", lambda: readings.spread(self.detections, truth, spacing=self.spacing), key="curve"
        )

    @property
    def comparison(self) -> readings.Comparison | None:
        """Both modes at the threshold; None if they are not compared, or not yet."""
        rival = self._rival
        if rival is None:
            return None
        both = [self.detections, rival] if self.detections.config.mode == "joint" else [rival, self.detections]
        return self._cached(
            "comparison",
            lambda: readings.compare(*(one.filter(self._threshold) for one in both), spacing=self.spacing),
        )

    def profile(self, axis: int, *, reach: int | None = None) -> readings.Profile | None:
        """Read residual, fit and result along an axis through the current maximum; None at the start.

        Parameters
        ----------
        axis : int
            Along which axis of the map.
        reach : int, optional
            Voxels to either side; by default 5 sigma, and at least the window.
        """
        if self._cursor < 0:
            return None
        return readings.profile(
            self._trajectory,
            self.iteration,
            axis,
            residual=self._residual,
            subtracted=self.phase is Phase.SUBTRACT,
            spacing=self.spacing,
            reach=reach,
        )

    def rings(
        self,
        normal: int | Sequence[float],
        *,
        through: Sequence[float] | None = None,
        of: Literal["lesions", "outcome", "fit", "truth"] = "lesions",
        k: float = 2.0,
    ) -> Sections:
        """Cut the k-sigma ellipsoids with a plane, exactly.

        Parameters
        ----------
        normal : int or (3,) float
            The axis along which the plane is a slice, or any normal in voxel coordinates. Does not matter in 2-D.
        through : (ndim,) float, optional
            A point of the plane; the present position by default.
        of : {"lesions", "outcome", "fit", "truth"}
            The lesions at the cursor, those at the end, the current step's Gaussian, or the true points.
        k : float
            Radius, in sigma.
        """
        if of == "fit":
            mu = np.zeros((0, self.heatmap.ndim)) if self.fit is None else self.fit.mu[None]
        else:
            sources = {"lesions": self.moment.mu, "outcome": self.detections.mu, "truth": self._annotation.points}
            if of not in sources:
                raise ValueError(f"of must be one of lesions, outcome, fit, truth, got {of!r}")
            mu = sources[of]
        sigma = self.label_sigma if of == "truth" else self.detections.sigma
        if isinstance(normal, int):
            ndim = self.heatmap.ndim
            if not -ndim <= normal < ndim:
                raise ValueError(f"normal must be an axis of the {ndim}-D map, got {normal}")
            normal = tuple(float(axis == normal % ndim) for axis in range(ndim))
        return ellipsoid_sections(mu, sigma, origin=self._position if through is None else through, normal=normal, k=k)

    # ------------------------------------------------------------------ signals
    def _judge(
        self, mu: Float[np.ndarray, "n ndim"], alpha: Float[np.ndarray, " n"], found: tuple[int, ...]
    ) -> Lesions:
        kept, truth, matching = alpha >= self._threshold, self.truth, None
        if truth is not None:
            max_distance, gate = self._gate
            matching = match_points(mu[kept], truth, max_distance=max_distance, spacing=self.spacing, gate=gate)
        return Lesions(mu=mu, alpha=alpha, found=found, kept=kept, matching=matching)

    def _cached(self, name: str, make: Callable[[], T], *, key: str = "") -> T:
        return self._announcer.cached(name, make, key=key)

    def _announce(self) -> None:
        self._announcer.announce()

    def _emit(self, name: str) -> None:
        signal = getattr(self, f"{name}_changed")
        if name == "residual":
            boxes = {tuple((part.start, part.stop) for part in box): box for box in self._edited}
            self._edited = []
            signal.emit(tuple(boxes.values()))
        elif signal.signature.parameters:
            signal.emit(getattr(self, name))
        else:
            signal.emit()

    def _keys(self) -> dict[str, Callable[[], Hashable]]:
        """Tell what each signal stands for, in the order of firing."""

        def judged(owner: object, alpha: Float[np.ndarray, " n"]) -> Hashable:
            return owner, (alpha >= self._threshold).tobytes(), self._annotation.known and self._scoring()

        return {
            "case": lambda: self._case,
            "config": lambda: self._config,
            "trajectory": lambda: self._trajectory,
            "residual": lambda: self._n_edits,
            "cursor": lambda: (self._cursor, self._trajectory),
            "lesions": lambda: judged(self.moment, self.moment.alpha),
            "threshold": lambda: self._threshold,
            "truth": lambda: self._annotation,
            "answer": lambda: self.answer,
            "label": lambda: (self._case, self._annotation, self.label_sigma),
            "score": lambda: judged(self._trajectory, self.detections.alpha),
            "curve": lambda: self._annotation.known and (self._trajectory, self._scoring()),
            "comparing": lambda: self._comparing,
            "comparison": self._compared,
            "position": lambda: self._position,
            "follow": lambda: self._follow,
            "playing": lambda: self._playing,
            "speed": lambda: self._speed,
            "busy": lambda: self._refitter.busy,
            "error": lambda: self._error,
        }

    def _scoring(self) -> Hashable:
        return self._annotation, self._gate, self._case

    def _compared(self) -> Hashable:
        if self._rival is None:
            return None
        masks = [(one.alpha >= self._threshold).tobytes() for one in (self.detections, self._rival)]
        return self._trajectory, self._rival, *masks
