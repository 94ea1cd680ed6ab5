"""Read both visits of the longitudinal Ljubljana patients: `python scripts/long_patients.py FOLDER [PICTURE]`.

FOLDER holds `points.csv` and `long/patientXX/...` (default: $LESIONKIT_DATA). Prints the tables of
`docs/longitudinal.md`, and draws its picture (needs kaleido). Truth: components of change of 3 voxels or more in which
FLAIR rose; hits within 6 mm.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lesionkit import match_points
from lesionkit.checkpoints import load_checkpoint
from lesionkit.figures import STATUS_COLOURS
from lesionkit.io import read_volume
from lesionkit.longitudinal import LongitudinalConfig, change_map, read_two_visits
from lesionkit.pipeline import detect_lesions
from lesionkit.volume import Volume, resample_to

PATIENTS = ("patient01", "patient12")
AXES = ["x", "y", "z"]
HEAT = [(0.0, "rgba(0,0,0,0)"), (0.15, "rgba(106,23,110,0.5)"), (0.5, "rgba(238,106,36,0.8)"), (1, "rgb(252,255,164)")]


def main() -> None:
    """Read, score, draw."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["LESIONKIT_DATA"])
    points = pd.read_csv(folder / "points.csv").rename(columns={"x_mm": "x", "y_mm": "y", "z_mm": "z"})
    network, config = load_checkpoint("flair"), LongitudinalConfig()
    rows = []
    for patient in PATIENTS:
        visits = [read_volume(folder / "long" / patient / f"study{n}_FLAIR.nii.gz") for n in (1, 2)]
        labels = read_volume(folder / "long" / patient / "change.nii.gz", np.int32).data
        ours = (points["kind"] == "long") & (points["patient"] == patient) & (points["n_vox"] >= 3)
        new = points[ours & (points["delta_flair"] > 0)]
        result = read_two_visits(*visits, config)
        found = result.lesions()[AXES].to_numpy()
        matching = match_points(found, new[AXES].to_numpy(), max_distance=6.0)
        change = change_map(*visits, config).data
        rises = np.array([change[labels == number].max() for number in new["lesion_id"]])
        hit = np.isin(np.arange(len(new)), [true for _, true in matching.pairs])
        plain = rises >= config.threshold * config.certain
        print(
            f"{patient}: {len(new)} true, {len(found)} found, {hit.sum()} hits, precision {matching.precision:.2f}, "
            f"recall {matching.recall:.2f}; of {plain.sum()} that rise by 5 sd and more {(hit & plain).sum()}; "
            f"median rise {np.median(rises):.1f} sd, median volume {new['volume_mm3'].median():.0f} mm3"
        )
        predicted = [detect_lesions(network, [visit]) for visit in visits]
        counts = [len(one.lesions()) for one in predicted]
        seen = [
            len(match_points(one.lesions()[AXES].to_numpy(), new[AXES].to_numpy(), max_distance=6.0).pairs)
            for one in predicted
        ]
        spacing = " x ".join(f"{edge:.2f}" for edge in visits[1].spacing)
        print(f"  network, {spacing} mm: {counts[0]} and {counts[1]} lesions; new ones seen {seen[0]} and {seen[1]}")
        largest = new.loc[new["volume_mm3"].idxmax(), AXES].to_numpy(dtype=float)
        rows.append((patient, visits, result.heatmap, predicted[1].heatmap_as_given(), new, found, largest))
    if len(sys.argv) > 2:
        _picture(rows).write_image(sys.argv[2], scale=1)


def _picture(rows: list[tuple[str, list[Volume], Volume, Volume, pd.DataFrame, np.ndarray, np.ndarray]]) -> go.Figure:
    """Draw a row a patient, through the largest new lesion: the visits, what is new, and what the network predicts."""
    titles = ["first visit", "second visit", "new lesions", "network", "network, coronal"]
    figure = make_subplots(len(rows), 5, column_titles=titles, horizontal_spacing=0.01, vertical_spacing=0.02)
    for row, (_, visits, change, heatmap, new, found, centre) in enumerate(rows, start=1):
        first, second = visits
        if not first.same_grid(second):
            first = resample_to(first, second.shape, second.affine)
        for column, (image, heat) in enumerate(
            [(first, None), (second, None), (second, change), (second, heatmap), (second, heatmap)], start=1
        ):
            across = 1 if column == 5 else 2
            _panel(figure, row, column, image, heat, centre, across)
            if column == 3:
                _points(figure, row, column, new[AXES].to_numpy(), centre, {"symbol": "cross-thin", "size": 10,
                    "line": {"width": 2, "color": STATUS_COLOURS["TP"]}})  # fmt: skip
                _points(figure, row, column, found, centre, {"symbol": "circle-open", "size": 16, "color": "white"})
    figure.update_layout(
        width=1250, height=40 + 300 * len(rows), margin={"l": 5, "r": 5, "t": 30, "b": 5}, showlegend=False,
        paper_bgcolor="white", plot_bgcolor="black",
    )  # fmt: skip
    return figure


def _panel(
    figure: go.Figure, row: int, column: int, image: Volume, heat: Volume | None, centre: np.ndarray, across: int
) -> None:
    """Draw one slice through a place, in mm, with a map over it."""
    where = int(np.rint(image.to_voxel(centre[None])[0, across]))
    axes = [axis for axis in range(3) if axis != across]
    grid = {
        name: image.affine[axis, 3] + np.arange(image.shape[axis]) * image.affine[axis, axis]
        for name, axis in zip("xy", axes, strict=True)
    }
    high = float(np.percentile(image.data[image.data > 0], 99.7))
    grey = go.Heatmap(z=image.data.take(where, across).T, colorscale="gray", zmin=0, zmax=high, showscale=False, **grid)
    figure.add_trace(grey, row=row, col=column)
    if heat is not None:
        shown = {"colorscale": HEAT, "zmin": 0, "zmax": float(heat.data.max()), "showscale": False}
        seen = go.Heatmap(z=heat.data.take(where, across).T, **shown, **grid)
        figure.add_trace(seen, row=row, col=column)
    number = (row - 1) * 5 + column
    anchor = "x" if number == 1 else f"x{number}"
    figure.update_xaxes(visible=False, constrain="domain", row=row, col=column)
    figure.update_yaxes(visible=False, scaleanchor=anchor, row=row, col=column)


def _points(figure: go.Figure, row: int, column: int, points: np.ndarray, centre: np.ndarray, marker: dict) -> None:
    near = points[np.abs(points[:, 2] - centre[2]) <= 6]
    figure.add_trace(go.Scatter(x=near[:, 0], y=near[:, 1], mode="markers", marker=marker), row=row, col=column)


if __name__ == "__main__":
    main()
