"""Figures: what is drawn is what was given."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

from lesionkit.calibration import Outcomes, reliability, smooth_reliability
from lesionkit.figures import (
    STATUS_COLOURS,
    alpha_figure,
    count_figure,
    froc_figure,
    heatmap_figure,
    precision_recall_figure,
    rates_figure,
    reliability_figure,
    resolution_figure,
    retention_figure,
    risk_figure,
    training_figure,
    volume_figure,
)
from lesionkit.uncertainty import retention
from lesionkit.volume import Volume

AFFINE = np.array([[2.0, 0, 0, -10], [0, 1, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def image() -> Volume:
    """Make an image whose voxels are all different."""
    return Volume(np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8), AFFINE)


def heatmap() -> Volume:
    """One peak, and another slice with some heat."""
    heat = np.zeros((6, 7, 8), np.float32)
    heat[3, 2, 5] = 0.06
    heat[1, 1, 1] = 0.02
    return Volume(heat, AFFINE)


def table() -> pd.DataFrame:
    """Three operating points."""
    rates = {"precision": [1.0, 0.8, 0.5], "recall": [0.2, 0.7, 0.9], "f1": [0.33, 0.75, 0.64]}
    return pd.DataFrame({"threshold": [0.9, 0.5, 0.1]} | rates)


def test_alpha_bars_carry_values_status_and_threshold() -> None:
    figure = alpha_figure(np.array([0.9, 0.6, 0.2]), threshold=0.5, status=["TP", "FP", "FP"])
    (bars,) = figure.data
    np.testing.assert_allclose(bars.y, [0.9, 0.6, 0.2])
    assert list(bars.marker.color) == [STATUS_COLOURS["TP"], STATUS_COLOURS["FP"], STATUS_COLOURS["FP"]]
    assert bars.marker.opacity[0] == bars.marker.opacity[1] > bars.marker.opacity[2]
    assert figure.layout.shapes[0].y0 == 0.5


@pytest.mark.parametrize("alpha", [np.empty(0), np.array([1.7])])
def test_alpha_bars_of_nothing_and_above_one(alpha: np.ndarray) -> None:
    figure = alpha_figure(alpha, threshold=0.5)
    assert figure.layout.yaxis.range[1] >= max(1, alpha.max(initial=0))


def test_alpha_bars_refuse_words_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="2 words for 1 candidates"):
        alpha_figure(np.array([0.5]), threshold=0.5, status=["TP", "FP"])
    with pytest.raises(ValueError, match="maybe"):
        alpha_figure(np.array([0.5]), threshold=0.5, status=["maybe"])


def test_precision_recall_marks_the_operating_point_in_use() -> None:
    figure = precision_recall_figure(table(), chosen=0.4, name="test")
    traces = {trace.name: trace for trace in figure.data}
    np.testing.assert_allclose(traces["test"].x, table()["recall"])
    point = traces["threshold 0.40, F1 0.75"]
    assert (point.x, point.y) == ((0.7,), (0.8,))
    assert figure.layout.shapes[0].x0 == 0.4


def test_precision_recall_without_a_choice_marks_nothing() -> None:
    assert len(precision_recall_figure(table()).data) == 4
    assert len(precision_recall_figure(table(), chosen=2.0).data) == 4


def test_a_training_is_drawn_as_losses_score_and_film_strip() -> None:
    history = pd.DataFrame({"step": [10, 20, 30], "loss": [1.2, np.nan, 0.6], "F1 on validation": [0.0, 0.4, 0.7]})
    figure = training_figure(history)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["loss"].x) == [10, 30]
    assert list(traces["F1 on validation"].y) == [0.0, 0.4, 0.7]
    assert [shape.y0 for shape in figure.layout.shapes] == [1.0]  # what predicting nothing costs
    stream = io.BytesIO()
    Image.new("RGB", (6, 2), "red").save(stream, format="png")
    *curves, picture = training_figure(history, strip=stream.getvalue()).data
    assert len(curves) == 2
    assert base64.b64decode(picture.source.partition(",")[2]) == stream.getvalue()
    with pytest.raises(ValueError, match="'step'"):
        training_figure(history.drop(columns="step"))


def test_three_planes_show_the_slices_through_the_point_in_mm() -> None:
    volume = image()
    figure = volume_figure(volume, at_mm=volume.to_mm(np.array([[2, 4, 6]]))[0])
    axial, coronal, sagittal = (trace for trace in figure.data if isinstance(trace, go.Heatmap))
    np.testing.assert_array_equal(axial.z, volume.data[:, :, 6].T)
    np.testing.assert_array_equal(coronal.z, volume.data[:, 4, :].T)
    np.testing.assert_array_equal(sagittal.z, volume.data[2].T)
    np.testing.assert_allclose(axial.x, -10 + 2 * np.arange(6))
    np.testing.assert_allclose(axial.y, -20 + np.arange(7))
    np.testing.assert_allclose(sagittal.y, 5 + 3 * np.arange(8))


def test_planes_go_through_the_maximum_and_draw_near_points_only() -> None:
    points = image().to_mm(np.array([[3, 2, 5], [3, 2, 0]]))
    figure = volume_figure(image(), heatmap(), points_mm=points)
    assert figure.layout.annotations[0].text == "axial, z = 20.0 mm"
    axial, coronal, _ = (trace for trace in figure.data if isinstance(trace, go.Scatter))
    assert len(axial.x) == 1
    assert len(coronal.x) == 2
    np.testing.assert_allclose([axial.x[0], axial.y[0]], points[0, :2])


def test_planes_without_heat_or_contrast_are_drawn() -> None:
    flat = image().with_data(np.zeros((6, 7, 8), np.float32))
    assert len(volume_figure(flat, flat).data) == 6
    assert len(volume_figure(flat).data) == 6


def test_the_film_strip_covers_the_slices_with_heat() -> None:
    figure = heatmap_figure(image(), heatmap(), n_slices=3)
    assert [note.text for note in figure.layout.annotations] == ["z = 8 mm", "z = 14 mm", "z = 20 mm"]
    flat = image().with_data(np.zeros((6, 7, 8), np.float32))
    assert len(heatmap_figure(image(), flat, n_slices=5).data) == 5


def test_images_that_do_not_fit_are_refused() -> None:
    other = Volume(np.zeros((6, 7, 8)), np.eye(4))
    with pytest.raises(ValueError, match="another grid"):
        volume_figure(image(), other)
    with pytest.raises(ValueError, match="another grid"):
        heatmap_figure(image(), other)
    with pytest.raises(ValueError, match="at_mm"):
        volume_figure(image(), at_mm=(900, 0, 0))
    with pytest.raises(ValueError, match="n_slices"):
        heatmap_figure(image(), heatmap(), n_slices=0)


def test_resolution_has_a_line_for_each_loop_and_ratio() -> None:
    rows = [
        {"mode": mode, "ratio": ratio, "separation": apart, "resolved": 0.5, "error_over_bound": 1.1, "alpha_bias": 0.0}
        for mode in ("joint", "paper")
        for ratio in (1.0, 0.5)
        for apart in (1.0, 2.0, 4.0)
    ]
    rows[-1] |= {"resolved": 0.0, "error_over_bound": np.nan, "alpha_bias": np.nan}
    figure = resolution_figure(pd.DataFrame(rows))
    assert len(figure.data) == 3 * 4
    assert len({line.name for line in figure.data}) == 4
    assert list(figure.data[0].x) == [1.0, 2.0, 4.0]
    assert sum(bool(line.showlegend) for line in figure.data) == 4


def test_reliability_shows_every_bin_that_holds_a_candidate(rng: np.random.Generator) -> None:
    p = rng.random(300) * 0.75
    found = Outcomes(probability=p, hit=rng.random(300) < p, patient=np.arange(300) // 3)
    bins = reliability(found)
    figure = reliability_figure({"alpha": (bins, smooth_reliability(found, rng=rng))})
    points = next(trace for trace in figure.data if trace.name and trace.name.startswith("alpha: ECE"))
    np.testing.assert_allclose(points.y, bins.accuracy[bins.count > 0])
    assert sum(points.customdata) == 300
    assert f"{bins.ece:.3f}" in points.name


def test_retention_shows_the_area_of_each_curve() -> None:
    curve = retention(np.array([0.1, 0.2, 0.3]), np.array([True, True, False]))
    (line,) = retention_figure({"entropy": curve}).data
    assert list(line.y) == curve.accuracy.tolist()
    assert line.name == f"entropy: area {curve.area:.3f}"


def test_rates_stand_beside_the_papers() -> None:
    rows = [
        ("heatmap", "f1", 80.0, 1.0, 86.3),
        ("heatmap", "recall", 70.0, np.nan, 85.7),
        ("map", "f1", 60.0, 2.0, 80.6),
    ]
    figure = rates_figure(rows, title="percent")
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"f1", "f1, paper", "recall", "recall, paper"}
    assert list(traces["f1"].x) == [80.0, 60.0]
    assert list(traces["f1, paper"].x) == [86.3, 80.6]
    assert list(figure.layout.yaxis.ticktext) == ["heatmap", "map"]


def test_froc_counts_and_risk_draw_what_was_given() -> None:
    curve = pd.DataFrame({"threshold": [np.inf, 0.5], "fp_per_patient": [0.0, 2.0], "sensitivity": [0.0, 0.8]})
    (line,) = froc_figure({"fit": curve}).data
    assert (list(line.x), list(line.y)) == ([0.0, 2.0], [0.0, 0.8])
    columns = {"subject": ["a", "b"], "true": [1, 4], "expected": [1.5, 2.0], "low": [0, 1], "high": [2, 3]}
    counts = count_figure(pd.DataFrame(columns | {"covered": [True, False]}))
    traces = {trace.name: trace for trace in counts.data}
    assert list(traces["interval misses it"].y) == [2.0]
    assert list(traces["interval holds the truth"].error_y.array) == [0.5]
    risk = risk_figure(pd.DataFrame({"risk": [0.1, 0.3]}), target=0.25, title="missed")
    assert [shape.x0 for shape in risk.layout.shapes] == [0.25, 0.2]
