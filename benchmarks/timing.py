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


def interleaved(functions: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Return the median CPU time of each function in seconds, all threads together; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if turn:
                taken[name].append(time.process_time() - start)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}
