"""One plotly figure per result: results in, `plotly.graph_objects.Figure` out.

Nothing is computed here that is a result in itself, and no figure is shown or written: the caller decides. Figures are
transparent and use mid-tone inks, so that they read on light and dark pages.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Int, Real
from plotly.subplots import make_subplots

from lesionkit.calibration import Reliability, SmoothReliability
from lesionkit.uncertainty import RetentionCurve
from lesionkit.volume import Volume

STATUS_COLOURS: Final[Mapping[str, str]] = {"TP": "#2fbf8f", "FP": "#f2725c", "FN": "#4aa8ff", "detected": "#2fbf8f"}
"""Colour of a hit, a false alarm, a missed lesion, and of a detection where the truth is unknown; told apart with any
kind of colour vision, on black and on white."""
STATUS_NAMES: Final[Mapping[str, str]] = {
    "TP": "hit (true positive)",
    "FP": "false alarm (false positive)",
    "FN": "missed (false negative)",
    "detected": "detected",
}
"""What a status is called in legends."""
HEAT_COLOURS: Final[Sequence[str]] = ("#1b0c41", "#6a176e", "#b8325a", "#ee6a24", "#fca50a", "#fcffa4")
"""Colour scale of heatmaps, from low to high."""
F1_CURVE: Final = "F1 on validation"
"""Column and legend of the score in :func:`training_figure`."""
INK: Final = "#8a94a3"
"""Grey that reads on white and on black."""

_PLANES: Final = (("axial", 2, 0, 1), ("coronal", 1, 0, 2), ("sagittal", 0, 1, 2))
_AXIS_NAMES: Final = ("x, left to right (mm)", "y, back to front (mm)", "z, bottom to top (mm)")
_LINES: Final = ("#4aa8ff", "#f2725c", "#2fbf8f", "#c79bff", "#e0a526")


def alpha_figure(alpha: Real[np.ndarray, " n"], *, threshold: float, status: Sequence[str] | None = None) -> go.Figure:
    """Draw the existence probabilities as bars, the highest first, with the threshold as a line.

    Parameters
    ----------
    alpha
        Existence probability of each candidate, in the order in which the bars are to stand.
    threshold
        Smallest alpha of a detection.
    status
        ``"TP"``, ``"FP"`` or ``"detected"`` for each candidate; None: all are ``"detected"``.

    Returns
    -------
    plotly.graph_objects.Figure
        One bar a candidate, numbered from 1; bars below the threshold are pale.

    Raises
    ------
    ValueError
        If `status` has another length or another word.
    """
    values = np.asarray(alpha, dtype=np.float64)
    names = ["detected"] * len(values) if status is None else list(status)
    if len(names) != len(values):
        raise ValueError(f"status: got {len(names)} words for {len(values)} candidates")
    unknown = sorted(set(names) - set(STATUS_COLOURS))
    if unknown:
        raise ValueError(f"status: got {unknown}, wanted words out of {sorted(STATUS_COLOURS)}")
    bars = go.Bar(
        x=np.arange(1, len(values) + 1),
        y=values,
        marker={
            "color": [STATUS_COLOURS[name] for name in names],
            "opacity": np.where(values >= threshold, 1.0, 0.28),
            "line": {"width": 0},
        },
        customdata=[STATUS_NAMES[name] for name in names],
        hovertemplate="lesion %{x}<br>alpha %{y:.3f}<br>%{customdata}<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.add_hline(
        y=threshold,
        line={"color": INK, "width": 1.5, "dash": "dash"},
        annotation={"text": f"threshold<br>{threshold:.2f}", "font": {"color": INK}, "x": 1.0, "xanchor": "left"},
    )
    every = max(1, round(len(values) / 15))
    figure.update_xaxes(title="lesion, by falling alpha", range=[0.4, len(values) + 0.6], tick0=1, dtick=every)
    figure.update_yaxes(title="existence probability alpha", range=[0, max(1.05, 1.05 * values.max(initial=0))])
    figure.update_layout(bargap=0.15, showlegend=False)
    return _styled(figure).update_layout(margin_r=80)


def precision_recall_figure(table: pd.DataFrame, *, chosen: float | None = None, name: str = "validation") -> go.Figure:
    """Draw precision against recall, and all three rates against the threshold.

    Parameters
    ----------
    table
        Columns threshold, precision, recall, f1, as :func:`lesionkit.metrics.precision_recall` returns them.
    chosen
        Threshold in use, to be marked.
    name
        What the table was computed on.

    Returns
    -------
    plotly.graph_objects.Figure
        Two panels.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    hover = "threshold %{customdata:.3f}<br>recall %{x:.3f}<br>precision %{y:.3f}<extra></extra>"
    line = {"color": _LINES[0], "width": 2.5}
    curve = go.Scatter(x=table["recall"], y=table["precision"], customdata=table["threshold"], line=line, name=name)
    figure.add_trace(curve.update(hovertemplate=hover, mode="lines", showlegend=False), row=1, col=1)
    for column, colour in zip(("precision", "recall", "f1"), _LINES, strict=False):
        label = "F1" if column == "f1" else column
        trace = go.Scatter(x=table["threshold"], y=table[column], name=label, mode="lines", line={"color": colour})
        figure.add_trace(trace, row=1, col=2)
    if chosen is not None:
        figure.add_vline(x=chosen, line={"color": INK, "dash": "dash", "width": 1.5}, row=1, col=2)
        kept = table[table["threshold"] >= chosen]
        if len(kept):
            point = kept.iloc[int(kept["threshold"].to_numpy().argmin())]
            text = f"threshold {chosen:.2f}, F1 {point['f1']:.2f}"
            marker = {"color": _LINES[1], "size": 11, "line": {"color": "white", "width": 1.5}}
            dot = go.Scatter(x=[point["recall"]], y=[point["precision"]], mode="markers", marker=marker)
            figure.add_trace(dot.update(name=text, hovertemplate=text + "<extra></extra>"), row=1, col=1)
    figure.update_xaxes(range=[0, 1.02], title=f"recall ({name})", row=1, col=1)
    figure.update_xaxes(title="threshold on alpha", row=1, col=2)
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title="precision", row=1, col=1)
    figure.update_yaxes(title="rate", row=1, col=2)
    return _styled(figure)


