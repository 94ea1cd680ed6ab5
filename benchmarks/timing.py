"""Fair timing in one process: functions take turns, and the CPU time of each is its median."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One line of the result."""

    what: str
    target: str
    measured: str
    reached: bool | None
    """None where there is no target."""


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    turn: float = 0.01,
) -> dict[str, float]:
    """Return the median CPU time of each function in seconds, all threads together.

    The first round warms up and finds how often a quick function must run for a turn of `turn` seconds: called once
    after a slow one it would mostly measure how the slow one left the caches.
    """
    calls: dict[str, int] = {}
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            for _ in range(calls.get(name, 1)):
                function()
            seconds = (time.process_time() - start) / calls.get(name, 1)
            if name in calls:
                taken[name].append(seconds)
            else:
                calls[name] = max(1, round(turn / max(seconds, 1e-6)))
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
