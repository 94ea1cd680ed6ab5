"""Searches that keep up with a dragged slider: inline if they are fast, in a worker thread otherwise.

In: jobs, in the order in which a person asks for them. Out: outcomes, handed over in the owner's thread. One job runs
at a time and is never cancelled: during a drag its outcome is shown, and then the newest job starts, whatever was asked
for in between. Cancelling would show nothing until the drag ends.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from lesionkit.detection import Detections, FitConfig, detect
from lesionkit.explorer.trajectory import Trajectory

if TYPE_CHECKING:
    from jaxtyping import Num

SECONDS_A_VOXEL = 4e-9
"""What a search is expected to cost before one has been timed."""

Dispatch = Callable[[Callable[[], None]], object]
"""Something that makes a function run soon in the thread of the views: a queued Qt signal, or asyncio's
``loop.call_soon_threadsafe``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What is to be searched, and how."""

    heatmap: Num[np.ndarray, " ..."]
    config: FitConfig
    comparing: bool
    """Whether the other mode is wanted as well."""
    known: Trajectory | None = None
    """A trajectory of this heatmap, which is taken over if it has these settings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of a job."""

    job: Job
    trajectory: Trajectory | None = None
    """None if the search failed."""
    rival: Detections | None = None
    """What the other mode finds, if it was wanted."""
    error: str = ""
    """Why the search failed."""


def run(job: Job) -> Outcome:
    """Do a job. Whatever is raised becomes a message: a search that fails in a worker has nobody to raise to."""
    try:
        known = job.known if job.known is not None and job.known.detections.config == job.config else None
        trajectory = known or Trajectory.of(job.heatmap, job.config)
        rival = None
        if job.comparing:
            mode: Literal["joint", "paper"] = "paper" if job.config.mode == "joint" else "joint"
            # the width is shared: an estimate of its own would compare two things at once
            rival = detect(job.heatmap, replace(job.config, mode=mode, sigma=trajectory.detections.sigma))
        return Outcome(job=job, trajectory=trajectory, rival=rival)
    except Exception as error:
        return Outcome(job=job, error=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


class Refitter:
    """Runs jobs; only the newest of those that wait counts.

    Parameters
    ----------
    adopt : function of an Outcome
        Called in the owner's thread: from :meth:`request`, :meth:`poll` or :meth:`wait`.
    inline_s : float
        A job that is expected to take no longer than this runs in the owner's thread, without a dispatcher at once,
        with one in turns of its event loop, none of which both searches and draws; 0: none. Infinity: every job runs
        and is handed over at once.
    """

    def __init__(self, adopt: Callable[[Outcome], None], *, inline_s: float) -> None:
        self.inline_s = inline_s
        self._dispatch: Dispatch | None = None
        self._later: Dispatch | None = None
        self._adopt = adopt
        self._cost = 0.0
        self._waiting: Job | None = None
        self._worker: threading.Thread | None = None
        self._done: Outcome | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits, or its outcome does."""
        return self._worker is not None or self._waiting is not None or self._done is not None

    @property
    def _is_fast(self) -> bool:
        return self.inline_s > 0 and self._cost <= self.inline_s

    def set_dispatch(self, dispatch: Dispatch | None, *, later: Dispatch | None = None) -> None:
        """Say how to make :meth:`poll` run in the owner's thread; it serves what is finished or waits already, too.

        `later` makes it run once the views have drawn; it is called in the owner's thread.
        """
        self._dispatch, self._later = dispatch, later or dispatch
        if dispatch is not None and (self._done is not None or self._waiting is not None):
            dispatch(self._poll)

    def forget(self, n_voxels: int) -> None:
        """Forget what searches cost: another map of so many voxels has come."""
        self._cost = SECONDS_A_VOXEL * n_voxels

    def request(self, job: Job) -> None:
        """Run a job now, or when the worker is free, unless a newer one comes before that."""
        if self._closed:
            return
        waits, self._waiting = self._waiting is not None, job
        if self._worker is not None or self._done is not None:
            return
        if self._later is None or math.isinf(self.inline_s) or not self._is_fast:
            self._go_on()
        elif not waits:
            self._later(self._poll)

    def poll(self) -> bool:
        """Hand over what the worker has finished, or start what waits; True if there was anything."""
        outcome = self._done
        if outcome is None:
            return self._worker is None and self._go_on()
        if self._worker is not None:
            self._worker.join()  # it has nothing left to do but to end
        self._done = self._worker = None
        if not self._closed:
            self._adopt(outcome)
        if self._waiting is not None:
            if self._later is None:
                self._go_on()
            else:  # the views draw first: beside a search, Python would draw much more slowly
                self._later(self._poll)
        return True

    def _go_on(self) -> bool:
        """Start what waits, if there is anything."""
        job, self._waiting = self._waiting, None
        if job is None:
            return False
        if not self._is_fast:
            self._worker = threading.Thread(target=self._work, args=(job,), name="lesionkit-refit", daemon=True)
            self._worker.start()
        elif self._dispatch is None or math.isinf(self.inline_s):
            self._adopt(self._timed(job))
        else:
            self._done = self._timed(job)
            self._dispatch(self._poll)
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing runs and nothing waits; False if that takes longer than `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.busy:
            if (worker := self._worker) is not None:
                worker.join(None if end is None else max(end - time.monotonic(), 0.0))
                if worker.is_alive():
                    return False
            self.poll()
        return True

    def close(self) -> None:
        """Hand nothing over any more."""
        self._closed, self._waiting = True, None
        self.set_dispatch(None)

    def _timed(self, job: Job) -> Outcome:
        start = time.perf_counter()
        outcome = run(job)
        self._cost = time.perf_counter() - start
        return outcome

    def _work(self, job: Job) -> None:
        self._done = self._timed(job)
        dispatch = self._dispatch
        if dispatch is not None:
            with contextlib.suppress(RuntimeError):  # the view and its event loop are gone: poll() still serves
                dispatch(self._poll)

    def _poll(self) -> None:
        self.poll()
