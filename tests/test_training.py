"""From a simulated cohort to a trained checkpoint and its scores: the whole chain, small."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lesionkit.augment import AugmentConfig
from lesionkit.baseline import log_candidates
from lesionkit.checkpoints import Card, load_checkpoint, save_checkpoint
from lesionkit.evaluation import METHODS, evaluate_cohort
from lesionkit.inference import fast_bf16, predict
from lesionkit.io import DataError, read_cohort, read_points, read_volume
from lesionkit.metrics import score_points
from lesionkit.model import ModelConfig, UNet
from lesionkit.pipeline import detect_lesions, write_result
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import HeatmapRegressor, PatchDataset, TrainConfig, load_case, train
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
    model=ModelConfig(levels=2, filters=8, dropout=0.0),
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


def test_a_stopped_run_resumes_to_the_same_weights(cohort, tmp_path, monkeypatch):
    config = replace(TINY, steps=8, validate_every=4)
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


def test_non_finite_loss_stops_the_training_and_names_the_case(cohort, tmp_path, monkeypatch):
    sick = cohort.split("train")[2].subject

    def poisoned(case, config):
        loaded = load_training_case(case, config)
        return replace(loaded, image=loaded.image * torch.inf) if case.subject == sick else loaded

    monkeypatch.setattr("lesionkit.training.data.load_training_case", poisoned)
    config = replace(TINY, batch_size=8)
    with pytest.raises(FloatingPointError, match=rf"the loss is nan at step \d, on {sick}; look at") as stopped:
        train(cohort, tmp_path, config, progress=False)
    assert str(stopped.value).count("sub-") == 1


@pytest.mark.parametrize("name", ["cpu", "gad", "flair", "paper"])
def test_presets_are_valid(name):
    assert TrainConfig.preset(name).steps > 0


def test_wrong_training_settings_are_named():
    with pytest.raises(ValueError, match="sigma must be positive"):
        TrainConfig(sigma=0)
    with pytest.raises(ValueError, match="lesion_share"):
        TrainConfig(lesion_share=1.5)
    with pytest.raises(ValueError, match="label must be one of heatmap, euclidean"):
        TrainConfig(label="blob")
    with pytest.raises(ValueError, match="placement must be one of mass, voxel"):
        TrainConfig(placement="edge")
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


def test_bf16_is_a_plain_answer():
    assert fast_bf16() in (True, False)


def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path):
    model = UNet(ModelConfig(channels=1, levels=1, filters=2))
    starts = set()
    for n in range(0, 260, 8):  # the length is a multiple of 8: one of these begins with 0x80
        card = Card(kind="x" * (1 + n), channels=("FLAIR",), spacing=(1.0, 1.0, 1.0), sigma=1.0, threshold=0.5)
        save_checkpoint(tmp_path / "m.safetensors", model, card)
        starts.add((tmp_path / "m.safetensors").read_bytes()[0])
        assert load_checkpoint(tmp_path / "m.safetensors").card.kind == card.kind
    assert 0x80 in starts
