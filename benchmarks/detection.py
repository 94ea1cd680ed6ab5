"""The detector against its targets and its peers: ``python -m benchmarks.detection [--quick]``.

Everything runs in one process, interleaved, measured in CPU time of the thread, as medians. The unit of speed is one
``numpy.argmax`` over the same map: what it costs to look at every voxel once. Peers are measured where installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402 (after the thread limits)

from benchmarks.resolution import resolution_study  # noqa: E402 (after the thread limits)
from benchmarks.timing import Row, interleaved  # noqa: E402 (after the thread limits)
from lesionkit.detection import Detections, FitConfig, detect, estimate_sigma  # noqa: E402 (after the thread limits)
from lesionkit.labels import gaussian_heatmap  # noqa: E402 (after the thread limits)

PEAK = (2.0 * np.pi) ** -1.5
"""Height of a lesion of mass 1 and sigma 1."""


def isolated(
    n: int,
    shape: tuple[int, ...],
    *,
    rng: np.random.Generator,
    sigma: float = 1.0,
    apart: float = 10.0,
    noise: float = 0.01,
    signed: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lesions at least `apart` voxels from each other, alpha 0.3 to 1, noise as a share of the peak of mass 1.

    Negative voxels are set to 0, as a network with a non-negative output predicts them, unless `signed`.
    """
    points = np.zeros((0, len(shape)))
    while len(points) < n:
        new = rng.uniform(4, np.array(shape) - 5)
        if np.linalg.norm(points - new, axis=1).min(initial=np.inf) > apart:
            points = np.vstack([points, new])
    alpha = rng.uniform(0.3, 1.0, n)
    heatmap = gaussian_heatmap(points, shape, sigma, weights=alpha, border="truncate")
    heatmap += (noise * PEAK / sigma ** len(shape)) * rng.standard_normal(shape, np.float32)
    return (heatmap if signed else np.maximum(heatmap, 0)), points, alpha


def f1(found: np.ndarray, points: np.ndarray, within: float = 2.0) -> float:
    """One-to-one, closest first."""
    if not len(found) or not len(points):
        return float(len(found) == len(points))
    distance = np.linalg.norm(found[:, None] - points, axis=2)
    hits = 0
    while distance.min() <= within:
        i, j = np.unravel_index(distance.argmin(), distance.shape)
        distance[i], distance[:, j] = np.inf, np.inf
        hits += 1
    return 2.0 * hits / (len(found) + len(points))


# ---------------------------------------------------------------------- peers
def curve_fit_loop(heatmap: np.ndarray, min_alpha: float = 0.1, most: int = 100) -> np.ndarray:
    """The obvious good version: argmax, SciPy's curve_fit in a 7^3 window, subtraction in a 13^3 window."""
    from scipy.optimize import curve_fit

    left, found = heatmap.copy(), []

    def gaussian(x: np.ndarray, alpha: float, *mu: float) -> np.ndarray:
        return alpha * PEAK * np.exp(-0.5 * ((x - np.array(mu)[:, None]) ** 2).sum(0))

    def cut(centre: np.ndarray, half: int) -> tuple[tuple[slice, ...], np.ndarray]:
        box = tuple(slice(max(c - half, 0), min(c + half + 1, n)) for c, n in zip(centre, left.shape, strict=True))
        return box, np.stack(
            np.meshgrid(*(np.arange(b.start, b.stop, dtype=float) for b in box), indexing="ij")
        ).reshape(3, -1)

    while len(found) < most:
        voxel = np.array(np.unravel_index(left.argmax(), left.shape))
        box, grid = cut(voxel, 3)
        values = left[box].astype(float).ravel()
        best = curve_fit(gaussian, grid, values, p0=(values.sum(), *voxel))[0]
        if best[0] < min_alpha:
            break
        found.append(best[1:])
        box, grid = cut(np.rint(best[1:]).astype(int), 6)
        left[box] -= gaussian(grid, *best).reshape(left[box].shape)
    return np.array(found).reshape(-1, 3)


