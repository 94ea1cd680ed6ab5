"""What leaves the plugin: lesions and true points as tables, the stepping as a GIF, a notebook of the present view."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit import __version__
from lesionkit.detection import FitConfig
from lesionkit.explorer import Explorer
from lesionkit.io import DataError, atomic_path, export_points, import_points, write_points, write_volume
from lesionkit.volume import Volume

if TYPE_CHECKING:
    from jaxtyping import Float
    from napari.components import ViewerModel

    from napari_lesionkit.placement import Placement

MOST_FRAMES = 150
"""Longest GIF, in frames; beyond that it shows whole iterations, and beyond that the first ones."""


def write_lesions(path: str | Path, explorer: Explorer, placement: Placement) -> int:
    """Write the lesions at the threshold as TSV, in mm (RAS+), the highest alpha first; return how many.

    Raises
    ------
    DataError
        If the file cannot be written.
    ValueError
        If the map is 2-D, which has no mm in a scanner.
    """
    _check_3d(placement)
    frame = explorer.kept.to_frame(placement.affine).sort_values("alpha", ascending=False, kind="stable")
    write_points(_ending(path, ".tsv"), frame)
    return len(frame)


def write_truth(path: str | Path, explorer: Explorer, placement: Placement) -> int:
    """Write the true points in any format of the kit, by the file's ending; return how many.

    Raises
    ------
    DataError
        If the ending is unknown, or the file cannot be written.
    ValueError
        If the map is 2-D.
    """
    import pandas as pd

    grid = _grid(explorer, placement)
    points = np.zeros((0, 3)) if explorer.truth is None else explorer.truth
    export_points(path, pd.DataFrame(grid.to_mm(points), columns=["x", "y", "z"]), image=grid)
    return len(points)


def read_truth(path: str | Path, explorer: Explorer, placement: Placement) -> Float[np.ndarray, "n 3"]:
    """Read true points in any format of the kit, as voxel indices of the map.

    Raises
    ------
    DataError
        If the file cannot be used, or a point lies outside the map.
    ValueError
        If the map is 2-D.
    """
    grid = _grid(explorer, placement)
    frame = import_points(path, image=grid).frame
    return grid.to_voxel(frame[["x", "y", "z"]].to_numpy(dtype=float).reshape(-1, 3))


def write_gif(
    path: str | Path,
    viewer: ViewerModel,
    explorer: Explorer,
    *,
    progress: Callable[[float], object] = lambda part: None,
) -> int:
    """Step from start to end and write what the canvas shows; return the number of frames.

    Parameters
    ----------
    path : path
        Ends in ``.gif``.
    viewer : napari.Viewer
        With a window.
    explorer : Explorer
        Comes back to where it was.
    progress : callable, optional
        Called with the fraction done.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    from PIL import Image

    every = list(range(-1, explorer.trajectory.last + 1))
    cursors = (every if len(every) <= MOST_FRAMES else every[::3])[:MOST_FRAMES]
    frames: list[Any] = []
    with _titled(viewer) as title, _returning(explorer):
        for done, cursor in enumerate(cursors, start=1):
            explorer.go_to(cursor)
            title(explorer.status)
            picture = viewer.screenshot(canvas_only=True, flash=False)  # type: ignore[attr-defined]  # only the viewer with a window has it
            image = Image.fromarray(np.asarray(picture)[..., :3])
            frames.append(image.quantize(128, dither=Image.Dither.NONE))
            progress(done / len(cursors))
    duration = [round(1000 / explorer.speed)] * (len(frames) - 1) + [1500]
    with atomic_path(_ending(path, ".gif")) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return len(frames)


