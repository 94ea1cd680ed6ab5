"""The napari plugin's own cost: what a step takes beyond napari's own updates, in a real window.

`xvfb-run -a -s "-screen 0 1920x1200x24" python -m benchmarks plugin`, or without xvfb-run on a screen.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.timing import Row
from lesionkit.simulate.scenes import crowded_field

os.environ.setdefault("NAPARI_CONFIG", os.path.join(tempfile.mkdtemp(), "settings.yaml"))

CASES = (((64, 192, 192), 50), ((182, 218, 182), 100))
"""Shapes, and what a change of sigma may take in ms."""
N_PEAKS = 20
SIGMA = 1.25


class Clock:
    """CPU time of this thread, all of it, and the part that is spent inside napari's own updates."""

    def __init__(self) -> None:
        self.napari, self._depth = 0.0, 0

    def wrap(self, owner: type, name: str) -> Callable[[], None]:
        """Count the time in a method of napari; return what takes that back."""
        original = getattr(owner, name)

        def timed(*arguments, **options):  # type: ignore[no-untyped-def]  # napari's types are not checked
            self._depth += 1
            start = time.thread_time()
            try:
                return original(*arguments, **options)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.napari += time.thread_time() - start

        setattr(owner, name, timed)
        return lambda: setattr(owner, name, original)


@contextmanager
def watching() -> Iterator[Clock]:
    """Watch the updates of layers, sliders and the camera."""
    from napari.components.camera import Camera
    from napari.components.dims import Dims
    from napari.layers.base.base import Layer

    clock = Clock()
    undo = [clock.wrap(Layer, "refresh"), clock.wrap(Dims, "set_point"), clock.wrap(Camera, "__setattr__")]
    try:
        yield clock
    finally:
        for one in undo:
            one()


def own_and_all(
    action: Callable[[object], object], values: Iterable[object], between: Callable[[], object]
) -> tuple[float, float]:
    """Return medians in seconds: the plugin's part of an action, and all of it; the first one warms up."""
    own, everything = [], []
    with watching() as clock:
        for value in values:
            clock.napari, start = 0.0, time.thread_time()
            action(value)
            taken = time.thread_time() - start
            own.append(taken - clock.napari)
            everything.append(taken)
            between()
    return float(np.median(own[1:])), float(np.median(everything[1:]))


def drag(widget, app, seconds: float) -> tuple[int, float]:  # type: ignore[no-untyped-def]  # napari's types are not checked
    """Drag sigma as a mouse does, every 16 ms; return the results shown and the longest gap of the event loop in s."""
    shown: list[float] = []
    widget.explorer.trajectory_changed.connect(lambda: shown.append(time.perf_counter()), check_nargs=False)
    start = last = time.perf_counter()
    longest, moved = 0.0, start
    while (now := time.perf_counter()) - start < seconds:
        longest, last = max(longest, now - last), now
        if now - moved >= 0.016:
            moved = now
            widget.search.sigma.setValue(round(1.25 + 0.25 * np.sin(3.0 * (now - start)), 2))
        app.processEvents()
        time.sleep(0.001)
    return len(shown), longest


def gap_of_network(viewer, app) -> float:  # type: ignore[no-untyped-def]  # napari's types are not checked
    """Run a network as for the first time; return the longest gap of the event loop meanwhile, in s."""
    from napari_lesionkit.samples import case

    for data, options, _ in case("gad")[:-1]:
        viewer.add_image(data, **options)
    widget = dock_anew(viewer)
    widget.predict.setChecked(True)
    for _ in range(5):
        app.processEvents()
    widget.network._finished = lambda heatmap: widget.network._ended()  # what it shows then is measured elsewhere
    widget.network.start()
    last, longest = time.perf_counter(), 0.0
    while widget.network.prediction is not None:
        app.processEvents()
        time.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    return longest


