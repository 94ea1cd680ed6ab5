"""Simulated cases: exact truth, seeds, sizes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lesionkit import points_from_mask
from lesionkit.io import DataError, read_points, read_volume, write_volume
from lesionkit.simulate import CHANNELS, SimulationConfig, draw_splits, simulate_case, simulate_cohort
from lesionkit.simulate.anatomy import draw_anatomy, smooth_noise
from lesionkit.simulate.lesions import COUNT_QUANTILES, draw_count, draw_lesions
from lesionkit.simulate.statistics import lesion_table, nearest_mm, quantile_table
from lesionkit.simulate.template import load_template
from lesionkit.volume import Volume

QUICK = {kind: SimulationConfig(kind=kind, spacing=3.0, lesions=(5.0, 0.3)) for kind in CHANNELS}


@pytest.mark.parametrize("kind", CHANNELS)
def test_truth_is_exact(kind, rng):
    case = simulate_case(QUICK[kind], rng=rng)
    found = points_from_mask(case.labels.data)
    assert len(case.lesions) >= 1
    assert case.points == pytest.approx(found.points)
    assert case.lesions["size_vox"].tolist() == found.sizes.tolist()
    assert case.lesions["size_vox"].min() >= 3
    assert case.labels.to_mm(case.points) == pytest.approx(case.lesions[["x", "y", "z"]].to_numpy())
    assert len(case.images) == len(CHANNELS[kind])
    brain = case.images[0].data > 0
    assert brain[case.labels.data > 0].all()
    assert 0.2 < brain.mean() < 0.7
    assert case.brain.data[brain].all()
    assert 1.1 < case.brain.data.sum() * case.brain.voxel_mm3 / 1e6 < 1.8  # litres


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_same_seed_gives_the_same_case(kind):
    one, two, other = (simulate_case(QUICK[kind], rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all((a.data == b.data).all() for a, b in zip(one.images, two.images, strict=True))
    assert one.lesions.equals(two.lesions)
    assert not one.images[0].same_grid(other.images[0]) or (one.images[0].data != other.images[0].data).any()


@pytest.mark.parametrize("kind", CHANNELS)
def test_lesions_are_brighter_than_what_surrounds_them(kind):
    config = SimulationConfig(kind=kind, spacing=3.0, lesions=(8.0, 0.1), contrast=(25, 30), noise=(0.03, 0.03))
    case = simulate_case(config, rng=np.random.default_rng(3))
    image = case.images[0].data.astype(float)
    if kind == "gad":  # enhancement is what changes between the two images, each in its own units
        pre = case.images[1].data.astype(float)
        image = image / np.median(image[image > 0]) - pre / np.median(pre[pre > 0])
    lesion = case.labels.data > 0
    assert np.median(image[lesion]) > np.percentile(image[(case.images[0].data > 0) & ~lesion], 90)


def test_a_head_is_around_the_brain_if_wanted():
    case = simulate_case(replace(QUICK["flair"], heads=1.0), rng=np.random.default_rng(4))
    image, brain = case.images[0].data, case.brain.data > 0
    level = np.median(image[brain])
    outside = image[~brain]
    assert (outside > 0.8 * level).sum() * case.brain.voxel_mm3 > 2e5  # scalp and face
    assert (outside < 0.4 * level).mean() > 0.5  # skull and air
    assert brain[case.labels.data > 0].all()


@pytest.mark.parametrize("thick_voxels", [True, False])
def test_thick_slices_have_the_truth_of_what_they_show(thick_voxels):
    config = replace(QUICK["flair"], lesions=(20.0, 0.1), heads=1.0, thick=1.0, thickness=(6.0, 6.0))
    config = replace(config, spacing=2.0, thick_voxels=thick_voxels)
    case = simulate_case(config, rng=np.random.default_rng(6))
    image, labels = case.images[0], case.labels
    assert image.same_grid(labels)
    assert image.same_grid(case.brain)
    assert len(case.lesions) >= 3
    assert case.points == pytest.approx(points_from_mask(labels.data).points)
    assert labels.to_mm(case.points) == pytest.approx(case.lesions[["x", "y", "z"]].to_numpy())
    assert sorted(image.spacing) == pytest.approx([2, 2, 6 if thick_voxels else 2])
    away = ndimage.distance_transform_edt(labels.data == 0, sampling=image.spacing)
    near = image.data[(away > 2) & (away < 8) & (case.brain.data > 0)]
    assert np.median(image.data[labels.data > 0]) > np.percentile(near, 75)


def test_a_healthy_cohort_has_no_lesions(tmp_path):
    config = replace(SimulationConfig.preset("flair"), spacing=4.0, lesions=(0.0, 0.0), heads=1.0)
    case = simulate_cohort(config, 1, tmp_path / "c", seed=3)[0]
    assert len(read_points(case.points)) == 0
    assert not read_volume(case.mask).data.any()
    brain = read_volume(case.images[0].with_name("sub-001_desc-brain_mask.nii.gz"))
    assert brain.same_grid(read_volume(case.images[0]))


def test_a_t1_is_taken_apart_into_its_tissues(tmp_path, rng):
    """A T1 with a head, bias field and noise, of which the tissues are known; a lesion becomes white matter."""
    truth = load_template("colin27")
    field = 1 + 0.1 * smooth_noise(truth.wm.shape, 70, rng)
    t1 = field * (truth.wm + 0.7 * truth.gm + 0.25 * truth.csf + truth.head)
    t1 += 0.02 * rng.standard_normal(t1.shape, dtype=np.float32)
    lesion = np.zeros(t1.shape, np.uint8)
    at = np.unravel_index(np.argmax(np.where(truth.wm > 0.99, truth.ventricle_mm, 0)), t1.shape)
    lesion[tuple(slice(i - 2, i + 3) for i in at)] = 1
    t1[lesion > 0] = 0.7
    files = {"t1": 500 * t1, "brain": truth.brain.astype(np.uint8), "lesion": lesion}
    for name, data in files.items():
        write_volume(tmp_path / f"{name}.nii", Volume(data.astype(np.float32), np.eye(4)))
    paths = [str(tmp_path / f"{name}.nii") for name in files]
    found = load_template(",".join(paths))
    for name in ("wm", "gm", "csf"):
        ours, theirs = (getattr(template, name) > 0.5 for template in (found, truth))
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.85, name
    assert found.wm[lesion > 0].mean() > 0.9
    assert np.median(found.head[truth.head > 1]) == pytest.approx(np.median(truth.head[truth.head > 1]), rel=0.15)
    with pytest.raises(DataError, match=r"t1\.nii: is not stripped"):
        load_template(paths[0])


def test_anatomies_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(DataError, match="a head"):
        load_template("a,b,c,d, of a head")
    with pytest.raises(DataError, match=r"nothing\.nii"):
        load_template(str(tmp_path / "nothing.nii"))
    write_volume(tmp_path / "ball.nii.gz", Volume(np.pad(np.ones((20, 20, 20), np.float32), 10), np.eye(4)))
    with pytest.raises(DataError, match=r"ball\.nii\.gz: brain of 0\.01 litres"):
        load_template(str(tmp_path / "ball.nii.gz"))


def test_sizes_follow_the_real_distribution():
    config = SimulationConfig(spacing=2.0, lesions=(15.0, 0.1), confluent=0.0)
    rng = np.random.default_rng(5)
    sizes = np.concatenate([simulate_case(config, rng=rng).lesions["size_vox"] for _ in range(6)])
    assert len(sizes) > 50
    assert 12 < np.median(sizes) < 35  # real lesions of 3 voxels and more: 21
    assert 0.15 < np.mean(sizes <= 10) < 0.45  # real: 0.28


def test_flair_lesions_lie_as_close_as_real_ones_and_most_find_a_place(monkeypatch):
    config, rng = SimulationConfig.preset("flair"), np.random.default_rng(11)
    frames, drawn = [], []
    monkeypatch.setattr(
        "lesionkit.simulate.lesions.draw_count", lambda *args: drawn.append(draw_count(*args)) or drawn[-1]
    )
    for subject in range(10):  # without the images, which take most of the time
        template = load_template(config.anatomies[subject % len(config.anatomies)])
        anatomy = draw_anatomy(template, config.spacing, rng)
        found = points_from_mask(draw_lesions(anatomy, config, rng)[0], min_size=config.min_size)
        frames.append(pd.DataFrame({"size_vox": found.sizes, "nn_mm": nearest_mm(found.points), "subject": subject}))
    table = quantile_table(pd.concat(frames), quantiles=(0.25, 0.5, 0.75))
    for column, real in (("size_vox", (9, 21, 55)), ("nn_mm", (6.1, 8.6, 12.4))):  # of 1791 lesions of 20 patients
        np.testing.assert_allclose(table[column], real, rtol=0.25)
    assert 0.87 < sum(map(len, frames)) / sum(drawn) < 1  # 7 % more are drawn than real patients have


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "t2"}, "kind must be"),
        ({"spacing": 0.1}, "spacing must be"),
        ({"min_size": 0}, "min_size"),
        ({"gap": 0}, "gap must be"),
        ({"reach": (9.0, 6.0)}, "reach must be a range"),
        ({"contrast": (5, 1)}, "contrast must be"),
        ({"noise": (0, 1)}, "noise must be"),
        ({"anatomies": ()}, "anatomies must name"),
        ({"heads": 2.0}, "heads must be a share"),
        ({"thick": 1.0, "thickness": (1.0, 3.0)}, "thickness must be at least spacing"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SimulationConfig(**settings)


def test_counts_of_real_patients(rng):
    config = SimulationConfig(lesions=None)
    drawn = np.array([draw_count(config, rng) for _ in range(2000)])
    wanted = np.interp((0.25, 0.5, 0.75), *np.array(COUNT_QUANTILES).T)
    assert np.quantile(drawn, (0.25, 0.5, 0.75)) == pytest.approx(wanted, rel=0.1)
    assert drawn.min() >= 19
    assert drawn.max() <= 366


def test_splits_are_by_patient_and_60_20_20(rng):
    splits = draw_splits(100, rng=rng)
    assert {name: splits.count(name) for name in set(splits)} == {"train": 60, "validation": 20, "test": 20}
    assert sorted(draw_splits(3, rng=rng)) == ["test", "train", "validation"]
    assert draw_splits(1, rng=rng) == ["train"]


def test_cohort_on_disk_is_what_was_simulated_and_can_be_resumed(tmp_path):
    config = QUICK["gad"]
    cohort = simulate_cohort(config, 4, tmp_path / "c", seed=7)
    assert [case.subject for case in cohort] == ["sub-001", "sub-002", "sub-003", "sub-004"]
    assert cohort.channels == CHANNELS["gad"]
    case = simulate_case(config, rng=np.random.default_rng([7, 1]))
    assert (read_volume(cohort[1].images[0]).data == case.images[0].data).all()
    assert (read_volume(cohort[1].mask).data == case.labels.data).all()
    assert read_points(cohort[1].points)[["x", "y", "z"]].to_numpy() == pytest.approx(
        case.lesions[["x", "y", "z"]].to_numpy(), abs=1e-3
    )

    untouched = cohort[0].images[0].stat().st_mtime_ns
    cohort[1].points.unlink()  # as if it had been killed in the middle of this case
    again = simulate_cohort(config, 4, tmp_path / "c", seed=7)
    assert again[1].points.is_file()
    assert again[0].images[0].stat().st_mtime_ns == untouched


def _stopped_after(n_cases, folder, config=QUICK["gad"], n=4, seed=7):
    """Begin a cohort and stop, as by Ctrl-C, after this many cases."""

    def stop(done):
        if done == n_cases:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(config, n, folder, seed=seed, progress=stop)


@pytest.mark.parametrize(
    ("config", "n", "seed", "difference"),
    [
        (QUICK["gad"], 4, 8, "seed 7, not 8"),
        (QUICK["gad"], 6, 7, "n 4, not 6"),
        (QUICK["gad"], 3, 7, "n 4, not 3"),
        (replace(QUICK["gad"], noise=(0.1, 0.2)), 4, 7, r"noise \[0.02, 0.045\], not \[0.1, 0.2\]"),
        (QUICK["flair"], 4, 7, "kind gad, not flair"),
    ],
)
def test_a_stopped_cohort_goes_on_as_it_began_or_not_at_all(tmp_path, config, n, seed, difference):
    _stopped_after(1, tmp_path / "c")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*")}
    with pytest.raises(ValueError, match=rf"c: holds another cohort \({difference}\)"):
        simulate_cohort(config, n, tmp_path / "c", seed=seed)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*")} == before


def test_cases_without_a_description_are_not_gone_on_with(tmp_path):
    """As an interrupted simulation left them before the description was written first."""
    _stopped_after(1, tmp_path / "c")
    (tmp_path / "c" / "dataset_description.json").unlink()
    with pytest.raises(ValueError, match=r"c: holds cases, but no dataset_description\.json"):
        simulate_cohort(QUICK["gad"], 4, tmp_path / "c", seed=7)


def test_what_was_stopped_before_its_first_case_may_become_another_cohort(tmp_path):
    simulate_cohort(QUICK["gad"], 2, tmp_path / "c", seed=7)
    for part in ("derivatives", "sub-001", "sub-002"):
        shutil.rmtree(tmp_path / "c" / part)
    assert simulate_cohort(QUICK["flair"], 1, tmp_path / "c", seed=8).extra["seed"] == 8


def test_images_mask_and_points_are_the_same_in_a_cohort_of_any_size(tmp_path):
    small, large = (simulate_cohort(QUICK["gad"], n, tmp_path / str(n), seed=7) for n in (1, 3))
    ours, theirs = ((*case.images, case.mask, case.points) for case in (small[0], large[0]))
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_statistics_of_a_cohort_come_from_its_tables_alone(tmp_path):
    cohort = simulate_cohort(QUICK["gad"], 3, tmp_path / "c", seed=2)
    for case in cohort:  # neither images nor masks are looked at
        for path in (*case.images, case.mask):
            path.write_bytes(b"")
    table = lesion_table(cohort)
    assert len(table) == sum(len(read_points(case.points)) for case in cohort)
    assert {"subject", "split", "x", "y", "z", "size_vox", "nn_mm"} <= set(table.columns)
    one = table[table["subject"] == "sub-001"]
    points = one[["x", "y", "z"]].to_numpy()
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    assert one["nn_mm"].to_numpy() == pytest.approx(distances.min(axis=1))
    quantiles = quantile_table(table)
    assert quantiles.loc[0.5, "size_vox"] == table["size_vox"].median()
    assert quantiles.loc[0.5, "lesions"] == table.groupby("subject").size().median()
    assert np.isnan(nearest_mm(np.zeros((1, 3)))).all()