def write_notebook(path: str | Path, explorer: Explorer, placement: Placement, *, source: str | None = None) -> Path:
    """Write a notebook that reproduces the present view.

    Parameters
    ----------
    path : path
        Ends in ``.ipynb``.
    explorer, placement
        What is shown.
    source : str, optional
        File of the heatmap; without one the heatmap is written beside the notebook.

    Returns
    -------
    Path
        The file that the notebook reads.

    Raises
    ------
    DataError
        If a file cannot be written.
    ValueError
        If the map is 2-D.
    """
    volume = Volume(np.asarray(explorer.heatmap), _grid(explorer, placement).affine, placement.native)
    target = _ending(path, ".ipynb")
    if source is None:
        heatmap = target.with_name(f"{target.stem}_heatmap.nii.gz")
        write_volume(heatmap, volume, native=False)
    else:
        heatmap = Path(source)
    cells = [
        _cell("markdown", f"# {target.stem}\n\nA moment of fit and subtract, as it was seen in napari. lesionkit "
              f"{__version__}; for research and teaching, not a medical device."),
        *(_cell("code", text) for text in _code(explorer, heatmap, relative=source is None)),
    ]  # fmt: skip
    notebook = {
        "cells": [{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return heatmap


def _code(explorer: Explorer, heatmap: Path, *, relative: bool) -> Iterator[str]:
    """Yield the cells of the notebook."""
    config, truth = explorer.config, explorer.truth
    changed = [f for f in fields(FitConfig) if getattr(config, f.name) != f.default]
    settings = ", ".join(f"{f.name}={getattr(config, f.name)!r}" for f in changed)
    points = None if truth is None else np.round(truth, 4).tolist()
    yield (
        "import plotly.graph_objects as go\n\n"
        "from lesionkit import FitConfig, read_volume\n"
        "from lesionkit.explorer import Explorer\n\n"
        f"heatmap = read_volume({heatmap.name if relative else str(heatmap.resolve())!r})\n"
        f"truth = {points}  # voxel indices, RAS+"
    )
    yield (
        "explorer = Explorer(\n"
        f"    heatmap,\n    truth=truth,\n    config=FitConfig({settings}),\n"
        f"    threshold={explorer.threshold!r},\n    max_distance={explorer.max_distance!r},\n"
        "    inline_s=float('inf'),\n)\n"
        f"explorer.set_comparing({explorer.comparing})\n"
        f"explorer.go_to({explorer.cursor})\n"
        f"explorer.move_to({tuple(round(x, 3) for x in explorer.position)})\n"
        "print(explorer.status)\n"
        "if explorer.score:\n"
        "    print(f'precision {explorer.score.precision:.2f}, recall {explorer.score.recall:.2f}, "
        "F1 {explorer.score.f1:.2f}')\n"
        "if explorer.comparison:\n"
        "    print(*explorer.comparison.differences, sep='\\n')\n"
        "explorer.kept.to_frame(explorer.affine)"
    )
    yield (
        "k = round(explorer.position[2])  # the axial slice, from above: the patient's right is on the left\n"
        "top = float(explorer.heatmap.max())\n"
        "figure = go.Figure(\n"
        "    go.Heatmap(z=explorer.residual[:, :, k].T, zmin=-top, zmax=top, colorscale='RdBu_r')\n"
        ")\n"
        "for of, colour in (('lesions', '#2fbf8f'), ('fit', '#e0a526'), ('truth', '#4aa8ff')):\n"
        "    for ring in explorer.rings(2, through=(0, 0, k), of=of).outlines():\n"
        "        figure.add_scatter(x=ring[:, 0], y=ring[:, 1], mode='lines', line_color=colour, name=of)\n"
        "figure.update_yaxes(scaleanchor='x')\n"
        "figure.update_xaxes(autorange='reversed')\n"
        "figure.update_layout(title=explorer.status, width=640, height=640, showlegend=False)\n"
        "figure"
    )


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})


@contextmanager
def _titled(viewer: ViewerModel) -> Iterator[Callable[[str], None]]:
    """Let a text stand in the picture; afterwards napari's text overlay is as it was."""
    canvas = getattr(viewer, "canvas", None)  # since napari 0.9
    overlay = viewer.text_overlay if canvas is None else canvas.overlays["text"]
    before = overlay.text, overlay.visible

    def title(text: str) -> None:
        overlay.text, overlay.visible = text, True

    try:
        yield title
    finally:
        overlay.text, overlay.visible = before


@contextmanager
def _returning(explorer: Explorer) -> Iterator[None]:
    """Bring the explorer back to where it was."""
    explorer.pause()
    cursor, position = explorer.cursor, explorer.position
    try:
        yield
    finally:
        explorer.go_to(cursor)
        explorer.move_to(position)


def _grid(explorer: Explorer, placement: Placement) -> Volume:
    """Return the map's grid, as what reads and writes points wants it."""
    _check_3d(placement)
    return Volume(np.broadcast_to(np.float32(0), placement.shape), placement.affine, placement.native)


def _check_3d(placement: Placement) -> None:
    if placement.ndim != 3:
        raise ValueError("a 2-D map has no place in a scanner, and no points in mm; a 3-D heatmap is wanted")


def _ending(path: str | Path, ending: str) -> Path:
    """Return a path with the ending that is wanted; the dialog lets people leave it out."""
    path = Path(path)
    if path.suffix.lower() == ending:
        return path
    if path.suffix and path.suffix.lower() in (".tsv", ".csv", ".gif", ".ipynb", ".mp4", ".txt", ".nii", ".gz"):
        raise DataError(f"{path}: cannot be written as {path.suffix}; a name that ends in {ending} is wanted")
    return path.with_name(path.name + ending)
