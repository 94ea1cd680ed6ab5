"""On from a shipped network, and a sigma in mm on anisotropic voxels: real runs, small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lesionkit import detect
from lesionkit.augment import AugmentConfig
from lesionkit.checkpoints import load_checkpoint
from lesionkit.cli import main
from lesionkit.detection import fit_config
from lesionkit.io import (
    Cohort,
    case_layout,
    read_cohort,
    read_points,
    read_volume,
    write_cohort_description,
    write_participants,
    write_points,
    write_volume,
)
from lesionkit.samples import sample
from lesionkit.training import PatchDataset, TrainConfig, finetuning_config, load_case, train
from lesionkit.volume import Volume

STILL = AugmentConfig(rotation=0, shear=0, scale=(1, 1), flip=(False, False, False), intensity=0)


def _write(folder: Path, patients: dict[str, tuple[Volume, np.ndarray]]) -> Cohort:
    """Write patients by split, each an image and points in voxels."""
    for split, (image, points) in patients.items():
        layout = case_layout(folder, f"sub-{split}", ("FLAIR",), split=split)
        assert layout.points is not None
        write_volume(layout.images[0], image)
        write_points(layout.points, pd.DataFrame(image.to_mm(points), columns=["x", "y", "z"]))
    splits = pd.DataFrame({"participant_id": [f"sub-{name}" for name in patients], "split": list(patients)})
    write_participants(folder, splits)
    write_cohort_description(folder, "flair", ("FLAIR",))
    return read_cohort(folder)


def _part(first: tuple[int, int, int], edge: int = 56) -> tuple[Volume, np.ndarray]:
    """A cube of the sample case with the lesions in it."""
    _, case = sample("flair")
    assert case.points is not None
    whole = read_volume(case.images[0])
    points = whole.to_voxel(read_points(case.points)[["x", "y", "z"]].to_numpy(dtype=float)) - first
    affine = whole.affine.copy()
    affine[:3, 3] = whole.to_mm(np.array([first]))[0]
    box = tuple(slice(start, start + edge) for start in first)
    return Volume(whole.data[box].copy(), affine), points[((points > 0) & (points < edge - 1)).all(axis=1)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Two patients that are the two halves of a brain."""
    folder = tmp_path_factory.mktemp("parts") / "cohort"
    return _write(folder, {"train": _part((16, 60, 60)), "validation": _part((72, 60, 60))})