def peers(heatmap: np.ndarray, threshold: float) -> Iterator[tuple[str, Callable[[], np.ndarray] | str]]:
    """Yield name and call of every peer, or why it is missing. Each call returns points."""

    def have(module: str) -> Any:
        try:
            return importlib.import_module(module)
        except ImportError:
            return None

    ndimage = importlib.import_module("scipy.ndimage")

    def maximum_filter() -> np.ndarray:
        return np.argwhere((ndimage.maximum_filter(heatmap, size=7) == heatmap) & (heatmap > threshold)).astype(float)

    yield "scipy maximum_filter(7)", maximum_filter
    yield "argmax + curve_fit + subtract", lambda: curve_fit_loop(heatmap)
    if (feature := have("skimage.feature")) is None:
        yield "scikit-image", "not installed"
    else:
        yield (
            "skimage peak_local_max",
            lambda: feature.peak_local_max(heatmap, 3, threshold_abs=threshold).astype(float),
        )
        yield (
            "skimage blob_log",
            lambda: feature.blob_log(heatmap, min_sigma=1, max_sigma=1.5, num_sigma=2, threshold=threshold / 2)[:, :3],
        )
    if (torch := have("torch")) is None:
        yield "torch", "not installed"
    else:

        def max_pool() -> np.ndarray:
            data = torch.from_numpy(heatmap)[None]
            peak = (torch.nn.functional.max_pool3d(data, 7, 1, 3) == data) & (data > threshold)
            return peak[0].nonzero().numpy().astype(float)

        yield "torch max_pool3d(7)", max_pool
    if (trackpy := have("trackpy")) is None:
        yield "trackpy", "not installed"
    else:
        trackpy.quiet()

        def locate() -> np.ndarray:
            table = trackpy.locate(heatmap, diameter=7, minmass=0.1, engine="python", preprocess=False)
            return table[["z", "y", "x"]].to_numpy()

        yield "trackpy locate(7)", locate
    if (photutils := have("photutils.detection")) is None:
        yield "photutils", "not installed"
    else:

        def slices() -> np.ndarray:
            finder = photutils.DAOStarFinder(threshold, 2.355)
            for plane in heatmap:
                finder(plane)
            return np.zeros((0, 3))

        yield "photutils DAOStarFinder, slice by slice", slices


# ---------------------------------------------------------------------- rows
def equality_rows(quick: bool) -> Iterator[Row]:
    """Paper mode against SciPy's least squares."""
    from scipy.optimize import curve_fit

    rng = np.random.default_rng(0)
    worst = np.zeros(2)
    for _ in range(10 if quick else 40):
        heatmap, _, _ = isolated(1, (24, 24, 24), rng=rng, signed=True)
        found = detect(heatmap.astype(np.float64), FitConfig(mode="paper", max_lesions=1))
        box = found.steps[0].window
        grid = np.stack(np.meshgrid(*(np.arange(b.start, b.stop, dtype=float) for b in box), indexing="ij")).reshape(
            3, -1
        )

        def gaussian(x: np.ndarray, alpha: float, *mu: float) -> np.ndarray:
            return alpha * PEAK * np.exp(-0.5 * ((x - np.array(mu)[:, None]) ** 2).sum(0))

        values = heatmap[box].astype(float).ravel()
        best = curve_fit(gaussian, grid, values, (1.0, *found.steps[0].voxel), xtol=1e-14, ftol=1e-14, gtol=1e-14)[0]
        worst = np.maximum(worst, [np.abs(found.mu[0] - best[1:]).max(), abs(found.alpha[0] - best[0])])
    met = bool(worst[0] < 1e-5 and worst[1] < 1e-6)
    yield Row("paper mode against curve_fit: voxel, alpha", "1e-5, 1e-6", f"{worst[0]:.0e}, {worst[1]:.0e}", met)


def speed_rows(quick: bool) -> Iterator[Row]:
    """Time in units of argmax."""
    rng = np.random.default_rng(1)
    plan = [((64, 192, 192), {1: 5.0, 5: 8.0, 20: 15.0, 100: 30.0}), ((256, 256, 256), {1: 2.5, 20: 5.0})]
    for shape, targets in plan:
        repeats = (7 if quick else 25) if shape[0] == 64 else (3 if quick else 9)
        for signed in (False, True):
            for n, target in targets.items():
                heatmap, points, _ = isolated(n, shape, rng=rng, signed=signed)
                config = FitConfig(max_lesions=200)
                cost = interleaved(
                    {"argmax": heatmap.argmax, "detect": lambda h=heatmap, c=config: detect(h, c)}, repeats=repeats
                )
                units = cost["detect"] / cost["argmax"]
                name = "x".join(map(str, shape)) + f", joint, {n} peaks" + (", signed noise" if signed else "")
                score = f1(detect(heatmap, config).mu, points)
                measured = f"{units:.1f} argmax ({1e3 * cost['detect']:.2f} ms, F1 {score:.2f})"
                yield Row(name, f"{target:g} argmax", measured, units <= target)


