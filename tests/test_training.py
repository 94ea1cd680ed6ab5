"""From a simulated cohort to a trained checkpoint and its scores: the whole chain, small."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lesionkit.augment import AugmentConfig
from lesionkit.baseline import log_candidates
from lesionkit.checkpoints import Card, load_checkpoint, load_state, read_card, save_checkpoint
from lesionkit.cli import main
from lesionkit.evaluation import METHODS, evaluate_cohort, score_in_masks
from lesionkit.inference import fast_bf16, predict
from lesionkit.io import DataError, case_layout, read_cohort, read_points, read_volume, write_volume
from lesionkit.metrics import CasePoints, score_points
from lesionkit.model import ModelConfig, UNet
from lesionkit.pipeline import detect_lesions, write_result
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import HeatmapRegressor, PatchDataset, TrainConfig, load_case, run, train
from lesionkit.training.data import load_training_case
from lesionkit.training.decoding import TAUS
from lesionkit.volume import Volume

EASY = SimulationConfig(
    kind="gad",
    spacing=4.0,
    min_size=8,
    lesions=(8.0, 0.2),
    contrast=(25, 30),
    lookalikes=0.0,
    clustered=0.0,
    confluent=0.0,
)
TINY = TrainConfig(
    model=ModelConfig(levels=2, filters=8, dropout=0.05),
    patch=(16, 16, 16),
    window=24,
    batch_size=4,
    steps=200,
    validate_every=100,
    learning_rate=5e-3,
    lesion_share=0.8,
    workers=0,
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(EASY, 10, tmp_path_factory.mktemp("cohort"), seed=1)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    return train(cohort, tmp_path_factory.mktemp("run"), TINY, progress=False)


def test_a_short_training_finds_easy_lesions(cohort, trained):
    network = load_checkpoint(trained)
    assert network.card.channels == ("ce-gad_T1w", "T1w")
    assert network.card.sigma == TINY.sigma
    assert network.card.spacing == pytest.approx((4, 4, 4))
    assert network.card.training["config"]["steps"] == 200
    assert "interquartile range" in network.card.preprocessing
    found = evaluate_cohort(network, cohort, split="test", max_distance=12)
    assert set(found) == set(METHODS)
    scores = {
        name: score_points(cases, threshold, max_distance=12).pooled for name, (cases, threshold) in found.items()
    }
    assert scores["fit"].f1 > 0.6
    assert scores["cc"].f1 > 0.5
    assert (trained.parent / "history.csv").read_text().count("\n") == 3


@pytest.mark.parametrize("steps", [1, 10])  # where the rise of the learning rate is a step or less
def test_the_shortest_trainings_end_as_well(steps, cohort, tmp_path):
    config = replace(TINY, steps=steps, validation_cases=1, threshold_cases=1)
    assert load_checkpoint(train(cohort, tmp_path, config, progress=False)).card.training["config"]["steps"] == steps


@pytest.mark.parametrize("label", ["segmentation", "euclidean", "geodesic"])
def test_every_other_label_trains_too(label, cohort, tmp_path):
    config = replace(TINY, label=label, radius=3.5, decay=2.0, steps=100, validate_every=100)
    network = load_checkpoint(train(cohort, tmp_path, config, progress=False))
    card = network.card
    assert card.label == label
    assert card.scale == 1
    assert network.model.config.activation == ("sigmoid" if label == "segmentation" else "exp")
    assert card.threshold in TAUS
    assert card.training["validation"]["f1"] > 0.4
    case = load_case(cohort.split("test")[0], with_mask=True)
    output = predict(network, [read_volume(path) for path in cohort.split("test")[0].images]).data
    lesion = case.lesions.numpy()
    assert output[lesion].mean() > 5 * output[~lesion & case.mask].mean()
    if label == "segmentation":  # a label for all that follows: scores, and files for one case
        found = evaluate_cohort(network, cohort, split="test", max_distance=12)
        assert set(found) == {"cc", "log"}
        assert found["cc"][1] == card.threshold
        assert score_points(*found["cc"], max_distance=12).pooled.f1 > 0.4
        result = detect_lesions(network, [read_volume(path) for path in cohort.split("test")[0].images])
        assert result.lesions()["size_vox"].min() >= 3
        files = write_result(result, tmp_path / "found", "case")
        assert "connected components" in files["report.html"].read_text(encoding="utf-8")
        assert len(read_points(files["lesions.tsv"])) == len(result.lesions()) > 0


@pytest.mark.parametrize("label", ["euclidean", "geodesic", "segmentation"])
def test_labels_of_patches_lie_on_the_lesions(label, cohort):
    config = replace(TINY, label=label, lesion_share=1.0, augment=AugmentConfig(intensity=0))
    cases = [load_training_case(case, config) for case in cohort.split("train")]
    dataset = PatchDataset(cases, config, start=0, length=12)
    masks = PatchDataset(
        [load_training_case(case, replace(config, label="segmentation")) for case in cohort.split("train")],
        replace(config, label="segmentation"), start=0, length=12,
    )  # fmt: skip
    inside, outside = [], []
    for i in range(12):
        heat, lesion = dataset[i][1], masks[i][1] > 0
        assert float(heat.min()) >= 0
        assert float(heat.max()) <= 1
        inside.append(float(heat[lesion].mean()))
        outside.append(float(heat[~lesion].mean()))
    assert np.nanmean(inside) > 5 * np.nanmean(outside)


def test_clicks_are_placed_for_training_alone_and_once(cohort):
    entry = cohort.split("train")[0]
    exact, again = load_case(entry), load_training_case(entry, TINY)
    assert (exact.points == again.points).all()
    moved, same = (load_training_case(entry, replace(TINY, jitter_mm=3.0)) for _ in range(2))
    assert (moved.points == same.points).all()
    assert (moved.points_mm == exact.points_mm).all()
    assert 0 < np.abs(moved.points - exact.points).max() < 5
    inside = load_training_case(entry, replace(TINY, placement="voxel"))
    mask = load_case(entry, with_mask=True).lesions.numpy()
    assert mask[tuple(inside.points.astype(int).T)].all()
    assert inside.lesions is None


def test_points_come_from_the_mask_where_there_is_no_table(cohort):
    entry = cohort[0]
    table, mask = load_case(entry), load_case(replace(entry, points=None))
    assert mask.points == pytest.approx(table.points, abs=1e-2)
    assert mask.sizes.tolist() == table.sizes.tolist()
    with pytest.raises(DataError, match="no table of points and no lesion mask"):
        load_case(replace(entry, points=None, mask=None))
    with pytest.raises(DataError, match="has no lesion mask"):
        load_case(replace(entry, mask=None), with_mask=True)


def test_loss_of_a_segmentation_is_the_weighted_cross_entropy_over_the_brain():
    module = HeatmapRegressor(replace(TINY, label="segmentation"))
    logged = {}
    module.log_dict = lambda values, **_: logged.update(values)
    module.model.values = lambda image: torch.full_like(image[:, :1], 4.0)  # with the bias of -4: probability 1/2
    image, label = torch.ones(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
    label[..., 0] = 1
    mask = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    mask[..., 3] = False
    loss = float(module.training_step((image, label, mask, torch.zeros(1)), 0))
    assert loss == pytest.approx(np.log(2) * (3 * 16 + 32))
    share = 48 / 80  # of lesion voxels, each counted three times
    assert float(logged["loss_of_nothing"]) == pytest.approx(-(48 * np.log(share) + 32 * np.log(1 - share)))


def test_training_is_repeatable(cohort, tmp_path):
    config = replace(TINY, steps=6, validate_every=3)
    one, two = (load_checkpoint(train(cohort, tmp_path / name, config, progress=False)) for name in "ab")
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_stopped_run_resumes_to_the_same_weights(average, cohort, tmp_path, monkeypatch):
    config = replace(TINY, steps=8, validate_every=4, average=average)
    train(cohort, tmp_path / "whole", config, progress=False)
    draw = PatchDataset.__getitem__

    def stop_at_step_6(self, index):
        if self.start + index >= 6 * config.batch_size:
            raise RuntimeError("power cut")
        return draw(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(PatchDataset, "__getitem__", stop_at_step_6)
        with pytest.raises(RuntimeError, match="power cut"):
            train(cohort, tmp_path / "parts", config, progress=False)
    train(cohort, tmp_path / "parts", config, resume=True, progress=False)
    whole, parts = (
        torch.load(tmp_path / name / "working" / "last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    assert whole["global_step"] == parts["global_step"] == 8
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, parts["state_dict"][name]), name
    assert (tmp_path / "parts" / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()


def test_the_average_of_the_weights_is_what_is_kept(cohort, tmp_path):
    config = replace(TINY, steps=4, validate_every=2, average=0.9)
    kept = load_checkpoint(train(cohort, tmp_path, config, progress=False)).model.state_dict()
    last = torch.load(tmp_path / "working" / "last.ckpt", weights_only=True)
    name = "head.weight"
    average, current = last["state_dict"][f"model.{name}"], last["current_model_state"][f"model.{name}"]
    assert not torch.allclose(average, current, atol=1e-4)
    best = torch.load(tmp_path / "working" / "best.ckpt", weights_only=True)["state_dict"][f"model.{name}"]
    assert any(torch.allclose(kept[name], weight, atol=1e-3) for weight in (average, best))


def test_data_sets_have_their_shares(cohort):
    cases = [load_case(case) for case in cohort.split("train")]
    cases = [replace(case, dataset="a" if n == 0 else "b") for n, case in enumerate(cases)]
    config = replace(TINY, shares=(("a", 3.0), ("b", 1.0)))
    numbers = [PatchDataset(cases, config, start=0, length=200)[n][3] for n in range(200)]
    assert np.mean(np.array(numbers) == 0) == pytest.approx(0.75, abs=0.1)
    equal = PatchDataset(cases, TINY, start=0, length=200)
    assert np.mean([equal[n][3] == 0 for n in range(200)]) == pytest.approx(0.5, abs=0.1)  # where nothing is said
    for shares in ((("a", 1.0),), (("a", 1.0), ("b", 1.0), ("c", 1.0))):
        with pytest.raises(ValueError, match="shares must name the cohort's data sets"):
            PatchDataset(cases, replace(TINY, shares=shares), start=0, length=1)


def test_the_last_patches_lie_anywhere(cohort, monkeypatch):
    cases = [load_case(case) for case in cohort.split("train")]
    config = replace(TINY, steps=10, lesion_share=1.0, uniform_last=0.5)
    dataset = PatchDataset(cases, config, start=0, length=config.steps * config.batch_size)
    drawn = []
    monkeypatch.setattr(dataset, "_brain_voxel", lambda number, rng: drawn.append(0) or np.array([10, 10, 10]))
    for n in range(len(dataset)):
        dataset[n]
        assert len(drawn) == max(n + 1 - 5 * config.batch_size, 0)


def test_confluent_lesions_are_left_out_of_points_and_loss(tmp_path):
    image = np.zeros((32, 32, 32), np.float32)
    image[2:30, 2:30, 2:30] = 100 + np.random.default_rng(0).standard_normal((28, 28, 28))
    lesions = np.zeros(image.shape, np.uint8)
    lesions[6:14, 6:14, 6:14] = 1  # 512 mm3
    lesions[22:24, 22:24, 22:24] = 1
    paths = case_layout(tmp_path, "sub-01", ("FLAIR",), split="train")
    write_volume(paths.images[0], Volume(image, np.eye(4)))
    write_volume(paths.mask, Volume(lesions, np.eye(4)))
    case = replace(paths, points=None, brain=None)
    config = replace(
        TINY, confluent_mm3=100.0, patch=(32, 32, 32), lesion_share=0.0, augment=AugmentConfig(intensity=0.0)
    )
    loaded = load_training_case(case, config)
    assert loaded.points == pytest.approx(np.array([[22.5] * 3]))
    assert loaded.ignored is not None
    assert loaded.ignored[6:14, 6:14, 6:14].all()
    assert not loaded.ignored[18:].any()
    _, _, counts, _ = PatchDataset([loaded], config, start=0, length=1)[0]
    plain = replace(loaded, ignored=None)
    _, _, all_of_it, _ = PatchDataset([plain], config, start=0, length=1)[0]
    assert 0 < (all_of_it & ~counts).sum() <= loaded.ignored.sum() * 1.5
    assert load_training_case(case, replace(config, confluent_mm3=1000.0)).ignored is None


def test_a_training_is_resumed_with_the_same_settings_and_patients_only(cohort, tmp_path):
    config = replace(TINY, steps=4, validate_every=2, validation_cases=1, threshold_cases=1)
    path = train(cohort, tmp_path / "run", config, progress=False)
    before, when = path.read_bytes(), path.stat().st_mtime_ns
    assert train(cohort, tmp_path / "run", replace(config, workers=1), resume=True, progress=False) == path
    others = {
        "label ": replace(config, label="euclidean"),
        "sigma (1.25 there, 1.5 here)": replace(config, sigma=1.5),
        "steps (4 there, 8 here)": replace(config, steps=8),
        "seed (0 there, 1 here)": replace(config, seed=1),
        "model.filters (8 there, 4 here)": replace(config, model=replace(config.model, filters=4)),
        "augment.scale ([0.9, 1.1] there, [1.0, 1.0] here)": replace(config, augment=AugmentConfig(scale=(1.0, 1.0))),
    }
    for told, other in others.items():
        with pytest.raises(DataError, match="run: holds a training that differs in") as refused:
            train(cohort, tmp_path / "run", other, resume=True, progress=False)
        assert told in str(refused.value)
    fewer = replace(cohort, cases=tuple(case for case in cohort if case != cohort.split("train")[0]))
    with pytest.raises(DataError, match=r"differs in cohort \(\d+ patients with \d+ lesions"):
        train(fewer, tmp_path / "run", config, resume=True, progress=False)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, when)


@pytest.mark.parametrize("patience", [0, 1])
def test_a_finished_training_that_was_killed_before_its_last_file_gives_it(patience, cohort, tmp_path):
    config = replace(TINY, validate_every=2, validation_cases=1, threshold_cases=1, patience=patience)
    config = replace(config, steps=20, learning_rate=1e-9) if patience else replace(config, steps=4)
    path = train(cohort, tmp_path, config, progress=False)
    before, history = load_checkpoint(path), (tmp_path / "history.csv").read_bytes()
    assert history.count(b"\n") == 3
    for left in (path, tmp_path / "history.csv"):
        left.unlink()
    again = load_checkpoint(train(cohort, tmp_path, config, resume=True, progress=False))
    assert again.card == before.card
    for a, b in zip(again.model.parameters(), before.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "history.csv").read_bytes() == history


def test_resume_begins_where_there_is_nothing_and_a_new_training_leaves_nothing_to_resume(cohort, tmp_path, capsys):
    class Stop(pl.Callback):
        def on_train_batch_start(self, *_):
            raise RuntimeError("power cut")

    config = replace(TINY, steps=2, validation_cases=1, threshold_cases=1)
    path = train(cohort, tmp_path, config, resume=True, progress=False)
    assert capsys.readouterr().out.count(f"{tmp_path}: has no checkpoint to go on from, so the training begins") == 1
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="power cut"):
        train(cohort, tmp_path, replace(config, seed=1), progress=False, watchers=[Stop()])
    assert path.read_bytes() == before
    assert not list((tmp_path / "working").iterdir())


def test_losses_are_logged_and_shown_between_validations(cohort, tmp_path, capsys):
    config = replace(TINY, steps=40, validate_every=20, validation_cases=1, threshold_cases=1)
    train(cohort, tmp_path, config)
    rows = pd.read_csv(tmp_path / "log" / "version_0" / "metrics.csv")
    assert rows["step"][rows["batch_loss"].notna()].tolist() == [9, 19, 29, 39]
    assert rows["loss"].notna().sum() == rows["val_f1"].notna().sum() == 2
    shown = capsys.readouterr().out
    assert f"training: 100 %  batch_loss {rows['batch_loss'].dropna().iloc[-1]:.3f}  val_f1 " in shown
    assert "Epoch" not in shown
    assert "v_num" not in shown


def test_samples_depend_on_seed_and_index_alone(cohort):
    cases = [load_case(case) for case in cohort.split("train")]
    early, late = (PatchDataset(cases, TINY, start=start, length=8) for start in (0, 5))
    for a, b in zip(early[6][:3], late[1][:3], strict=True):
        assert torch.equal(a, b)
    assert early[6][3] == late[1][3]
    other = PatchDataset(cases, replace(TINY, seed=1), start=0, length=8)
    assert not torch.equal(early[0][0], other[0][0])


def test_label_of_a_patch_peaks_near_one_on_a_lesion(cohort):
    cases = [load_case(case) for case in cohort.split("train")]
    dataset = PatchDataset(cases, replace(TINY, lesion_share=1.0), start=0, length=30)
    peaks = [float(dataset[i][1].max()) for i in range(30)]
    assert 0.5 < np.median(peaks) < 1.3


def test_loss_is_the_squared_error_summed_over_the_brain():
    module = HeatmapRegressor(TINY)
    module.log_dict = lambda *_, **__: None
    module.model.forward = lambda image: torch.full_like(image[:, :1], 0.5)
    image, label = torch.ones(2, 1, 4, 4, 4), torch.zeros(2, 1, 4, 4, 4)
    mask = torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool)
    mask[:, :, :2] = True
    assert float(module.training_step((image, label, mask, torch.zeros(2)), 0)) == pytest.approx(0.25 * 32)


def _sick(monkeypatch, subject):
    """Let the image of one case hold infinities, as if its file did."""

    def poisoned(case, config):
        loaded = load_training_case(case, config)
        return replace(loaded, image=loaded.image * torch.inf) if case.subject == subject else loaded

    monkeypatch.setattr("lesionkit.training.data.load_training_case", poisoned)


def test_non_finite_loss_stops_the_training_and_names_the_case(cohort, tmp_path, monkeypatch):
    sick = cohort.split("train")[2].subject
    _sick(monkeypatch, sick)
    config = replace(TINY, batch_size=8)
    with pytest.raises(FloatingPointError, match=rf"the loss is nan at step \d, on {sick}; look at") as stopped:
        train(cohort, tmp_path, config, progress=False)
    assert str(stopped.value).count("sub-") == 1


def test_the_command_says_what_stops_a_training_in_one_line(cohort, tmp_path, capsys, monkeypatch):
    arguments = ["train", str(cohort.folder), "--steps", "1", "-o", str(tmp_path)]
    assert main(arguments) == 0
    last = tmp_path / "working" / "last.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lesionkit: {last}: cannot be read (")
    assert said.count("\n") == 1
    assert last.stat().st_size == len(content) // 2
    assert main([*arguments, "--precision", "16-true"]) == 2
    said = capsys.readouterr().err
    assert said == "lesionkit: precision must be one of 32-true, bf16-mixed, 16-mixed, got '16-true'\n"
    sick = cohort.split("train")[2].subject
    _sick(monkeypatch, sick)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("lesionkit: the loss is nan at step 0, on ")
    assert sick in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["cpu", "gad", "flair", "paper"])
def test_settings_of_a_preset_fit_together(name):
    config = TrainConfig.preset(name)
    with torch.device("meta"):
        output = UNet(config.model)(torch.empty(1, 1, *config.patch))
    assert output.shape == (1, 1, *config.patch)
    multiple = config.model.stem * 2 ** (config.model.levels - 1)
    assert not any(edge % multiple for edge in (*config.patch, config.window))  # no voxel is padded


@pytest.mark.parametrize("name", ["gad", "flair"])
def test_a_preset_is_the_recipe_of_the_shipped_checkpoint(name):
    recipe = json.loads(json.dumps(asdict(TrainConfig.preset(name))))  # lists for tuples
    trained = read_card(name).training["config"]
    recipe["model"]["channels"] = trained["model"]["channels"]  # of the cohort
    for part in ("model", "augment"):  # what was added since had no effect then, as its default
        recipe[part] = {field: recipe[part][field] for field in trained[part]}
    assert {field: recipe[field] for field in trained} == trained


def test_the_paper_preset_is_the_paper_s_configuration():
    """Of 64 slices of 192 x 192; here slices are the last axis."""
    config = TrainConfig.preset("paper")
    assert config.patch == (192, 192, 64)
    assert config.window >= 192  # a case is seen as a whole
    assert (config.label, config.sigma, config.positive_weight) == ("heatmap", 1.0, 3.0)
    assert config.model.widths == (32, 64, 128, 256, 512)
    assert (config.model.activation, config.model.bias) == ("exp", -4.0)
    assert config.model.dropout > 0
    assert (config.augment.rotation, config.augment.shear, config.augment.scale) == (8.0, 8.0, (0.9, 1.1))
    assert config.augment.flip[0]
    assert isinstance(HeatmapRegressor(replace(TINY)).configure_optimizers()["optimizer"], torch.optim.Adam)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_paper_preset_trains_with_fewer_filters_and_smaller_patches(precision, cohort, tmp_path):
    """No smaller: at 2 x 2 voxels in bfloat16 torch 2.13 takes gradients from memory that nobody has written."""
    paper = TrainConfig.preset("paper")
    small = replace(
        paper, model=replace(paper.model, filters=2), patch=(48, 48, 16), window=48, steps=2, validation_cases=1,
        threshold_cases=1,
    )  # fmt: skip
    network = load_checkpoint(train(cohort, tmp_path, small, progress=False, precision=precision))
    assert network.model.config.widths == (2, 4, 8, 16, 32)
    torch.manual_seed(paper.seed)
    start = UNet(network.model.config).state_dict()
    last = load_state(tmp_path / "working" / "last.ckpt")["state_dict"]
    moved = {name.split(".")[0] for name, weight in start.items() if not torch.equal(weight, last[f"model.{name}"])}
    assert moved == {"encoder", "up", "decoder", "head"}
    losses = pd.read_csv(tmp_path / "log" / "version_0" / "metrics.csv")["loss"].dropna()
    assert np.isfinite(losses).all()


def test_wrong_training_settings_are_named():
    with pytest.raises(ValueError, match="sigma must be positive"):
        TrainConfig(sigma=0)
    with pytest.raises(ValueError, match="lesion_share"):
        TrainConfig(lesion_share=1.5)
    with pytest.raises(ValueError, match="label must be one of heatmap, euclidean"):
        TrainConfig(label="blob")
    with pytest.raises(ValueError, match="placement must be one of mass, voxel"):
        TrainConfig(placement="edge")
    with pytest.raises(ValueError, match="average must be"):
        TrainConfig(average=1.0)
    with pytest.raises(ValueError, match="uniform_last must be"):
        TrainConfig(uniform_last=-0.1)
    with pytest.raises(ValueError, match="confluent_mm3 must be positive"):
        TrainConfig(confluent_mm3=0.0)
    with pytest.raises(ValueError, match="shares must be positive"):
        TrainConfig(shares=(("a", 0.0),))
    with pytest.raises(ValueError, match="jitter_mm must not be negative"):
        TrainConfig(jitter_mm=-1.0)
    with pytest.raises(ValueError, match="preset must be"):
        TrainConfig.preset("gpu")


def test_a_cohort_without_lesions_is_refused(tmp_path):
    cohort = simulate_cohort(EASY, 2, tmp_path, seed=3)  # two patients: no validation split
    with pytest.raises(DataError, match="validation split has no lesion"):
        train(cohort, tmp_path / "run", TINY, progress=False)


def test_heatmap_lies_on_the_network_s_grid_and_in_its_units(cohort, trained):
    network = load_checkpoint(trained)
    images = [read_volume(path) for path in cohort[0].images]
    heatmap = predict(network, images)
    assert heatmap.shape == images[0].shape
    assert (heatmap.data[images[0].data == 0] == 0).mean() > 0.99
    with pytest.raises(ValueError, match="wants 2 image"):
        predict(network, images[:1])


def test_an_image_of_another_spacing_is_resampled(cohort, trained):
    network = load_checkpoint(trained)
    images = [read_volume(path) for path in cohort[0].images]
    fine = [Volume(np.repeat(v.data, 2, axis=2), v.affine @ np.diag([1, 1, 0.5, 1])) for v in images]
    assert predict(network, fine).spacing == pytest.approx((4, 4, 4))


def test_checkpoint_survives_the_round_trip(tmp_path):
    torch.manual_seed(0)
    model = UNet(ModelConfig(channels=1, levels=2, filters=4)).eval()
    card = Card(
        kind="flair", channels=("FLAIR",), spacing=(1.0, 1.0, 1.0), sigma=1.5, threshold=0.3, training={"a": [1]}
    )
    save_checkpoint(tmp_path / "m.safetensors", model, card, half=False)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        page = file.metadata()["model_card"]
    assert "Not a medical device" in page
    assert "FLAIR, in this order, at 1 x 1 x 1 mm" in page
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.card == card
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(loaded.model(image), model(image))


def test_checkpoints_that_could_run_code_are_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    for name in ("m.pt", "m.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Harmful()))
        with pytest.raises(DataError, match="is a pickle"):
            load_checkpoint(tmp_path / name)
    torch.save({"weights": torch.zeros(2)}, tmp_path / "t.pt")
    with pytest.raises(DataError, match="is a pickle"):
        load_checkpoint(tmp_path / "t.pt")
    assert not (tmp_path / "harm").exists()


def test_other_safetensors_and_missing_files_are_refused(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="not a checkpoint of lesionkit"):
        load_checkpoint(tmp_path / "other.safetensors")
    header = {"format": "1", "model": json.dumps({"channels": 1, "widgets": 3}), "card": "{}"}
    save_file({"w": torch.zeros(2)}, tmp_path / "wrong.safetensors", metadata=header)
    with pytest.raises(DataError, match="not a checkpoint of lesionkit"):
        load_checkpoint(tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_evaluate_writes_scores_with_intervals_of_patients_too(cohort, trained, tmp_path, capsys):
    arguments = ["evaluate", str(cohort.folder), "-c", str(trained), "--max-distance", "12", "--no-baselines"]
    tables = {}
    for name, options in (("near", []), ("paper", ["--gate", "after"]), ("inside", ["--hits", "mask"])):
        assert main([*arguments, *options, "-o", str(tmp_path / name)]) == 0
        tables[name] = pd.read_csv(tmp_path / name / "scores.tsv", sep="\t", index_col="lesions")
        table, patients = tables[name], pd.read_csv(tmp_path / name / "patients.tsv", sep="\t")
        assert list(patients["subject"]) == [case.subject for case in cohort.split("test")]
        assert patients["tp"].sum() == table.loc["all", "tp"]
        assert table.loc["all", "f1_low"] <= table.loc["all", "f1"] <= table.loc["all", "f1_high"]
    assert capsys.readouterr().out.count("FROC score, Gaussian fit") == 1  # of the first, whose hits it counts
    assert tables["near"].loc["all", "tp"] >= tables["paper"].loc["all", "tp"] >= 1
    assert tables["near"].loc["all", "n_true"] == tables["inside"].loc["all", "n_true"]
    assert main([*arguments, "--hits", "mask", "--gate", "after", "-o", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()


def test_detections_count_by_the_mask_they_fall_into(cohort):
    entries = cohort.split("test")
    cases = []
    for entry in entries:
        table, mask = read_points(entry.points), read_volume(entry.mask)
        inside = mask.to_mm(np.argwhere(mask.data > 0)[:1])  # one voxel of the first lesion
        points = np.concatenate([inside, inside, [[500.0, 0, 0]]])
        cases.append(
            CasePoints(
                predicted=points, score=np.array([0.2, 0.9, 0.8]), true=table[["x", "y", "z"]].to_numpy(dtype=float),
                sizes=table["size_vox"].to_numpy(dtype=float), subject=entry.subject,
            )
        )  # fmt: skip
    pooled = score_in_masks(cases, entries, 0.1).pooled
    lesions = sum(len(case.true) for case in cases)
    assert (pooled.tp, pooled.fp, pooled.fn) == (len(cases), 2 * len(cases), lesions - len(cases))
    assert score_in_masks(cases, entries, 0.85).pooled.fp == 0
    with pytest.raises(DataError, match="has no lesion mask"):
        score_in_masks(cases, [replace(entry, mask=None) for entry in entries], 0.5)


def test_evaluation_refuses_a_cohort_of_other_channels(cohort, trained):
    network = load_checkpoint(trained)
    other = replace(network.card, channels=("FLAIR",))
    with pytest.raises(DataError, match="has channels ce-gad_T1w, T1w"):
        evaluate_cohort(type(network)(network.model, other, "x"), cohort)
    assert read_cohort(cohort.folder).cases == cohort.cases


def test_laplacian_of_gaussian_finds_a_bright_blob():
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))
    blob = np.exp(-0.5 * (((grid - np.array([9, 12, 14])[:, None, None, None]) / 1.5) ** 2).sum(0))
    found = log_candidates(blob[None], np.ones(blob.shape, bool))
    assert found.points[0].tolist() == [9, 12, 14]
    assert (np.diff(found.score) <= 0).all()


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_bf16_is_fast_where_the_processor_has_instructions_for_it(avx512, amx, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert fast_bf16.__wrapped__() == (avx512 or amx)  # not the answer that is remembered


@pytest.mark.parametrize(("patch", "precision"), [(8, "32-true"), (16, "bf16-mixed")])  # 2 and 4 voxels at the bottom
def test_bf16_is_not_taken_for_networks_whose_gradients_it_spoils(patch, precision, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "fast_bf16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = TrainConfig(model=ModelConfig(levels=3, filters=2), patch=(patch, 16, 16))
    trainer = run._trainer(config, tmp_path, [], progress=False, devices=1, num_nodes=1, precision=None)
    assert trainer.precision == precision


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the system does not list what the processor can do")
def test_bf16_is_fast_on_this_processor_if_it_says_so():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert fast_bf16() == ("avx512_bf16" in flags or "amx_tile" in flags)


def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path):
    model = UNet(ModelConfig(channels=1, levels=1, filters=2))
    starts = set()
    for n in range(0, 260, 8):  # the length is a multiple of 8: one of these begins with 0x80
        card = Card(kind="x" * (1 + n), channels=("FLAIR",), spacing=(1.0, 1.0, 1.0), sigma=1.0, threshold=0.5)
        save_checkpoint(tmp_path / "m.safetensors", model, card)
        starts.add((tmp_path / "m.safetensors").read_bytes()[0])
        assert load_checkpoint(tmp_path / "m.safetensors").card.kind == card.kind
    assert 0x80 in starts
