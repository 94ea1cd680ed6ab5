"""The explorer's own cost: what every interactive view pays before it draws anything.

`python -m benchmarks explorer`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.timing import Row
from lesionkit.detection import FitConfig, detect
from lesionkit.explorer import Explorer
from lesionkit.simulate.scenes import Scene, crowded_field

SHAPE = (64, 192, 192)
"""The paper's volume."""
N_PEAKS = 20
SIGNALS = [name for name in dir(Explorer) if name.endswith("_changed")]


def _medians(action: Callable[[object], object], values: Iterable[object]) -> tuple[float, float]:
    """Median and maximum CPU time of an action in seconds, all threads together; the first one warms up."""
    taken = []
    for value in values:
        start = time.process_time()
        action(value)
        taken.append(time.process_time() - start)
    return float(np.median(taken[1:])), float(np.max(taken[1:]))


def _look(explorer: Explorer) -> None:
    """Read everything that views show."""
    for lesions in (explorer.lesions, explorer.outcome):
        lesions.verdicts  # noqa: B018 (read for its cost)
    for name in ("kept", "status", "score", "curve", "spread", "patch"):
        getattr(explorer, name)
    explorer.profile(0)
    explorer.rings(0)
    explorer.rings(0, of="fit")


def _watched(scene: Scene) -> Explorer:
    """Open a scene with a listener on every signal."""
    explorer = Explorer(scene.heatmap, truth=scene.points, config=FitConfig(sigma=1.25), inline_s=np.inf)
    for name in SIGNALS:
        getattr(explorer, name).connect(lambda *_: None, check_nargs=False)
    _look(explorer)  # matching loads SciPy
    return explorer


def rows(*, quick: bool = False) -> list[Row]:
    """Measure maps of 20 peaks, half of them side by side, with a listener on every signal."""
    rng = np.random.default_rng(0)
    scene = crowded_field(N_PEAKS, SHAPE, sigma=1.25, closest=2.0, noise=0.02, rng=rng)
    explorer = _watched(scene)
    repeats = 40 if quick else 200

    def reading(command: Callable[[object], object]) -> Callable[[object], object]:
        watched = explorer
        return lambda value: (command(value), _look(watched))

    found = []
    cursors = rng.integers(-1, explorer.trajectory.last + 1, repeats)
    there_and_back = [-1 if i % 2 else explorer.trajectory.last for i in range(repeats)]
    thresholds = rng.uniform(0.1, 1.0, repeats)

    def forward(_: object) -> None:
        if explorer.cursor < explorer.trajectory.last:
            explorer.step_forward()
        else:
            explorer.first()

    for what, command, values in (
        ("step", forward, range(repeats)),
        ("scrub anywhere", lambda cursor: explorer.go_to(int(cursor)), cursors),
        ("scrub from end to end", explorer.go_to, there_and_back),
        ("threshold", explorer.set_threshold, thresholds),
    ):
        median, worst = _medians(command, values)
        found.append(Row(f"explorer, {N_PEAKS} peaks: {what}", "<= 2 ms", _ms(median, worst), median <= 2e-3))
        median, worst = _medians(reading(command), values)
        found.append(Row("... and all readings", "<= 2 ms", _ms(median, worst), median <= 2e-3))

    for title, noise in (("clean", 0.0), ("noise of 2 % of a peak", 0.02)):
        rng = np.random.default_rng(0)
        scene = crowded_field(N_PEAKS, SHAPE, sigma=1.25, closest=2.0, noise=noise, rng=rng)
        explorer = _watched(scene)
        explorer.go_to_step(len(explorer.steps) // 2)
        sigmas = rng.uniform(1.0, 1.6, repeats // 4)
        heatmap = scene.heatmap
        alone, worst = _medians(lambda sigma, heatmap=heatmap: detect(heatmap, FitConfig(sigma=sigma)), sigmas)
        found.append(Row(f"explorer, {title}: detect() alone", "", _ms(alone, worst), None))
        for what, command, shift in (
            ("sigma to new steps", explorer.set_sigma, 0.0),
            ("... and all readings", reading(explorer.set_sigma), 1e-9),
        ):
            median, worst = _medians(command, sigmas + shift)
            found.append(Row(f"explorer, {title}: {what}", "<= 30 ms", _ms(median, worst), median <= 30e-3))
    median, worst = _medians(
        lambda point: (explorer.add_truth(point), explorer.label), rng.uniform(8, 56, (repeats // 4, 3))
    )
    found.append(Row("explorer: a true point to the new label heatmap", "", _ms(median, worst), None))
    return found


def _ms(median: float, worst: float) -> str:
    return f"{1e3 * median:.2f} ms (worst {1e3 * worst:.2f})"