def peer_rows(quick: bool) -> Iterator[Row]:
    """The same map through the peers."""
    rng = np.random.default_rng(2)
    heatmap, points, _ = isolated(20, (64, 192, 192), rng=rng)
    threshold = 0.1 * PEAK
    names = ("argmax + curve_fit + subtract", "scipy maximum_filter(7)", "skimage peak_local_max", "skimage blob_log")
    targets = dict.fromkeys(names, 5.0)
    calls: dict[str, Callable[[], Any]] = {"detect": lambda: detect(heatmap)}
    missing = []
    for name, call in peers(heatmap, threshold):
        if isinstance(call, str):
            missing.append(Row(name, "-", call, None))
        else:
            calls[name] = call
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # finders that find nothing in a slice warn
        cost = interleaved(calls, repeats=1 if quick else 5)
        error = {name: call() for name, call in calls.items()}
    error["detect"] = error["detect"].mu
    for name in calls:
        near = np.linalg.norm(error[name][:, None] - points, axis=2).min(0) if len(error[name]) else np.array([np.nan])
        accuracy = (
            f"F1 {f1(error[name], points):.2f}, error {np.median(near):.3f} voxel"
            if len(error[name])
            else "no 3-D points"
        )
        ratio = cost[name] / cost["detect"]
        if name == "detect":
            yield Row("20 peaks, 64x192x192: lesionkit", "-", f"{1e3 * cost[name]:.2f} ms, {accuracy}", None)
        else:
            target = targets.get(name)
            wanted = f"{target:g}x faster" if target else "-"
            measured = f"{ratio:.1f}x faster ({1e3 * cost[name]:.1f} ms), {accuracy}"
            yield Row(f"  against {name}", wanted, measured, ratio >= target if target else None)
    yield from missing


def pair_rows(quick: bool) -> Iterator[Row]:
    """The resolution study against its targets."""
    for r in resolution_study(40 if quick else 200).to_dict("records"):
        name = f"pair (1, {r['ratio']:g}), {r['separation']:g} sigma apart, {r['mode']}"
        target, met = "-", None
        if r["mode"] == "joint" and r["separation"] >= 1.5:
            target, met = "99 %", r["resolved"] >= 0.99
        if r["mode"] == "joint" and r["separation"] >= 2:
            target, met = "99 %, bound x 1.05", met and r["error_over_bound"] <= 1.05
        measured = f"{100 * r['resolved']:.0f} %"
        if r["resolved"]:
            measured += f", bound x {r['error_over_bound']:.2f}, alpha {100 * r['alpha_bias']:+.1f} %"
        yield Row(name, target, measured, met)


def sigma_rows(quick: bool) -> Iterator[Row]:
    """Maps of unknown width."""
    rng = np.random.default_rng(3)
    scores, errors, widths, cost = [], [], [], []
    for sigma in np.linspace(0.85, 1.3, 4 if quick else 10):
        for n in (3, 10, 30):
            heatmap, points, alpha = isolated(n, (64, 96, 96), rng=rng, sigma=float(sigma), apart=6.0, noise=0.02)
            start = time.thread_time()
            width = estimate_sigma(heatmap)
            cost.append(time.thread_time() - start)
            found = detect(heatmap, FitConfig(sigma="estimate"))
            scores.append(f1(found.mu, points))
            nearest = np.linalg.norm(found.mu[:, None] - points, axis=2).argmin(0)
            errors.append(np.abs(found.alpha[nearest] - alpha).max())
            widths.append(abs(width.sigma[0] / sigma - 1))
    yield Row(
        "sigma unknown in 0.85-1.3: F1 (mean), error of alpha (median of the worst)",
        "0.99, 0.06",
        f"{np.mean(scores):.3f}, {np.median(errors):.3f} (sigma within {100 * np.median(widths):.1f} %, "
        f"{1e3 * np.median(cost):.0f} ms)",
        bool(np.mean(scores) >= 0.99 and np.median(errors) <= 0.06),
    )