def dock_anew(viewer):  # type: ignore[no-untyped-def]  # napari's types are not checked
    """Open the dock; one that is open is closed."""
    from napari_lesionkit.launch import dock

    for name in list(viewer.window.dock_widgets):
        if "lesion" in name:
            viewer.window.remove_dock_widget(viewer.window.dock_widgets[name])
    return dock(viewer)


def rows(*, quick: bool = False) -> list[Row]:
    """Measure maps of 20 peaks, half of them side by side, in a window of 1500 x 1000 pixels."""
    import napari
    from qtpy.QtWidgets import QApplication

    from lesionkit.detection import FitConfig
    from lesionkit.volume import Volume
    from napari_lesionkit.placement import volume_layer
    from napari_lesionkit.reader import heat_options

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1500, 1000)
    app = QApplication.instance()
    assert app is not None

    def settle() -> None:
        for _ in range(3):
            app.processEvents()

    gap = gap_of_network(viewer, app)
    found = [Row("plugin: a network's first run, longest gap", "<= 50 ms", f"{1e3 * gap:.0f} ms", gap <= 0.05)]
    repeats = 30 if quick else 120
    for shape, most in CASES:
        rng = np.random.default_rng(0)
        scene = crowded_field(N_PEAKS, shape, sigma=SIGMA, closest=2.0, noise=0.02, rng=rng)
        volume = Volume(scene.heatmap, np.eye(4))
        viewer.layers.clear()
        data, options, _ = volume_layer(volume, "heatmap", **heat_options(volume.data))
        layer = viewer.add_image(data, **options)
        widget = dock_anew(viewer)
        widget.begin(layer, truth=scene.points, config=FitConfig(sigma=SIGMA))
        explorer = widget.explorer
        settle()
        size = " x ".join(map(str, shape))

        def forward(_: object, explorer=explorer) -> None:  # type: ignore[no-untyped-def]  # napari's types are not checked
            if explorer.cursor < explorer.trajectory.last:
                explorer.step_forward()
            else:
                explorer.first()

        cursors = rng.integers(-1, explorer.trajectory.last + 1, repeats)
        thresholds = rng.uniform(0.1, 1.0, repeats)
        for what, action, values in (
            ("step", forward, range(repeats)),
            ("scrub anywhere", lambda cursor, e=explorer: e.go_to(int(cursor)), cursors),
            ("threshold", lambda value, e=explorer: e.set_threshold(float(value)), thresholds),
        ):
            own, everything = own_and_all(action, values, settle)
            text = f"{1e3 * own:.2f} ms of {1e3 * everything:.1f}"
            found.append(Row(f"plugin, {size}: {what}, beyond napari", "<= 2 ms", text, own <= 2e-3))
        paint, _ = own_and_all(
            lambda _, w=widget: (w.threshold.bars.repaint(), w.charts.profile.repaint()), range(repeats // 2), settle
        )
        found.append(Row(f"plugin, {size}: bars and profile painted", "", f"{1e3 * paint:.2f} ms", None))
        explorer.go_to(3 * (len(explorer.steps) // 2))
        waiting, explorer._refitter.inline_s = explorer._refitter.inline_s, np.inf  # all in one thread, to be timed
        _, everything = own_and_all(
            lambda sigma, e=explorer: e.set_sigma(float(sigma)), rng.uniform(1.0, 1.6, repeats // 2), settle
        )
        text = f"{1e3 * everything:.1f} ms"
        found.append(Row(f"plugin, {size}: sigma to new points", f"<= {most} ms", text, everything <= most * 1e-3))
        explorer._refitter.inline_s = waiting
        n, gap = drag(widget, app, 2.0)
        reached = n >= 20 and gap <= 0.05
        found.append(
            Row(
                f"plugin, {size}: 2 s drag of sigma",
                ">= 20 results, no gap > 50 ms",
                f"{n}, {1e3 * gap:.0f} ms",
                reached,
            )
        )
        explorer.wait()
    viewer.close()
    return found