@pytest.fixture(scope="module")
def thick(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Bright lesions, round in mm, on voxels of 0.9 x 0.9 x 3 mm."""
    rng = np.random.default_rng(3)
    patients = {}
    for split in ("train", "validation"):
        image = Volume(rng.normal(100, 2, (44, 44, 16)).astype(np.float32), np.diag([0.9, 0.9, 3.0, 1.0]))
        image.data[:, :, :2] = 0
        image.data[:, :2] = 0
        points = np.array([[14.0, 14, 6], [30, 16, 10], [20, 32, 8]])
        places, centres = image.to_mm(np.indices(image.shape).reshape(3, -1).T), image.to_mm(points)
        bright = sum(np.exp(-0.5 * ((places - centre) ** 2).sum(axis=1) / 2.0**2) for centre in centres)
        data = np.where(image.data == 0, 0, image.data + 80 * np.reshape(bright, image.shape))
        patients[split] = (image.with_data(data.astype(np.float32)), points)
    return _write(tmp_path_factory.mktemp("thick") / "cohort", patients)


def test_training_goes_on_from_the_shipped_network(parts: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    assert main(["train", str(parts.folder), "--from", "flair", "--steps", "2", "-o", str(run)]) == 0
    shipped, tuned = load_checkpoint("flair"), load_checkpoint(run / "model.safetensors")
    for name in ("kind", "channels", "spacing", "label", "sigma", "window"):
        assert getattr(tuned.card, name) == getattr(shipped.card, name), name
    assert tuned.card.scale == pytest.approx(shipped.card.scale)
    assert tuned.model.config == shipped.model.config
    assert tuned.card.training["config"]["learning_rate"] == 3e-4
    assert tuned.card.training["cohort"]["train"] == 1
    before = shipped.model.state_dict()
    after = torch.load(run / "working" / "last.ckpt", weights_only=True)["state_dict"]
    moved = [float((after[f"model.{name}"] - w).norm() / w.norm()) for name, w in before.items() if w.norm() > 0.1]
    assert 0 < max(moved) < 0.1  # trained, and from there: weights drawn anew would differ by more than their length
    assert f"validation f1 {tuned.card.training['validation']['f1']:.3f}" in capsys.readouterr().out


def test_what_starts_a_training_is_kept_if_nothing_better_comes_of_it(parts: Cohort, tmp_path: Path):
    start = load_checkpoint("flair")
    weights = start.model.state_dict()
    config = finetuning_config(start, parts, replace(TrainConfig.preset("cpu"), steps=2, workers=0))
    ruinous = replace(config, learning_rate=5.0)
    kept = load_checkpoint(train(parts, tmp_path, ruinous, progress=False, weights=weights, keep_start=True))
    assert kept.card.training["step"] == 0
    assert all(torch.equal(weight, kept.model.state_dict()[name]) for name, weight in weights.items())
    ruined = pd.read_csv(tmp_path / "history.csv")["val_f1"].iloc[-1]
    assert ruined < 0.5 < kept.card.training["validation"]["f1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "gad"], "has channels FLAIR; checkpoint gad wants ce-gad_T1w, T1w: import the images again"),
        (["--from", "flair"], "has voxels of 0.9 x 0.9 x 3 mm; checkpoint flair wants 1 x 1 x 1 mm: import the images"),
        (["--from", "flair", "--sigma-mm", "2"], "--sigma-mm: --from takes it from its checkpoint"),
        (["--from", "flair", "--positive-weight", "2"], "--positive-weight goes with the label segmentation, got heat"),
        (["--label", "segmentation", "--sigma", "2"], "--sigma goes with the label heatmap, got segmentation"),
        (["--radius", "4"], "--radius goes with the label euclidean or geodesic, got heatmap"),
        (["--label", "euclidean", "--contrast", "4"], "--contrast goes with the label geodesic, got euclidean"),
        (["--from", "flair", "--label", "euclidean"], "label is 'euclidean'; flair was trained on 'heatmap'"),
        (["--sigma-mm", "0"], "sigma_mm is 0.0; a positive number (mm) is wanted"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], message: str, thick: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", str(thick.folder), *arguments, "-o", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_sigma_in_mm_is_one_sigma_an_axis_in_card_labels_and_lesions(thick: Cohort, tmp_path: Path):
    run, image = tmp_path / "run", str(thick[1].images[0])
    assert main(["train", str(thick.folder), "--sigma-mm", "1.8", "--steps", "1", "-o", str(run)]) == 0
    card = load_checkpoint(run / "model.safetensors").card
    assert card.sigma == pytest.approx((2.0, 2.0, 0.6))
    assert card.scale == pytest.approx((2 * np.pi) ** -1.5 / (2.0 * 2.0 * 0.6))
    assert card.spacing == pytest.approx((0.9, 0.9, 3.0))
    config = TrainConfig(sigma=card.sigma, patch=(40, 40, 16), augment=STILL, lesion_share=1.0)
    case = load_case(thick[0])
    for _, label, _, _ in (PatchDataset([case], config, start=0, length=3)[n] for n in range(3)):
        found = detect(label[0].numpy() * np.float32(card.scale), fit_config(card.sigma))
        assert len(found.mu)
        assert found.alpha == pytest.approx(1, abs=0.05)
        between = [np.linalg.norm((a - b) * card.spacing) for a in found.mu for b in found.mu]
        known = [np.linalg.norm((a - b) * card.spacing) for a in case.points for b in case.points]
        assert all(min(abs(np.array(known) - distance)) < 0.2 for distance in between)  # mm
    arguments = ["detect", image, "-c", str(run / "model.safetensors"), "--threshold", "0", "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "sigma 2 x 2 x 0.6 voxels" in (tmp_path / "out" / "sub-validation_FLAIR_report.html").read_text(
        encoding="utf-8"
    )