def odd_maps(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Maps that are no sum of Gaussians."""
    grid = np.indices(shape)
    radius = np.sqrt(sum((g - (n - 1) / 2) ** 2 for g, n in zip(grid, shape, strict=True)))
    sparse = gaussian_heatmap(rng.uniform(5, 59, (260, 3)), shape)
    yield "constant", np.full(shape, 0.3)
    yield "all zero", np.zeros(shape)
    yield "negative", np.full(shape, -1.0)
    yield "shell", 0.06 * np.exp(-0.5 * (radius - 15) ** 2)
    yield "ball", 0.06 * (radius < 12)
    yield "half space", 0.06 * (grid[0] < 20)
    yield "ramp", 0.001 * grid[0]
    yield "white noise", 0.02 * rng.standard_normal(shape)
    yield "uniform noise", rng.random(shape)
    yield "checkerboard", 0.06 * (grid.sum(0) % 2)
    yield "grid of lines", 0.06 * ((grid % 8 == 0).sum(0) >= 2)
    yield "hot voxels", 0.5 * (rng.random(shape) < 0.01)
    yield "crowd of 260", sparse
    yield "saturated", np.minimum(sparse, 0.03)
    yield "on a background", sparse + 0.01 * rng.random(shape)
    yield "huge values", sparse.astype(float) * 1e300
    yield "denormals", sparse.astype(float) * 1e-310
    yield "integers", rng.integers(0, 200, shape)
    yield "one voxel thick", sparse[:1]
    yield "NaN", np.where(radius < 3, np.nan, 0.0)
    yield "minus infinity", np.where(radius < 3, -np.inf, 0.0)


def odd_rows(quick: bool) -> Iterator[Row]:
    """Crashes and the slowest of the odd maps, 64^3."""
    slowest, crashes, times = ("", 0.0), 0, []
    for mode in ("joint", "paper"):
        for name, heatmap in odd_maps((64, 64, 64), np.random.default_rng(4)):

            def run(h: np.ndarray = heatmap, m: str = mode) -> Detections | str:
                try:
                    return detect(h, FitConfig(mode=m))
                except ValueError as error:
                    return str(error)

            try:
                result = run()
            except Exception as error:  # what this row counts
                crashes += 1
                print(f"{name}: {error!r}", file=sys.stderr)
                continue
            if isinstance(result, str) and "must be finite" not in result:
                crashes += 1
            cost = 1e3 * interleaved({name: run}, repeats=1 if quick else 3)[name]
            times.append((cost, f"{name}, {mode}"))
            slowest = max(slowest, (f"{name}, {mode}", cost), key=lambda x: x[1])
    over = sorted((t for t in times if t[0] > 50), reverse=True)
    detail = f"; over 50 ms: {', '.join(f'{name} {cost:.0f}' for cost, name in over)}" if over else ""
    measured = f"{crashes}; {slowest[1]:.0f} ms ({slowest[0]}){detail}"
    yield Row("odd maps of 64^3: crashes; slowest", "0; 150 ms", measured, crashes == 0 and slowest[1] <= 150)


def import_rows(quick: bool) -> Iterator[Row]:
    """Import in a fresh process, beyond NumPy; modules are compiled once, as in an installed package."""
    code = "import time,numpy; t=time.thread_time(); import lesionkit.detection; print(time.thread_time()-t)"
    with tempfile.TemporaryDirectory() as cache:
        place = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        place["PYTHONPYCACHEPREFIX"] = cache
        times = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=place
                ).stdout
            )
            for _ in range(4 if quick else 8)
        ]
    milliseconds = 1e3 * float(np.median(times[1:]))
    yield Row("import beyond NumPy", "30 ms", f"{milliseconds:.0f} ms", milliseconds <= 30)


SECTIONS = {
    "equality": equality_rows,
    "speed": speed_rows,
    "peers": peer_rows,
    "pairs": pair_rows,
    "sigma": sigma_rows,
    "odd": odd_rows,
    "import": import_rows,
}


def rows(*, quick: bool = False) -> Iterator[Row]:
    """Yield all rows of the table."""
    for section in SECTIONS.values():
        yield from section(quick)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit code says nothing about the targets."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and trials")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS), help="sections to run")
    options = parser.parse_args(arguments)
    print(f"{'':4} {'what':62} {'target':20} measured")
    for name in options.only:
        for row in SECTIONS[name](options.quick):
            mark = {True: "ok", False: "MISS", None: ""}[row.reached]
            print(f"{mark:4} {row.what:62} {row.target:20} {row.measured}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
