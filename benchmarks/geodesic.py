"""Geodesic distances: ours (Dijkstra in SciPy, corrected) against scikit-image, and scikit-fmm where it is installed.

`python -m benchmarks geodesic` measures what docs/labels.md compares. In boxes of 21^3 voxels with the point near the
middle; errors are the largest within 6 voxels of it, in images in which the distance is known: a constant one, and one
whose intensity rises with the square of the radius, where the straight way out is the cheapest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import Row, interleaved
from lesionkit.distance_maps import geodesic_map

HALF, WITHIN, STEEP = 10, 6.0, 0.2
RADIUS = 9.0
"""Of the map that our distances are read from; that of a label, 6, would cut off those along costly ways."""

Way = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""Point, and intensities in its box, and slope of the intensity over the radius -> distances."""


def rows(*, quick: bool = False) -> list[Row]:
    """Measure each way with the point on a voxel and 0.68 voxels beside it."""
    ways = _ways()
    on, off = np.full(3, float(HALF)), np.full(3, HALF + 0.68 / np.sqrt(3))
    found = []
    for name, way in ways.items():
        for what, slope in (("constant image", 0.0), ("cost rising with the radius", STEEP)):
            errors = " / ".join(f"{_error(way, point, slope):.2f}" for point in (on, off))
            found.append(Row(f"geodesic: {name}, {what}", "", f"{errors} voxels", None))
    image = _image(on, STEEP)
    timed = {name: lambda way=way: way(on, image, STEEP) for name, way in ways.items()}
    for name, seconds in interleaved(timed, repeats=5 if quick else 25).items():
        found.append(Row(f"geodesic: {name}, time", "", f"{1e3 * seconds:.1f} ms", None))
    return found


def _radius(point: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.indices((2 * HALF + 1,) * 3) - point[:, None, None, None], axis=0)


def _image(point: np.ndarray, slope: float) -> np.ndarray:
    return slope * _radius(point) ** 2 / 2


def _cost(point: np.ndarray, slope: float) -> np.ndarray:
    """What a voxel of way costs, for those that know no differences of intensity."""
    return np.sqrt(1 + (slope * _radius(point)) ** 2)


def _error(way: Way, point: np.ndarray, slope: float) -> float:
    radius = _radius(point)
    steep = slope * radius
    exact = radius if slope == 0 else (radius * np.sqrt(1 + steep**2) + np.arcsinh(steep) / slope) / 2
    near = radius <= WITHIN
    return float(np.abs(way(point, _image(point, slope), slope) - exact)[near].max())


def _ways() -> dict[str, Way]:
    def ours(point: np.ndarray, image: np.ndarray, slope: float) -> np.ndarray:
        return RADIUS * (1 - geodesic_map(point[None], image, radius=RADIUS, decay=1.0))

    ways: dict[str, Way] = {"ours": ours}
    try:
        from skimage.graph import MCP_Geometric
    except ImportError:
        pass
    else:

        def scikit_image(point: np.ndarray, image: np.ndarray, slope: float) -> np.ndarray:
            costs, _ = MCP_Geometric(_cost(point, slope)).find_costs([tuple(np.rint(point).astype(int))])
            return np.asarray(costs)

        ways["scikit-image MCP_Geometric"] = scikit_image
    try:
        import skfmm
    except ImportError:
        return ways

    def scikit_fmm(start: float) -> Way:
        def way(point: np.ndarray, image: np.ndarray, slope: float) -> np.ndarray:
            sphere = _radius(point) - start
            outside = np.asarray(skfmm.travel_time(sphere, 1 / _cost(point, slope)))
            return np.where(sphere > 0, outside + start, np.maximum(start - outside, 0))

        return way

    return ways | {f"scikit-fmm, from a sphere of radius {start}": scikit_fmm(start) for start in (1, 2)}


if __name__ == "__main__":
    for row in rows():
        print(row.what, row.measured)