def training_figure(history: pd.DataFrame, *, strip: bytes | None = None) -> go.Figure:
    """Draw how a training stands: losses and F1 over the steps, and the film strip beside them.

    Parameters
    ----------
    history
        One row a validation: `step`, `F1 on validation`, and one column a loss, as a share of that of predicting
        nothing, at which a line is drawn; NaN where a curve has no value.
    strip
        The film strip, a PNG; None: curves only.

    Returns
    -------
    plotly.graph_objects.Figure
        One line a column, and one picture.

    Raises
    ------
    ValueError
        If `history` has no column `step`.
    """
    if "step" not in history:
        raise ValueError(f"history: got the columns {list(history.columns)}, wanted one called 'step'")
    widths = [1.0] if strip is None else [0.4, 0.6]
    figure = make_subplots(cols=len(widths), column_widths=widths, horizontal_spacing=0.04)
    losses = [str(name) for name in history.columns if name not in ("step", F1_CURVE)]
    colours = dict(zip([*losses, F1_CURVE], [*_LINES[: len(losses)], STATUS_COLOURS["TP"]], strict=False))
    for name, colour in colours.items():
        if name in history:
            known = history[["step", name]].dropna()
            line = go.Scatter(x=known["step"], y=known[name], mode="lines+markers", name=name, line={"color": colour})
            figure.add_trace(line, row=1, col=1)
    note = {"text": "predicting nothing", "font": {"size": 10}}
    figure.add_hline(y=1.0, line={"color": INK, "width": 1, "dash": "dash"}, annotation=note, row=1, col=1)
    figure = _styled(figure)
    figure.update_xaxes(title="step", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_layout(hovermode="x unified")
    if strip is not None:
        source = f"data:image/png;base64,{base64.b64encode(strip).decode()}"
        figure.add_trace(go.Image(source=source, hoverinfo="skip"), row=1, col=2)
        title = "a slice of a validation case: MRI and points, then the map after each validation"
        figure.update_xaxes(title=title, showticklabels=False, ticks="", showgrid=False, row=1, col=2)
        figure.update_yaxes(visible=False, row=1, col=2)
    return figure


def resolution_figure(table: pd.DataFrame) -> go.Figure:
    """Draw what a detector makes of pairs of lesions, by their separation.

    Parameters
    ----------
    table
        One row for each mode, ratio and separation: columns mode (``"joint"``, ``"paper"``), ratio (mass of the second
        lesion over that of the first), separation (in sigma), resolved (share of pairs, 0 to 1), error_over_bound
        (position error over the Cramer-Rao bound), alpha_bias (mean relative error of alpha); the last two are NaN
        where no pair is resolved.

    Returns
    -------
    plotly.graph_objects.Figure
        Three panels; a colour for each mode, a dash for each ratio.
    """
    panels = (
        ("resolved", "pairs resolved", ".0%"),
        ("error_over_bound", "position error / Cramer-Rao bound", None),
        ("alpha_bias", "bias of alpha", ".0%"),
    )
    names = {"joint": "joint refit (default)", "paper": "paper's loop"}
    figure = make_subplots(1, 3, horizontal_spacing=0.08)
    for n, (column, title, form) in enumerate(panels, start=1):
        for colour, (mode, one) in zip(_LINES, table.groupby("mode", sort=True), strict=False):
            for dash, (ratio, group) in zip(("solid", "dot"), one.groupby("ratio", sort=False), strict=False):
                line = go.Scatter(
                    x=group["separation"],
                    y=group[column],
                    mode="lines+markers",
                    name=f"{names.get(str(mode), mode)}, 1 : {ratio:g}",
                    line={"color": colour, "dash": dash, "width": 2.5},
                    marker={"size": 7},
                    showlegend=n == 1,
                )
                figure.add_trace(line, row=1, col=n)
        figure.update_xaxes(title="separation (sigma)", row=1, col=n)
        figure.update_yaxes(title=title, tickformat=form, row=1, col=n)
    figure.update_yaxes(range=[-0.03, 1.03], row=1, col=1)
    figure.update_yaxes(type="log", dtick="D2", row=1, col=2)
    for n, level in ((2, 1.0), (3, 0.0)):
        figure.add_hline(y=level, line={"color": INK, "width": 1.5, "dash": "dash"}, row=1, col=n)
    return _styled(figure)


def volume_figure(
    image: Volume,
    heatmap: Volume | None = None,
    *,
    at_mm: Sequence[float] | None = None,
    points_mm: Real[np.ndarray, "n 3"] | None = None,
    near_mm: float = 4.0,
) -> go.Figure:
    """Draw the axial, coronal and sagittal plane through one point.

    Parameters
    ----------
    image
        MRI, RAS+.
    heatmap
        Predicted heatmap on the same grid, drawn over the image.
    at_mm
        Point in mm through which the planes go; None: the heatmap's maximum, or the centre of the image.
    points_mm
        Points to mark as rings, in mm, one row a point.
    near_mm
        Points farther than this from a plane are not drawn in it.

    Returns
    -------
    plotly.graph_objects.Figure
        Three panels with axes in mm, neurological display (patient's right on the right).

    Raises
    ------
    ValueError
        If the heatmap is on another grid, or the point lies outside the image.

    Notes
    -----
    Each panel's axes are in mm along the voxel axes; for an oblique affine they are offset, not rotated.
    """
    _check_grid(image, heatmap)
    where = _voxel_in(image, heatmap, at_mm)
    centre = image.to_mm(where[None])[0]
    corner = centre - np.asarray(image.spacing) * where
    ticks = [corner[a] + np.arange(n) * image.spacing[a] for a, n in enumerate(image.shape)]
    points = np.empty((0, 3)) if points_mm is None else np.asarray(points_mm, dtype=np.float64).reshape(-1, 3)
    rings = corner + image.to_voxel(points) * image.spacing if len(points) else points
    low, high = _window(image.data)
    top = float(np.max(heatmap.data)) if heatmap is not None else 0.0

    titles = [f"{name}, {'xyz'[a]} = {centre[a]:.1f} mm" for name, a, _, _ in _PLANES]
    widths = [image.shape[right] * image.spacing[right] for _, _, right, _ in _PLANES]
    figure = make_subplots(1, 3, subplot_titles=titles, column_widths=widths, horizontal_spacing=0.06)
    for n, (_, across, right, up) in enumerate(_PLANES, start=1):
        grid = {"x": ticks[right], "y": ticks[up]}
        slab = image.data.take(where[across], axis=across).T
        grey = go.Heatmap(z=slab, colorscale="gray", zmin=low, zmax=high, showscale=False, name="image", **grid)
        figure.add_trace(grey, row=1, col=n)
        if heatmap is not None and top > 0:
            heat = heatmap.data.take(where[across], axis=across).T
            bar = {"title": "lesions<br>per voxel", "thickness": 12} if n == 3 else None
            over = go.Heatmap(z=heat, colorscale=_clear_heat(), zmin=0, zmax=top, **grid)
            figure.add_trace(over.update(showscale=n == 3, colorbar=bar, name="heatmap"), row=1, col=n)
        near = rings[np.abs(rings[:, across] - centre[across]) <= near_mm]
        ring = {"symbol": "circle-open", "size": 16, "color": STATUS_COLOURS["detected"], "line": {"width": 2}}
        dots = go.Scatter(x=near[:, right], y=near[:, up], mode="markers", marker=ring, showlegend=False)
        figure.add_trace(dots.update(name="points"), row=1, col=n)
        anchor = "x" if n == 1 else f"x{n}"
        figure.update_xaxes(title=_AXIS_NAMES[right], constrain="domain", showgrid=False, row=1, col=n)
        figure.update_yaxes(title=_AXIS_NAMES[up], scaleanchor=anchor, showgrid=False, row=1, col=n)
    return _styled(figure)


def labels_figure(
    image: Volume,
    labels: Mapping[str, Volume],
    *,
    at_mm: Sequence[float],
    points_mm: Real[np.ndarray, "n 3"] | None = None,
    half_mm: float = 30.0,
) -> go.Figure:
    """Draw several labels of the same lesions over the MRI, one axial panel each.

    Parameters
    ----------
    image
        MRI, RAS+.
    labels
        Name -> label on the same grid; each is scaled to its own maximum in the slice.
    at_mm
        Point in mm through which the slice goes, and around which the panels are cut.
    points_mm
        Points to mark as crosses, in mm, one row a point; those within 2 mm of the slice are drawn.
    half_mm
        Half the width of a panel.

    Returns
    -------
    plotly.graph_objects.Figure
        Panels in the order of `labels`, anterior up, patient's right on the right.

    Raises
    ------
    ValueError
        If there is no label, one is on another grid, or the point lies outside the image.
    """
    if not labels:
        raise ValueError("labels: got none, wanted at least one")
    for label in labels.values():
        _check_grid(image, label)
    where = _voxel_in(image, None, at_mm)
    centre = image.to_mm(where[None])[0]
    axes = [centre[a] + (np.arange(image.shape[a]) - where[a]) * image.spacing[a] for a in (0, 1)]
    low, high = _window(image.data)
    points = np.empty((0, 3)) if points_mm is None else np.asarray(points_mm, dtype=np.float64).reshape(-1, 3)
    near = points[np.abs(points[:, 2] - centre[2]) <= 2]
    figure = make_subplots(1, len(labels), subplot_titles=list(labels), horizontal_spacing=0.02)
    for n, label in enumerate(labels.values(), start=1):
        place = {"row": 1, "col": n}
        grid = {"x": axes[0], "y": axes[1], "showscale": False}
        grey = go.Heatmap(z=image.data[:, :, where[2]].T, colorscale="gray", zmin=low, zmax=high, **grid)
        figure.add_trace(grey.update(hoverinfo="skip"), **place)
        heat = np.asarray(label.data[:, :, where[2]], dtype=float)
        top = float(heat.max())
        if top > 0:
            figure.add_trace(go.Heatmap(z=heat.T, colorscale=_clear_heat(), zmin=0, zmax=top, **grid), **place)
        marker = {"symbol": "cross-thin", "size": 9, "line": {"width": 1.5, "color": STATUS_COLOURS["FN"]}}
        dots = go.Scatter(x=near[:, 0], y=near[:, 1], mode="markers", marker=marker, showlegend=False)
        figure.add_trace(dots.update(name="points"), **place)
        spans = [[centre[a] - half_mm, centre[a] + half_mm] for a in (0, 1)]
        figure.update_xaxes(range=spans[0], visible=False, constrain="domain", **place)
        figure.update_yaxes(range=spans[1], visible=False, scaleanchor="x" if n == 1 else f"x{n}", **place)
    return _styled(figure).update_layout(height=320, width=60 + 260 * len(labels))


def heatmap_figure(image: Volume, heatmap: Volume, *, n_slices: int = 8) -> go.Figure:
    """Draw a film strip of axial slices with the heatmap over the image.

    Parameters
    ----------
    image
        MRI, RAS+.
    heatmap
        Heatmap on the same grid.
    n_slices
        Number of slices, evenly spaced over the slices that hold heat (over all where none does).

    Returns
    -------
    plotly.graph_objects.Figure
        Four slices a row, from bottom to top, anterior up, patient's right on the right.

    Raises
    ------
    ValueError
        If the heatmap is on another grid, or `n_slices` is below 1.
    """
    _check_grid(image, heatmap)
    if n_slices < 1:
        raise ValueError(f"n_slices: got {n_slices}, wanted 1 or more")
    top = float(np.max(heatmap.data))
    warm = np.flatnonzero(heatmap.data.max(axis=(0, 1)) > 0.1 * top) if top > 0 else np.arange(image.shape[2])
    slices = np.unique(np.linspace(warm[0], warm[-1], n_slices).round().astype(int))
    columns = min(4, len(slices))
    rows = math.ceil(len(slices) / columns)
    heights = [image.to_mm(np.array([[0.0, 0.0, k]]))[0, 2] for k in slices]
    titles = [f"z = {height:.0f} mm" for height in heights]
    figure = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.01, vertical_spacing=0.06)
    low, high = _window(image.data)
    for n, k in enumerate(slices):
        place = {"row": n // columns + 1, "col": n % columns + 1}
        grid = {"x": np.arange(image.shape[0]) * image.spacing[0], "y": np.arange(image.shape[1]) * image.spacing[1]}
        grey = go.Heatmap(z=image.data[:, :, k].T, colorscale="gray", zmin=low, zmax=high, showscale=False, **grid)
        figure.add_trace(grey.update(hoverinfo="skip"), **place)
        if top > 0:
            heat = heatmap.data[:, :, k].T
            bar = {"title": "lesions<br>per voxel", "thickness": 12} if n == 0 else None
            over = go.Heatmap(z=heat, colorscale=_clear_heat(), zmin=0, zmax=top, **grid)
            figure.add_trace(over.update(showscale=n == 0, colorbar=bar), **place)
        figure.update_xaxes(visible=False, constrain="domain", **place)
        figure.update_yaxes(visible=False, scaleanchor="x" if n == 0 else f"x{n + 1}", **place)
    return _styled(figure).update_layout(height=80 + 260 * rows)


def reliability_figure(curves: Mapping[str, tuple[Reliability, SmoothReliability]], *, note: str = "") -> go.Figure:
    """Draw predicted probability against the share of true lesions (paper, figure 2a).

    Parameters
    ----------
    curves
        Name -> binned and smooth reliability, such as alpha before and after the fit.
    note
        Said beside the name of the horizontal axis.

    Returns
    -------
    plotly.graph_objects.Figure
        Bins as points with confidence intervals, sized by their counts; smooth curves with their bands; the diagonal.
    """
    figure = go.Figure()
    diagonal = go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": INK, "dash": "dash"})
    figure.add_trace(diagonal)
    for colour, (name, (bins, smooth)) in zip(_LINES, curves.items(), strict=False):
        x = np.concatenate([smooth.grid, smooth.grid[::-1]])
        y = np.concatenate([smooth.high, smooth.low[::-1]])
        known = np.isfinite(y)
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        band = go.Scatter(x=x[known], y=y[known], fill="toself", fillcolor=f"rgba({red},{green},{blue},0.15)")
        figure.add_trace(band.update(mode="none", hoverinfo="skip", showlegend=False, legendgroup=name))
        line = go.Scatter(x=smooth.grid, y=smooth.accuracy, mode="lines", line={"color": colour, "width": 2})
        figure.add_trace(line.update(name=f"{name}, smooth", showlegend=False, legendgroup=name))
        filled = bins.count > 0
        error = {
            "type": "data",
            "symmetric": False,
            "array": (bins.high - bins.accuracy)[filled],
            "arrayminus": (bins.accuracy - bins.low)[filled],
            "color": colour,
            "thickness": 1,
        }
        size = 6 + 14 * np.sqrt(bins.count[filled] / max(bins.count.max(), 1))
        points = go.Scatter(x=bins.confidence[filled], y=bins.accuracy[filled], error_y=error, mode="markers")
        points.update(marker={"color": colour, "size": size}, customdata=bins.count[filled], legendgroup=name)
        hover = "predicted %{x:.2f}<br>true %{y:.2f}<br>%{customdata} candidates<extra></extra>"
        figure.add_trace(points.update(name=f"{name}: ECE {bins.ece:.3f}", hovertemplate=hover))
    axis = "predicted existence probability" + (f" ({note})" if note else "")
    figure.update_xaxes(title=axis, range=[-0.02, 1.02])
    figure.update_yaxes(title="share of true lesions", range=[-0.02, 1.02])
    return _styled(figure)


def retention_figure(curves: Mapping[str, RetentionCurve]) -> go.Figure:
    """Draw the accuracy of the least uncertain fraction of the detections (paper, figure 2b).

    Parameters
    ----------
    curves
        Name -> accuracy over the fraction that is kept.

    Returns
    -------
    plotly.graph_objects.Figure
        One line a curve, with the area under it.
    """
    figure = go.Figure()
    for colour, (name, curve) in zip(_LINES, curves.items(), strict=False):
        line = go.Scatter(x=curve.fraction, y=curve.accuracy, mode="lines", line={"color": colour, "width": 2.5})
        figure.add_trace(line.update(name=f"{name}: area {curve.area:.3f}"))
    figure.update_xaxes(title="fraction of the detections kept, the least uncertain first", range=[0, 1.02])
    figure.update_yaxes(title="share of right detections", range=[None, 1.02])
    return _styled(figure)


def rates_figure(rows: Sequence[tuple[str, str, float, float, float]], *, title: str) -> go.Figure:
    """Draw rates beside the paper's, as a dot for each.

    Parameters
    ----------
    rows
        What (a line of the plot), which rate, ours (mean, percent), its standard deviation, the paper's value.
    title
        Of the horizontal axis.

    Returns
    -------
    plotly.graph_objects.Figure
        A colour for each rate: a filled dot with its standard deviation for ours, an open diamond for the paper's.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(what for what, *_ in rows))
    kinds = list(dict.fromkeys(rate for _, rate, *_ in rows))
    for n, (colour, rate) in enumerate(zip(_LINES, kinds, strict=False)):
        mine = [row for row in rows if row[1] == rate]
        shift = 0.16 * (n - (len(kinds) - 1) / 2)
        y = [names.index(what) + shift for what, *_ in mine]
        error = {"type": "data", "array": [sd for *_, sd, _ in mine], "color": colour, "thickness": 1}
        ours = go.Scatter(x=[m for _, _, m, _, _ in mine], y=y, error_x=error, mode="markers", name=rate)
        figure.add_trace(ours.update(marker={"color": colour, "size": 9}, legendgroup=rate))
        marker = {"color": colour, "size": 9, "symbol": "diamond-open"}
        theirs = go.Scatter(x=[p for *_, p in mine], y=y, mode="markers", marker=marker, legendgroup=rate)
        figure.add_trace(theirs.update(name=f"{rate}, paper"))
    figure.update_xaxes(title=title)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    layout = {"height": 170 + 46 * len(names), "margin": {"l": 190, "t": 62}}
    return _styled(figure).update_layout(**layout, legend={"y": 1.0, "yanchor": "bottom"})


def froc_figure(curves: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Draw sensitivity against false positives a patient.

    Parameters
    ----------
    curves
        Name -> table as :func:`lesionkit.metrics.froc` returns it.

    Returns
    -------
    plotly.graph_objects.Figure
        One step line a curve; hovering shows the threshold.
    """
    figure = go.Figure()
    for colour, (name, table) in zip(_LINES, curves.items(), strict=False):
        line = go.Scatter(x=table["fp_per_patient"], y=table["sensitivity"], mode="lines", line={"color": colour})
        hover = "threshold %{customdata:.3f}<br>%{x:.2f} false positives<br>sensitivity %{y:.3f}<extra></extra>"
        figure.add_trace(line.update(customdata=table["threshold"], name=name, hovertemplate=hover, line_shape="hv"))
    figure.update_xaxes(title="false positives a patient", rangemode="tozero")
    figure.update_yaxes(title="sensitivity", range=[0, 1.02])
    return _styled(figure)


def count_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the expected number of lesions of each patient, with its interval, against the true one.

    Parameters
    ----------
    table
        As :func:`lesionkit.metrics.lesion_counts` returns it.

    Returns
    -------
    plotly.graph_objects.Figure
        One point a patient; intervals that miss the truth are in another colour.
    """
    figure = go.Figure()
    top = float(max(table["true"].max(), table["high"].max(), 1)) if len(table) else 1.0
    line = {"color": INK, "dash": "dash"}
    figure.add_trace(go.Scatter(x=[0, top], y=[0, top], mode="lines", line=line, name="perfect"))
    for inside, name in ((True, "interval holds the truth"), (False, "interval misses it")):
        rows = table[table["covered"] == inside]
        colour = STATUS_COLOURS["TP" if inside else "FP"]
        error = {
            "type": "data",
            "symmetric": False,
            "array": rows["high"] - rows["expected"],
            "arrayminus": rows["expected"] - rows["low"],
            "thickness": 1,
        }
        points = go.Scatter(x=rows["true"], y=rows["expected"], error_y=error, mode="markers", name=name)
        figure.add_trace(points.update(marker={"color": colour, "size": 8}, text=rows["subject"]))
    figure.update_xaxes(title="true number of lesions")
    figure.update_yaxes(title="expected number (sum of alpha)")
    return _styled(figure)


def risk_figure(table: pd.DataFrame, *, target: float, title: str) -> go.Figure:
    """Draw the risk over many splits, with what was promised.

    Parameters
    ----------
    table
        As :func:`lesionkit.conformal.check_risk` returns it.
    target
        Largest expected risk that was asked for.
    title
        What the risk is.

    Returns
    -------
    plotly.graph_objects.Figure
        A histogram; the mean and the target as lines.
    """
    figure = go.Figure(go.Histogram(x=table["risk"], marker={"color": _LINES[0]}, nbinsx=40, name="splits"))
    for x, text, colour in ((target, f"promised {target:g}", INK), (table["risk"].mean(), "mean", _LINES[1])):
        note = {"text": text, "font": {"color": colour}}
        figure.add_vline(x=x, line={"color": colour, "dash": "dash", "width": 2}, annotation=note)
    figure.update_xaxes(title=title)
    figure.update_yaxes(title="splits")
    return _styled(figure)


def _clear_heat() -> list[tuple[float, str]]:
    """Heat colours that are clear at 0 and cover most of the image from a quarter of the maximum on."""
    scale = []
    for n, colour in enumerate(HEAT_COLOURS):
        level = n / (len(HEAT_COLOURS) - 1)
        red, green, blue = (int(colour[p : p + 2], 16) for p in (1, 3, 5))
        scale.append((level, f"rgba({red},{green},{blue},{min(0.85, 3.4 * level):.2f})"))
    return scale


def _styled(figure: go.Figure) -> go.Figure:
    axis = {"color": INK, "gridcolor": "rgba(138,148,163,0.25)", "zeroline": False, "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        margin={"l": 56, "r": 16, "t": 32, "b": 48},
        legend={"orientation": "h", "y": 1.08, "x": 0},
    )
    return figure


def _window(data: Real[np.ndarray, "i j k"]) -> tuple[float, float]:
    """Grey window of an MRI: from 0 or the lowest value to the 99.7th percentile of what is not background."""
    foreground = data[data > data.min()]
    low, high = (float(data.min()), float(np.percentile(foreground, 99.7))) if foreground.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _check_grid(image: Volume, heatmap: Volume | None) -> None:
    if heatmap is not None and not image.same_grid(heatmap):
        raise ValueError(f"heatmap: got another grid {heatmap.shape} than that of the image, {image.shape}")


def _voxel_in(image: Volume, heatmap: Volume | None, at_mm: Sequence[float] | None) -> Int[np.ndarray, " axes"]:
    if at_mm is None:
        if heatmap is None:
            return np.asarray(image.shape) // 2
        return np.array(np.unravel_index(int(np.argmax(heatmap.data)), image.shape))
    voxel: Int[np.ndarray, " axes"] = np.rint(
        image.to_voxel(np.asarray(at_mm, dtype=np.float64).reshape(1, 3))[0]
    ).astype(int)
    if not ((voxel >= 0) & (voxel < image.shape)).all():
        raise ValueError(f"at_mm: got {list(at_mm)}, wanted a point inside the image")
    return voxel
