"""Everything that a person can do to a detection: the explorer.

Buttons, keys, notebooks and tests go the same way, so that any number of views stay in step. There is no view, no file
and no event loop in here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lesionkit.detection import FitConfig
from lesionkit.explorer.annotation import Annotation
from lesionkit.explorer.case import looked_at, on_grid
from lesionkit.explorer.refit import Dispatch, Job, Outcome, Refitter
from lesionkit.explorer.state import State
from lesionkit.explorer.trajectory import Phase, Trajectory
from lesionkit.labels import as_points
from lesionkit.matching import Gate, match_points
from lesionkit.volume import Volume

if TYPE_CHECKING:
    from jaxtyping import Float, Num

DEFAULT = FitConfig()
MOST_CATCH_UP = 0.25
"""A player that was held up makes good for so many seconds at most."""
NOTHING = np.zeros((1, 1, 1), np.float32)
"""The map of an explorer without one."""


class Explorer(State):
    """Evented state of one detection.

    Parameters
    ----------
    heatmap : Volume or 2-D or 3-D array, optional
        The predicted map. It is kept by reference and never changed. Without one the explorer is empty until
        :meth:`load`.
    image, truth, affine
        As in :meth:`load`.
    config : FitConfig, optional
        Settings of the search.
    threshold : float
        Lesions with ``alpha >= threshold`` are kept.
    max_distance : float
        Largest distance of a hit, in mm.
    inline_s : float
        Searches expected to take no longer than this, in seconds, run at once; longer ones in a worker thread.
        Infinity: all of them at once, for scripts.
    found : Trajectory, optional
        What a search of this heatmap has found already; nothing is searched until the settings change.

    Notes
    -----
    All methods and signals belong to one thread. What a worker finds is taken over by :meth:`poll`, :meth:`tick` or
    :meth:`wait`, or through a dispatcher (:meth:`set_dispatch`).

    A listener may change the explorer: what follows from that is announced afterwards.

    The cursor is ``3 * iteration + phase``, both counted from 0; -1 is the start.

    Examples
    --------
    >>> from lesionkit import gaussian_heatmap
    >>> heatmap = gaussian_heatmap([(10.2, 12.0, 9.6), (16.0, 12.0, 9.6)], (24, 24, 24), sigma=1.25)
    >>> explorer = Explorer(heatmap, config=FitConfig(sigma=1.25), truth=[(10, 12, 10)])
    >>> for _ in range(2):
    ...     explorer.step_forward()
    >>> explorer.status
    '1 of 2, fit: alpha 1.00, kept'
    >>> explorer.last()
    >>> explorer.score.tp, explorer.score.fp, float(explorer.residual.max()) < 1e-6
    (1, 1, True)
    """

    def __init__(
        self,
        heatmap: Volume | Num[np.ndarray, " ..."] | None = None,
        *,
        image: Volume | Num[np.ndarray, " ..."] | None = None,
        truth: Any = None,
        affine: Float[np.ndarray, "m m"] | None = None,
        config: FitConfig | None = None,
        threshold: float = 0.2,
        max_distance: float = 6.0,
        inline_s: float = 0.03,
        found: Trajectory | None = None,
    ) -> None:
        case, annotation = looked_at(NOTHING if heatmap is None else heatmap, image, truth, affine)
        settings = config or DEFAULT
        _check_axes(settings, case.heatmap.ndim)
        refitter = Refitter(self._adopt, inline_s=inline_s)
        super().__init__(case, annotation, settings, _finite("threshold", threshold), refitter)
        self._ticked: float | None = None
        self.set_matching(max_distance=max_distance)
        if found is None:
            self._search_anew()
        else:
            self._trajectory = found
            refitter.forget(case.heatmap.size)

    # ------------------------------------------------------------------ what is looked at
    def load(
        self,
        heatmap: Volume | Num[np.ndarray, " ..."],
        *,
        image: Volume | Num[np.ndarray, " ..."] | None = None,
        truth: Any = None,
        affine: Float[np.ndarray, "m m"] | None = None,
        config: FitConfig | None = None,
    ) -> None:
        """Look at another heatmap, from the start; threshold, speed and, unless given, settings stay.

        Parameters
        ----------
        heatmap : Volume or 2-D or 3-D array
            The predicted map, kept by reference.
        image : Volume or array of the same shape, optional
            What it was predicted from.
        truth : (n, ndim) array, optional
            True points, float voxel index. None: no truth is known (an empty array says that there is no lesion).
        affine : (ndim + 1, ndim + 1) float, optional
            Voxel index to mm, for a heatmap that is an array; by default voxels of 1 mm.
        config : FitConfig, optional
            Settings; those of before if None.

        Raises
        ------
        TypeError, ValueError
            If the arguments are no maps or do not fit together; the explorer stays as it is.
        """
        case, annotation = looked_at(heatmap, image, truth, affine)
        settings = config or self._config
        _check_axes(settings, case.heatmap.ndim)
        self._config = settings
        self._begin(case, annotation)
        self._search_anew()

    def set_image(self, image: Volume | Num[np.ndarray, " ..."] | None) -> None:
        """Show another image behind the same heatmap, or none."""
        self._case = replace(self._case, image=on_grid(image, self.heatmap, self.affine))
        self._announce()

    # ------------------------------------------------------------------ settings of the search
    def set_config(self, config: FitConfig) -> None:
        """Search again with other settings; the old steps stay until the new ones are there.

        Raises
        ------
        ValueError
            If sigma has another number of axes than the map.
        """
        _check_axes(config, self.heatmap.ndim)
        if config != self._config:
            self._config = config
            self.refit()

    def set_sigma(self, sigma: float | Sequence[float] | Literal["estimate"]) -> None:
        """Search again with another standard deviation, in voxels."""
        value = sigma if isinstance(sigma, str | float | int) else tuple(float(s) for s in sigma)
        self.set_config(replace(self._config, sigma=value))

    def set_window(self, window: int) -> None:
        """Search again with another window, in voxels; odd."""
        self.set_config(replace(self._config, window=window))

    def set_mode(self, mode: Literal["joint", "paper"]) -> None:
        """Search again in the other mode."""
        self.set_config(replace(self._config, mode=mode))

    def set_comparing(self, comparing: bool) -> None:
        """Search in the other mode too, or stop doing so: see `comparison`."""
        if bool(comparing) == self._comparing:
            return
        self._comparing, self._rival = bool(comparing), None
        if self._comparing:
            self.refit()
        self._announce()

    def refit(self) -> None:
        """Search with the present settings, if they are not those of the steps that are there."""
        known = self._trajectory if self._trajectory.steps else None
        self._refitter.request(Job(heatmap=self.heatmap, config=self._config, comparing=self._comparing, known=known))
        self._announce()

    # ------------------------------------------------------------------ walking through the steps
    def go_to(self, cursor: int) -> None:
        """Go to a position; positions beyond the ends are the ends."""
        self._walk(cursor)
        self._announce()

    def go_to_step(self, iteration: int, phase: Phase | int = Phase.SUBTRACT) -> None:
        """Go to a phase of an iteration, both counted from 0."""
        self.go_to(3 * iteration + Phase(phase))

    def step_forward(self, *, whole: bool = False) -> None:
        """Go on by one phase, or to the end of an iteration."""
        self.go_to(3 * ((self._cursor + 1) // 3) + 2 if whole else self._cursor + 1)

    def step_back(self, *, whole: bool = False) -> None:
        """Go back by one phase, or to the end of the iteration before."""
        self.go_to(3 * (self._cursor // 3) - 1 if whole else self._cursor - 1)

    def first(self) -> None:
        """Go to the start, where nothing is subtracted."""
        self.go_to(-1)

    def last(self) -> None:
        """Go to the end, and stay there if other settings give more steps."""
        self.go_to(self._trajectory.last)

    def jump_to_lesion(self, row: int) -> None:
        """Go to the fit that found a lesion, by its row in `detections`.

        Raises
        ------
        IndexError
            If there is no such lesion.
        """
        found = self.detections.found
        if not 0 <= row < len(found):
            raise IndexError(f"lesion {row} does not exist: there are {len(found)}")
        self.go_to_step(found[row], Phase.FIT)

    def jump_to_next(self, kind: Literal["kept", "fp", "fn"]) -> bool:
        """Go on to the next step that keeps a lesion, or to the next false alarm or missed lesion; then to the first.

        Parameters
        ----------
        kind : {"kept", "fp", "fn"}
            A missed lesion is shown where it is, without a step; false alarms and missed ones show the answer.

        Returns
        -------
        bool
            Whether there is one.
        """
        if kind == "fn":
            missed = np.zeros(0, int) if self.score is None else self.score.unmatched_true
            inside = np.clip(self._annotation.points[missed], 0, np.array(self.heatmap.shape) - 1)
            places = [tuple(point) for point in inside.tolist()]
            if places:
                self.show_answer()
                here = places.index(self._position) if self._position in places else -1
                self.move_to(places[(here + 1) % len(places)])
            return bool(places)
        if kind not in ("kept", "fp"):
            raise ValueError(f"kind must be one of kept, fp, fn, got {kind!r}")
        verdicts = zip(self.outcome.found, self.outcome.verdicts, strict=True)
        steps = [step.number for step in self.steps if step.status == "kept"]
        wanted = steps if kind == "kept" else sorted(found for found, verdict in verdicts if verdict == "fp")
        if wanted:
            if kind == "fp":
                self.show_answer()
            self.go_to_step(next((number for number in wanted if number > self.iteration), wanted[0]))
        return bool(wanted)

    def show_answer(self, shown: bool = True) -> None:
        """Tell hits, false alarms and missed lesions, or hide them; walking to the end shows them too."""
        self._answer = bool(shown)
        self._announce()

    # ------------------------------------------------------------------ playing
    def play(self) -> None:
        """Start playing, from the start if the cursor is at the end; :meth:`tick` moves it."""
        if self._trajectory.last < 0:
            return
        if not self._playing:
            self._playing, self._ticked = True, None
            if self._cursor == self._trajectory.last:
                self._walk(-1)
        self._announce()

    def pause(self) -> None:
        """Stop playing."""
        self._playing = False
        self._announce()

    def toggle_playing(self) -> None:
        """Play or pause."""
        if self._playing:
            self.pause()
        else:
            self.play()

    def set_speed(self, speed: float) -> None:
        """Set the phases played a second."""
        if _finite("speed", speed) <= 0:
            raise ValueError(f"speed must be positive, in phases a second, got {speed!r}")
        self._speed = float(speed)
        self._announce()

    def tick(self, now: float | None = None) -> bool:
        """Do what is due: for a timer of a view, or of several views, at any rate.

        Parameters
        ----------
        now : float, optional
            Time in seconds on any clock that does not go back; by default `time.monotonic`.

        Returns
        -------
        bool
            Whether anything happened.
        """
        happened = self.poll()
        if not self._playing:
            return happened
        now = time.monotonic() if now is None else now
        if self._ticked is None:
            self._ticked = now
            return happened
        due = int((now - self._ticked) * self._speed + 1e-9)
        if due < 1:
            return happened
        most = max(int(MOST_CATCH_UP * self._speed), 1)
        self._ticked = now if due > most else self._ticked + due / self._speed
        self._walk(self._cursor + min(due, most))
        self._playing = self._cursor < self._trajectory.last
        self._announce()
        return True

    # ------------------------------------------------------------------ threshold and truth
    def set_threshold(self, threshold: float) -> None:
        """Keep the lesions with ``alpha >= threshold`` (paper, section 3.2, step 5); nothing is fitted again."""
        self._threshold = _finite("threshold", threshold)
        self._announce()

    def set_matching(self, *, max_distance: float | None = None, gate: Gate | None = None) -> None:
        """Set what counts as a hit: see :func:`~lesionkit.matching.match_points`; None leaves it."""
        wanted = (self._gate[0] if max_distance is None else float(max_distance), gate or self._gate[1])
        match_points(np.zeros((0, 1)), np.zeros((0, 1)), max_distance=wanted[0], gate=wanted[1])  # may complain
        self._gate = wanted
        self._announce()

    def set_truth(self, points: Any) -> None:
        """Replace all true points (which :meth:`undo` takes back); None: no truth is known."""
        old = self._annotation
        if points is None:
            new = replace(old.with_points([]), known=False) if old.known else old
        else:
            new = old.with_points(points)
            if old.known and np.array_equal(new.points, old.points):
                new = old
        self._annotate(new)

    def add_truth(self, point: Sequence[float] | Float[np.ndarray, " ndim"]) -> None:
        """Add a true point, float voxel index."""
        self._annotate(self._annotation.add(point))

    def move_truth(
        self, index: int, point: Sequence[float] | Float[np.ndarray, " ndim"], *, amend: bool = False
    ) -> None:
        """Move a true point; IndexError if it does not exist.

        Parameters
        ----------
        index : int
            Row of the point.
        point : (ndim,) float
            Its new place, voxel index.
        amend : bool
            Make this part of the last change, so that one :meth:`undo` takes back a whole drag.
        """
        self._annotate(self._annotation.move(index, point, amend=amend))

    def remove_truth(self, index: int) -> None:
        """Remove a true point; IndexError if it does not exist."""
        self._annotate(self._annotation.remove(index))

    def undo(self) -> None:
        """Take back the last change of the true points, if there is one."""
        self._annotate(self._annotation.undo())

    def redo(self) -> None:
        """Take back the last undo, if nothing has happened since."""
        self._annotate(self._annotation.redo())

    def nearest_truth(self, point: Sequence[float], *, within_mm: float = math.inf) -> int | None:
        """Return the true point nearest to a click, None if there is none."""
        away = (self._annotation.points - as_points([point], self.heatmap.ndim, "point")) * self.spacing
        distance = np.sqrt((away**2).sum(axis=1))
        return int(distance.argmin()) if len(distance) and distance.min() <= within_mm else None

    # ------------------------------------------------------------------ where the views look
    def move_to(self, point: Sequence[float] | Float[np.ndarray, " ndim"]) -> None:
        """Show another voxel; points outside the map are moved to its border."""
        where = as_points([point], self.heatmap.ndim, "point")[0]
        self._position = tuple(np.clip(where, 0, np.array(self.heatmap.shape) - 1).tolist())
        self._announce()

    def set_follow(self, follow: bool) -> None:
        """Let the views follow the peak of the current step, or not."""
        self._follow = bool(follow)
        self._look_at_peak()
        self._announce()

    # ------------------------------------------------------------------ worker and errors
    def set_dispatch(self, dispatch: Dispatch | None, *, later: Dispatch | None = None) -> None:
        """Say how a function is made to run in this thread, so that what a search finds is shown at once.

        Parameters
        ----------
        dispatch : function of a function, optional
            Called in any thread; must not wait. A queued Qt signal, or ``loop.call_soon_threadsafe``.
        later : function of a function, optional
            The same for what has time until the views have drawn, such as the next search of a drag; called in this
            thread. By default `dispatch`.
        """
        self._refitter.set_dispatch(dispatch, later=later)

    def poll(self) -> bool:
        """Take over what the worker has found; True if there was anything."""
        return self._refitter.poll()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the steps are those of the settings; False if that takes longer than `timeout` seconds."""
        return self._refitter.wait(timeout)

    def close(self) -> None:
        """Stop playing and take nothing over any more."""
        self._refitter.close()
        self.pause()

    def report_error(self, message: str) -> None:
        """Show a message in every view; the next search that succeeds removes it."""
        self._error = str(message)
        self._announce()

    def clear_error(self) -> None:
        """Remove the message."""
        self.report_error("")

    # ------------------------------------------------------------------ inside
    def _walk(self, cursor: int) -> None:
        """Go to a position as a person wants it."""
        cursor = min(max(int(cursor), -1), self._trajectory.last)
        at_end = cursor == self._trajectory.last >= 0
        self._wanted = None if at_end else cursor
        self._answer = self._answer or at_end
        self._move(cursor)

    def _move(self, cursor: int) -> None:
        """Bring residual and position to a position of the trajectory."""
        start = self.n_subtracted
        self._cursor = cursor
        end = self.n_subtracted
        for i in range(start, end) if start <= end else range(start - 1, end - 1, -1):
            patch = self._trajectory.patch(i)
            if patch is not None:
                self._residual[patch.box] = patch.after if start < end else patch.before
                self._edited.append(patch.box)
                self._n_edits += 1
        self._look_at_peak()

    def _look_at_peak(self) -> None:
        peak = self.peak if self._follow else None
        if peak is not None:
            self._position = tuple(np.clip(peak, 0, np.array(self.heatmap.shape) - 1).tolist())

    def _adopt(self, outcome: Outcome) -> None:
        """Take over what a search found; one that failed, or belongs to another map, changes no step."""
        if outcome.job.heatmap is self.heatmap:
            self._error = outcome.error
            new = outcome.trajectory
            if new is not None:
                if new is not self._trajectory:
                    self._move(-1)
                    self._trajectory = new
                    self._move(new.last if self._wanted is None else min(self._wanted, new.last))
                    self._playing = self._playing and new.last >= 0
                self._rival = outcome.rival if self._comparing else None
        self._announce()

    def _search_anew(self) -> None:
        self._refitter.forget(self.heatmap.size)
        self.refit()

    def _annotate(self, annotation: Annotation) -> None:
        self._annotation = annotation
        self._announce()


def _finite(name: str, value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def _check_axes(config: FitConfig, ndim: int) -> None:
    if not isinstance(config.sigma, str):
        config.sigma_per_axis(ndim)
