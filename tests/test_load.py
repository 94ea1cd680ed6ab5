"""Detection over a cohort that has damaged maps, while its workers die."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lesionkit.detection import Detections, FailedCase, FitConfig, detect_many
from lesionkit.labels import gaussian_heatmap

SHAPE = (24, 24, 24)
SIGMA = 1.25


@dataclass(frozen=True)
class Case:
    """A simulated case that a worker makes itself; loading it may kill that worker, once."""

    number: int
    damaged: bool = False
    kills: Path | None = None

    def truth(self) -> np.ndarray:
        rng = np.random.default_rng(self.number)
        return rng.uniform(5, 18, (int(rng.integers(1, 3)), 3))

    def __call__(self) -> np.ndarray:
        if self.kills is not None and not self.kills.exists():
            self.kills.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        heatmap = gaussian_heatmap(self.truth(), SHAPE, SIGMA)
        if self.damaged:
            heatmap[3, 4, 5] = np.nan
        return heatmap


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given:UserWarning")
def test_500_cases_of_which_five_are_damaged_and_two_kill_their_worker(tmp_path: Path):
    damaged, deadly = {7, 123, 250, 333, 498}, {100: tmp_path / "first", 300: tmp_path / "second"}
    cases = [Case(n, n in damaged, deadly.get(n)) for n in range(500)]
    before = resident_mb()
    results = detect_many(cases, FitConfig(sigma=SIGMA), n_jobs=2, progress=False)
    assert all(path.exists() for path in deadly.values())  # both did kill
    assert {r.number for r in results if isinstance(r, FailedCase)} == damaged
    assert all("finite" in r.error for r in results if isinstance(r, FailedCase))
    found = {n: r for n, r in enumerate(results) if isinstance(r, Detections)}
    assert len(found) == 495
    assert sum(len(r.mu) for r in found.values()) >= 0.95 * sum(len(cases[n].truth()) for n in found)
    assert resident_mb() - before < 150  # 500 maps would be 27 MB of float32, each with its steps kept


@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given:UserWarning")
def test_a_case_that_kills_every_worker_is_listed_and_the_others_are_done():
    results = detect_many([Deadly() if n == 3 else Case(n) for n in range(12)], n_jobs=2, progress=False)
    assert [n for n, r in enumerate(results) if isinstance(r, FailedCase)] == [3]
    assert "worker" in results[3].error


class Deadly:
    """Kills its worker every time."""

    def __call__(self) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")
