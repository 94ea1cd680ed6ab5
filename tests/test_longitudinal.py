"""Two visits: what is new is found, in mm, whatever the voxels; what was there or went away is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesionkit import FitConfig, detect, gaussian_heatmap, match_points
from lesionkit.cli import main
from lesionkit.io import read_points, read_volume, write_points, write_volume
from lesionkit.longitudinal import LongitudinalConfig, new_lesion_heatmap, read_two_visits, sigma_per_axis
from lesionkit.volume import Volume

AFFINE = np.diag([0.9, 0.9, 3.0, 1.0])
SHAPE = (96, 110, 36)
OLD, NEW, GONE = [-20.0, 10, 5], [[20.0, -5, 10], [5.0, 30, -10]], [-10.0, -25, 0]


def _visit(rng: np.random.Generator, lesions: list[list[float]], affine: np.ndarray = AFFINE) -> Volume:
    """A brain of two tissues and noise with round lesions of 3 mm sigma, on anisotropic voxels."""
    image = Volume(np.zeros(SHAPE, np.float32), affine.copy())
    centre = image.to_mm([(np.array(SHAPE) - 1) / 2])[0]
    world = image.to_mm(np.indices(SHAPE).reshape(3, -1).T) - centre
    radius = np.sqrt(((world / [40, 46, 50]) ** 2).sum(axis=1))
    data = np.where(radius < 0.85, 120.0, 100.0) + rng.normal(0, 3, len(world))
    for place in lesions:
        data += 60 * np.exp(-0.5 * ((world - place) ** 2).sum(axis=1) / 3.0**2)
    return image.with_data(np.where(radius < 1, data, 0).reshape(SHAPE).astype(np.float32))


def _centre() -> np.ndarray:
    return Volume(np.zeros(SHAPE), AFFINE).to_mm([(np.array(SHAPE) - 1) / 2])[0]


def test_new_lesions_alone_are_found_on_anisotropic_voxels(rng: np.random.Generator):
    result = read_two_visits(_visit(rng, [OLD, GONE]), _visit(rng, [OLD, *NEW]))
    found = result.lesions()
    matching = match_points(found[["x", "y", "z"]].to_numpy(), np.array(NEW) + _centre(), max_distance=2.0)
    assert (matching.precision, matching.recall) == (1, 1)
    assert result.detections.sigma == pytest.approx((2 / 0.9, 2 / 0.9, 2 / 3))
    assert result.heatmap.same_grid(result.source)


def test_the_first_visit_may_lie_on_another_grid(rng: np.random.Generator):
    turned = np.diag([-0.9, 0.9, 3.0, 1.0])
    turned[0, 3] = 0.9 * (SHAPE[0] - 1)
    result = read_two_visits(_visit(rng, [OLD], turned), _visit(rng, [OLD, *NEW]))
    assert len(result.lesions()) == 2


def test_nothing_new_is_nothing(rng: np.random.Generator):
    assert len(read_two_visits(_visit(rng, [OLD]), _visit(rng, [OLD])).lesions()) == 0


def test_sigma_in_mm_finds_close_lesions_on_anisotropic_voxels():
    """Rendered, detected and matched in mm: 0.72 x 0.72 x 3 mm, one sigma an axis."""
    image = Volume(np.zeros((60, 60, 20), np.float32), np.diag([0.72, 0.72, 3.0, 1.0]))
    sigma = sigma_per_axis(image, 2.0)
    truth = np.array([[10.0, 12, 15], [16, 12, 15], [30, 30, 36], [30, 30, 45]])
    heatmap = gaussian_heatmap(image.to_voxel(truth), image.shape, sigma)
    found = detect(heatmap, FitConfig(sigma=sigma))
    matching = match_points(image.to_mm(found.mu), truth, max_distance=1.0)
    assert len(found.mu) == len(truth) == len(matching.pairs)
    assert found.alpha == pytest.approx(1, abs=0.05)


def test_the_command_writes_map_table_and_page(tmp_path: Path, rng: np.random.Generator, capsys):
    for name, lesions in (("first", [OLD]), ("second", [OLD, *NEW])):
        write_volume(tmp_path / f"{name}.nii.gz", _visit(rng, lesions))
    write_points(tmp_path / "truth.tsv", pd.DataFrame(np.array(NEW) + _centre(), columns=["x", "y", "z"]))
    visits = [str(tmp_path / "first.nii.gz"), str(tmp_path / "second.nii.gz")]
    assert main(["longitudinal", *visits, "-o", str(tmp_path / "out"), "--truth", str(tmp_path / "truth.tsv")]) == 0
    assert len(read_points(tmp_path / "out" / "second_new_lesions.tsv")) == 2
    assert read_volume(tmp_path / "out" / "second_new_heatmap.nii.gz").shape == SHAPE
    assert (tmp_path / "out" / "second_new_report.html").is_file()
    assert "1.000" in capsys.readouterr().out


def test_visits_of_two_places_are_refused(tmp_path: Path, rng: np.random.Generator, capsys):
    far = AFFINE.copy()
    far[0, 3] = 300
    write_volume(tmp_path / "first.nii.gz", _visit(rng, [OLD], far))
    write_volume(tmp_path / "second.nii.gz", _visit(rng, [OLD]))
    visits = [str(tmp_path / "first.nii.gz"), str(tmp_path / "second.nii.gz")]
    assert main(["longitudinal", *visits, "-o", str(tmp_path / "out")]) == 2
    assert "first.nii.gz: the first visit covers 0% of the brain" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_input_is_refused(rng: np.random.Generator):
    image = _visit(rng, [])
    with pytest.raises(ValueError, match="is constant"):
        new_lesion_heatmap(image.with_data(np.ones(SHAPE, np.float32)), image)
    for name, value in (("sigma_mm", 0.0), ("certain", -1.0), ("rim_mm", float("nan")), ("brightness", float("inf"))):
        with pytest.raises(ValueError, match=name):
            LongitudinalConfig(**{name: value})
