"""What is drawn as lines on a slice: exact sections of Gaussians, the fit's window, the cross on a maximum.

In: the explorer and a plane. Out: line segments in voxel coordinates with their colours, for the vectors layer. Nothing
is drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionkit.explorer import Explorer, Phase, ellipsoid_sections
from napari_lesionkit.colours import CURRENT, RIVAL, VERDICTS, rgba

if TYPE_CHECKING:
    from jaxtyping import Float

N_POINTS = 64
"""Segments of a full ring."""
NEXT = np.roll(np.arange(N_POINTS), -1)
"""For each point of a ring, the one to which its segment leads."""
DASHES = np.arange(N_POINTS) % 8 < 4
"""Which segments of a dashed ring are drawn."""
MOST_RINGS = 100
"""Rings of lesions drawn at a time; beyond that the largest are."""
OUTER, INNER = 2.0, 1.0
"""Radii of the rings, in sigma."""


@dataclass(frozen=True, eq=False)
class Lines:
    """Line segments of one colour each."""

    start: Float[np.ndarray, "n ndim"]
    """Voxel index."""
    end: Float[np.ndarray, "n ndim"]
    """Voxel index."""
    colour: Float[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.start)


def lines_of(explorer: Explorer, plane: tuple[int, float] | None) -> Lines:
    """Return everything that the present state draws.

    Parameters
    ----------
    explorer : Explorer
        The state; its map must be 2-D or 3-D.
    plane : (axis, index), optional
        The slice, in the map's axis order. None: everything at once, as in a 3-D view or for a 2-D map.
    """
    parts = [*_of_lesions(explorer, plane), *_of_fit(explorer, plane), *_of_maximum(explorer, plane)]
    ndim = explorer.heatmap.ndim
    if not parts:
        return Lines(np.zeros((0, ndim)), np.zeros((0, ndim)), np.zeros((0, 4), np.float32))
    start, end, colour = (np.concatenate(part) for part in zip(*parts, strict=True))
    # what lies outside the map would make napari's sliders longer
    low, high = -0.5, np.array(explorer.heatmap.shape) - 0.5
    inside = ((start >= low) & (start <= high) & (end >= low) & (end <= high)).all(axis=1)
    return Lines(start[inside], end[inside], colour[inside])


Part = tuple["Float[np.ndarray, 'n ndim']", "Float[np.ndarray, 'n ndim']", "Float[np.ndarray, 'n 4']"]


def _of_lesions(explorer: Explorer, plane: tuple[int, float] | None) -> Iterator[Part]:
    """Rings of the lesions at the cursor in the colours of their verdicts; those of the other mode are dashed."""
    lesions = explorer.lesions
    if len(lesions):
        marks = lesions.verdicts
        colours = np.array([rgba(VERDICTS[mark], 0.45 if mark == "below" else 0.9) for mark in marks])
        yield from _rings(lesions.mu, explorer.detections.sigma, plane, OUTER, colours)
    rival = rival_of(explorer)
    if rival is not None and len(rival):
        yield from _rings(rival, explorer.detections.sigma, plane, OUTER, rgba(RIVAL, 0.95)[None], dashed=True)


def _of_fit(explorer: Explorer, plane: tuple[int, float] | None) -> Iterator[Part]:
    """One and two sigma of the current Gaussian."""
    fit = explorer.fit
    if fit is None or not np.isfinite(fit.mu).all():
        return
    for k in (INNER, OUTER):
        yield from _rings(fit.mu[None], explorer.detections.sigma, plane, k, rgba(CURRENT)[None])


def _of_maximum(explorer: Explorer, plane: tuple[int, float] | None) -> Iterator[Part]:
    """Mark the current maximum with a cross, and the window that the fit looks at."""
    step, phase = explorer.step, explorer.phase
    if step is None or phase is Phase.SUBTRACT:
        return
    voxel = np.array(step.voxel, dtype=float)
    axes = [axis for axis in range(len(voxel)) if plane is None or axis != plane[0]]
    if plane is not None:
        axis, index = plane
        if not step.window[axis].start - 0.5 <= index < step.window[axis].stop - 0.5:
            return
        voxel[axis] = index
    low = np.array([part.start - 0.5 for part in step.window])
    high = np.array([part.stop - 0.5 for part in step.window])
    if plane is None:
        low[: len(voxel) - 2] = high[: len(voxel) - 2] = voxel[: len(voxel) - 2]
    else:
        low[plane[0]] = high[plane[0]] = plane[1]
    first, second = axes[-2:]
    corners = np.repeat(low[None], 4, axis=0)
    corners[[1, 2], first] = high[first]
    corners[[2, 3], second] = high[second]
    yield _coloured(corners, np.roll(corners, -1, axis=0), rgba(CURRENT, 0.55))
    if phase is Phase.MAXIMUM and (plane is None or round(plane[1]) == step.voxel[plane[0]]):
        arms = np.zeros((2 * len(axes), len(voxel)))
        for row, axis in enumerate(axes):
            arms[2 * row, axis], arms[2 * row + 1, axis] = -1.0, 1.0
        length = max(1.5, float(max(explorer.detections.sigma)))
        yield _coloured(voxel + 0.35 * length * arms, voxel + 1.2 * length * arms, rgba(CURRENT))


def rival_of(explorer: Explorer) -> Float[np.ndarray, "n ndim"] | None:
    """Return the lesions of the mode that is not shown; None if modes are not compared."""
    comparison = explorer.comparison
    if comparison is None:
        return None
    return (comparison.paper if explorer.detections.config.mode == "joint" else comparison.joint).mu


def _rings(
    mu: Float[np.ndarray, "n ndim"],
    sigma: Sequence[float],
    plane: tuple[int, float] | None,
    k: float,
    colours: Float[np.ndarray, "n 4"],
    *,
    dashed: bool = False,
) -> Iterator[Part]:
    """Sections with the plane; without one, three through each centre."""
    colours = np.broadcast_to(colours, (len(mu), 4))
    if mu.shape[1] == 2:
        cuts = [(ellipsoid_sections(mu, sigma, k=k), colours)]
    elif plane is not None:
        axis, index = plane
        normal = np.eye(3)[axis]
        cuts = [(ellipsoid_sections(mu, sigma, origin=normal * index, normal=normal, k=k), colours)]
    else:
        cuts = [
            (ellipsoid_sections(mu[i : i + 1], sigma, origin=mu[i], normal=normal, k=k), colours[i : i + 1])
            for i in range(min(len(mu), MOST_RINGS))
            if np.isfinite(mu[i]).all()
            for normal in np.eye(3)
        ]
    for sections, shades in cuts:
        if not len(sections):
            continue
        outlines, shade = sections.outlines(N_POINTS), shades[sections.rows]
        if len(sections) > MOST_RINGS:
            size = np.linalg.norm(sections.semi_axes[:, 0], axis=1)
            largest = np.argsort(-size, kind="stable")[:MOST_RINGS]
            outlines, shade = outlines[largest], shade[largest]
        ends = outlines[:, NEXT]
        if dashed:
            outlines, ends = outlines[:, DASHES], ends[:, DASHES]
        shade = np.repeat(shade, outlines.shape[1], axis=0)
        yield outlines.reshape(-1, mu.shape[1]), ends.reshape(-1, mu.shape[1]), shade


def _coloured(
    start: Float[np.ndarray, "n ndim"], end: Float[np.ndarray, "n ndim"], colour: Float[np.ndarray, "4"]
) -> Part:
    return start, end, np.broadcast_to(colour, (len(start), 4))
