"""From a researcher's folder to a cohort: what is paired, checked, refused, and that nothing is half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesionkit.cli import main
from lesionkit.importing import ImportConfig, NothingImported, import_cohort
from lesionkit.io import DataError, export_points, read_cohort, read_points, read_volume, write_volume
from lesionkit.volume import Volume

AFFINE = np.diag([-2.0, 2.0, 3.0, 1.0])  # LAS, anisotropic
AFFINE[:3, 3] = (30, -20, 5)
SHAPE = (24, 28, 20)


def _brain(rng: np.random.Generator, shape=SHAPE, affine=AFFINE) -> Volume:
    grid = np.indices(shape).reshape(3, -1).T
    inside = (((grid - (np.array(shape) - 1) / 2) / (np.array(shape) * 0.4)) ** 2).sum(axis=1) < 1
    data = np.where(inside, 100 + rng.normal(0, 5, len(grid)), 0).reshape(shape)
    return Volume(data.astype(np.float32), affine)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three patients in folders of their own, points in three formats."""
    source = tmp_path / "clinic data é"
    for number, name in enumerate(("clicks.mrk.json", "FLAIR_points.tsv", "p.csv")):
        image = _brain(rng)
        patient = source / f"P{number:02d}"
        write_volume(patient / "FLAIR.nii.gz", image, native=False)
        centre = image.to_mm([[12.0, 14.0, 10.0], [9.0, 12.0, 8.0]])
        export_points(patient / name, pd.DataFrame(centre, columns=["x", "y", "z"]))
    return source


def _status(report, ending: str) -> list[tuple[str, str]]:
    return [(row.status, row.what) for row in report.rows if row.file.endswith(ending)]


def test_folders_of_patients_become_a_cohort(folder: Path, tmp_path: Path):
    report = import_cohort(folder, tmp_path / "cohort", ImportConfig(kind="flair"))
    cohort = read_cohort(tmp_path / "cohort")
    assert [case.subject for case in cohort] == ["sub-P00", "sub-P01", "sub-P02"]
    assert sorted(case.split for case in cohort) == ["test", "train", "validation"]
    assert cohort.channels == ("FLAIR",)
    assert cohort.kind == "flair"
    assert all(row.status == "imported" for row in report.rows)
    assert len(report.rows) == 6
    table = pd.read_csv(tmp_path / "cohort" / "import_report.tsv", sep="\t")
    assert list(table["file"]) == [row.file for row in report.rows]
    for case in cohort:
        image = read_volume(case.images[0])
        assert image.spacing == pytest.approx((2, 2, 3))  # the median: nothing is resampled
        points = read_points(case.points)[["x", "y", "z"]].to_numpy()
        original = read_volume(folder / case.subject.removeprefix("sub-") / "FLAIR.nii.gz")
        assert np.array_equal(image.data, original.data)
        assert image.to_voxel(points) == pytest.approx(original.to_voxel(points), abs=1e-3)


def test_names_that_start_with_the_patient_pair_too(tmp_path: Path, rng: np.random.Generator):
    source = tmp_path / "flat"
    for name in ("07", "07b"):
        image = _brain(rng)
        write_volume(source / f"{name}_FLAIR.nii.gz", image)
        write_volume(source / f"{name}_brainmask.nii.gz", image.with_data(image.data > 0))
        export_points(source / f"{name}.mrk.json", pd.DataFrame(image.to_mm([[12, 14, 10]]), columns=["x", "y", "z"]))
    report = import_cohort(source, tmp_path / "cohort")
    assert {row.file: row.patient for row in report.rows} == {
        f"{name}{ending}": name
        for name in ("07", "07b")
        for ending in (".mrk.json", "_FLAIR.nii.gz", "_brainmask.nii.gz")
    }
    assert [case.split for case in report.cohort].count("train") == 1
    assert [case.split for case in report.cohort].count("validation") == 1


def test_a_cohort_can_be_imported_again(folder: Path, tmp_path: Path):
    """BIDS in, BIDS out: the same points, the same splits."""
    first = import_cohort(folder, tmp_path / "a").cohort
    second = import_cohort(tmp_path / "a", tmp_path / "b", ImportConfig(channels=("FLAIR",))).cohort
    assert [(case.subject, case.split) for case in second] == [(case.subject, case.split) for case in first]
    for one, other in zip(first, second, strict=True):
        assert read_points(one.points).equals(read_points(other.points))


def test_images_are_resampled_and_points_stay_in_place(folder: Path, tmp_path: Path):
    report = import_cohort(folder, tmp_path / "cohort", ImportConfig(spacing=2.0))
    for case in report.cohort:
        image = read_volume(case.images[0])
        assert image.spacing == pytest.approx((2, 2, 2))
        original = read_volume(folder / case.subject.removeprefix("sub-") / "FLAIR.nii.gz")
        centre = original.to_mm([[12, 14, 10]])
        voxel = tuple(np.rint(image.to_voxel(centre)[0]).astype(int))
        assert image.data[voxel] == pytest.approx(100, abs=20)
    assert all("resampled from 2 x 2 x 3 mm" in what for _, what in _status(report, "FLAIR.nii.gz"))


def test_labels_give_points_sizes_and_a_mask(tmp_path: Path, rng: np.random.Generator):
    image = _brain(rng)
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:12, 12:14, 8:10] = 1
    labels[15:17, 15:17, 11] = 1
    write_volume(tmp_path / "in" / "A" / "T1.nii", image)
    write_volume(tmp_path / "in" / "A" / "lesions.nii.gz", image.with_data(labels))
    report = import_cohort(tmp_path / "in", tmp_path / "out", ImportConfig(spacing=(2, 2, 1.5)))
    case = report.cohort[0]
    assert sorted(read_points(case.points)["size_vox"]) == [8, 16]  # twice as many voxels of half the size
    mask = read_volume(case.mask, np.uint8)
    assert mask.data.sum() * mask.voxel_mm3 == pytest.approx(labels.sum() * image.voxel_mm3, rel=0.35)


def test_channels_on_other_grids_are_brought_onto_the_first(tmp_path: Path, rng: np.random.Generator):
    image = _brain(rng)
    other = _brain(rng, (30, 30, 30), np.array([[2.0, 0, 0, -27], [0, 2, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]]))
    for name, volume in (("ce-gad_T1w", image), ("T1w", other)):
        write_volume(tmp_path / "in" / "sub-1" / "anat" / f"sub-1_{name}.nii.gz", volume)
    export_points(tmp_path / "in" / "sub-1" / "x.fcsv", pd.DataFrame(image.to_mm([[12, 14, 10]]), columns=[*"xyz"]))
    report = import_cohort(tmp_path / "in", tmp_path / "out", ImportConfig(channels=("ce-gad_T1w", "T1w")))
    first, second = (read_volume(path) for path in report.cohort[0].images)
    assert first.same_grid(second)
    assert "resampled onto the grid" in _status(report, "sub-1_T1w.nii.gz")[0][1]


def test_sizes_are_scaled_by_the_voxel_that_they_count(tmp_path: Path, rng: np.random.Generator):
    """A label image of 1 mm on an image of 2 mm: 64 voxels are 8 of the cohort."""
    image = _brain(rng, affine=np.diag([2.0, 2, 2, 1]))
    labels = np.zeros(tuple(2 * n for n in SHAPE), np.uint8)
    labels[20:24, 24:28, 16:20] = 1
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = -0.5
    write_volume(tmp_path / "in" / "A" / "T1.nii", image)
    write_volume(tmp_path / "in" / "A" / "lesions.nii.gz", Volume(labels, affine))
    case = import_cohort(tmp_path / "in", tmp_path / "out").cohort[0]
    assert list(read_points(case.points)["size_vox"]) == [8]
    assert read_volume(case.mask, np.uint8).data.sum() == 8


def _visit(folder: Path, image: str, points: str | None, place: tuple[int, int, int], rng: np.random.Generator) -> None:
    volume = _brain(rng)
    write_volume(folder / image, volume.with_data(volume.data * (1 + place[0] / 100)), native=False)
    if points:
        export_points(folder / points, pd.DataFrame(volume.to_mm([place]), columns=[*"xyz"]))


@pytest.mark.parametrize(
    "form",
    [
        "sub-1/ses-0{}/anat/sub-1_ses-0{}_{}", "sub-1/ses-0{}/anat/sub-1_ses-0{}_run-1_{}",
        "P1/visit{}/visit{}_{}", "P1/2019-02-0{}/P1_2019020{}_{}", "P1/scan{}/scan{}_{}",
    ],
)  # fmt: skip
def test_visits_are_cases_of_one_person(form: str, tmp_path: Path, rng: np.random.Generator):
    source = tmp_path / "in"
    for visit, place in enumerate([(12, 14, 10), (9, 12, 8), (13, 11, 9)], start=1):
        points = None if visit == 3 else form.format(visit, visit, "points.mrk.json")
        _visit(source, form.format(visit, visit, "FLAIR.nii.gz"), points, place, rng)
    for name in "abcd":
        _visit(source, f"{name}/FLAIR.nii.gz", f"{name}/x.csv", (12, 14, 10), rng)
    report = import_cohort(source, tmp_path / "out", ImportConfig(channels=("FLAIR",)))
    table = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t")
    visits = table[table["person"].isin(["P1", "sub-1"])]
    assert len(visits) == 2  # the third has no points
    assert visits["split"].nunique() == 1
    cases = [case for case in report.cohort if case.subject in set(visits["participant_id"])]
    for case, place in zip(cases, [(12, 14, 10), (9, 12, 8)], strict=True):
        image = read_volume(case.images[0])
        assert read_points(case.points)[[*"xyz"]].to_numpy() == pytest.approx(_brain(rng).to_mm([place]), abs=1e-3)
        assert image.data.max() / (1 + place[0] / 100) == pytest.approx(120, abs=15)


def test_points_without_a_visit_are_nobodys_where_there_are_several(tmp_path: Path, rng: np.random.Generator):
    for visit in (1, 2):
        _visit(tmp_path / "in", f"P1/visit{visit}/FLAIR.nii.gz", None, (12, 14, 10), rng)
    _visit(tmp_path / "in", "P2/visit1/FLAIR.nii.gz", "P2/clicks.csv", (12, 14, 10), rng)
    export_points(tmp_path / "in" / "P1" / "clicks.csv", pd.DataFrame({"x": [6.0], "y": [8.0], "z": [35.0]}))
    report = import_cohort(tmp_path / "in", tmp_path / "out")
    assert [case.subject for case in report.cohort] == ["sub-P2"]
    assert "its visit is wanted" in _status(report, "P1/clicks.csv")[0][1]
    assert "taken as of visit1, the only one" in _status(report, "P2/clicks.csv")[0][1]


def test_runs_are_not_chosen_from(tmp_path: Path, rng: np.random.Generator):
    _visit(tmp_path / "in", "sub-1/anat/sub-1_run-1_FLAIR.nii.gz", "sub-1/anat/sub-1_points.tsv", (12, 14, 10), rng)
    _visit(tmp_path / "in", "sub-1/anat/sub-1_run-2_FLAIR.nii.gz", None, (12, 14, 10), rng)
    with pytest.raises(NothingImported, match=r"run-1_FLAIR.nii.gz and .*run-2_FLAIR.nii.gz.*best of runs and acq"):
        import_cohort(tmp_path / "in", tmp_path / "out")


def test_links_are_followed_and_said(folder: Path, tmp_path: Path):
    (folder / "P01" / "FLAIR.nii.gz").rename(tmp_path / "elsewhere.nii.gz")
    (folder / "P01" / "FLAIR.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    report = import_cohort(folder, tmp_path / "cohort")
    assert len(report.cohort) == 3
    assert str(tmp_path / "elsewhere.nii.gz") in _status(report, "P01/FLAIR.nii.gz")[0][1]


def test_the_folders_of_nnunet_are_understood(tmp_path: Path, rng: np.random.Generator):
    for name in ("case_1", "case_2"):
        image = _brain(rng)
        labels = np.zeros(SHAPE, np.uint8)
        labels[11:14, 12:15, 9:11] = 1
        write_volume(tmp_path / "in" / "imagesTr" / f"{name}_0000.nii.gz", image)
        write_volume(tmp_path / "in" / "labelsTr" / f"{name}.nii.gz", image.with_data(labels))
    report = import_cohort(tmp_path / "in", tmp_path / "out")
    assert [(case.subject, len(read_points(case.points))) for case in report.cohort] == [
        ("sub-case1", 1),
        ("sub-case2", 1),
    ]


def test_an_image_of_another_program_gets_a_hint(folder: Path, tmp_path: Path):
    (folder / "P00" / "T1.mgz").write_bytes(b"x")
    report = import_cohort(folder, tmp_path / "cohort")
    assert "this makes one" in _status(report, "T1.mgz")[0][1]


def test_a_given_split_is_kept(folder: Path, tmp_path: Path):
    table = "participant_id\tsplit\nP00\ttest\nP01\ttrain\nP02\ttrain\n"
    (folder / "participants.tsv").write_text(table, encoding="utf-8")
    report = import_cohort(folder, tmp_path / "cohort")
    assert [case.split for case in report.cohort] == ["test", "train", "train"]


def _spoil(folder: Path, how: str, tmp_path: Path) -> None:
    patient = folder / "P01"
    image = read_volume(patient / "FLAIR.nii.gz")
    points = pd.DataFrame(image.to_mm([[12, 14, 10]]), columns=[*"xyz"])
    if how == "outside the image":
        export_points(patient / "FLAIR_points.tsv", points + 500)
    elif how == "outside the brain":
        export_points(patient / "FLAIR_points.tsv", pd.DataFrame(image.to_mm([[0, 0, 0]]), columns=[*"xyz"]))
    elif how == "truncated":
        content = (patient / "FLAIR.nii.gz").read_bytes()
        (patient / "FLAIR.nii.gz").write_bytes(content[: len(content) // 2])
    elif how == "line 3 has 'large' as size_vox":
        points = pd.concat([points, points + 2], ignore_index=True).assign(size_vox=[12, "large"])
        export_points(patient / "FLAIR_points.tsv", points)
    elif how == "several files of points":
        export_points(patient / "more.csv", points)
    elif how == "no points":
        (patient / "FLAIR_points.tsv").unlink()
    elif how == "no image":
        (patient / "FLAIR.nii.gz").unlink()
    elif how == "is constant":
        write_volume(patient / "FLAIR.nii.gz", image.with_data(np.ones_like(image.data)))
    elif how == "at an angle":
        sheared = image.affine.copy()
        sheared[0, 1] = 0.5
        write_volume(patient / "FLAIR.nii.gz", Volume(image.data, sheared))
    elif how == "does not exist":
        (patient / "FLAIR.nii.gz").unlink()
        (patient / "FLAIR.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    elif how == "has no brain":
        far = image.affine.copy()
        far[:3, 3] += 1000
        write_volume(patient / "brainmask.nii.gz", Volume((image.data > 0).astype(np.uint8), far))


@pytest.mark.parametrize(
    "how",
    [
        "outside the image", "outside the brain", "truncated", "several files of points", "no points", "no image",
        "is constant", "at an angle", "does not exist", "has no brain", "line 3 has 'large' as size_vox",
    ],
)  # fmt: skip
def test_a_patient_that_cannot_be_used_is_refused_and_the_others_go_on(folder: Path, tmp_path: Path, how: str):
    _spoil(folder, how, tmp_path)
    report = import_cohort(folder, tmp_path / "cohort")
    assert [case.subject for case in report.cohort] == ["sub-P00", "sub-P02"]
    assert any(how in row.what and row.status == "refused" for row in report.rows)
    assert all(row.status == "refused" for row in report.rows if row.file.startswith("P01/"))
    assert not list((tmp_path / "cohort").rglob("*P01*"))
    assert all("\n" not in row.what for row in report.rows)


def test_a_size_may_be_missing(folder: Path, tmp_path: Path):
    image = read_volume(folder / "P01" / "FLAIR.nii.gz")
    points = pd.DataFrame(image.to_mm([[12, 14, 10], [10, 12, 9]]), columns=[*"xyz"]).assign(size_vox=[12, np.nan])
    export_points(folder / "P01" / "FLAIR_points.tsv", points)
    report = import_cohort(folder, tmp_path / "cohort")
    sizes = read_points(report.cohort[1].points)["size_vox"]
    assert sizes[0] >= 1
    assert np.isnan(sizes[1])


def test_points_outside_the_brain_can_be_dropped(folder: Path, tmp_path: Path):
    image = read_volume(folder / "P01" / "FLAIR.nii.gz")
    places = image.to_mm([[12, 14, 10], [0, 0, 0], [12, 14, 10]])
    export_points(folder / "P01" / "FLAIR_points.tsv", pd.DataFrame(places, columns=[*"xyz"]))
    report = import_cohort(folder, tmp_path / "cohort", ImportConfig(outside="drop"))
    assert len(read_points(report.cohort[1].points)) == 1  # one is outside, one a duplicate
    what = _status(report, "FLAIR_points.tsv")[0][1]
    assert "1 of 3 points" in what
    assert "at the place of another" in what


def test_nothing_is_written_when_nothing_can_be_used(folder: Path, tmp_path: Path):
    for path in folder.rglob("*.nii.gz"):
        path.write_bytes(b"no image")
    with pytest.raises(NothingImported, match="not a NIfTI image") as caught:
        import_cohort(folder, tmp_path / "cohort")
    assert len(caught.value.rows) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_an_interrupted_import_leaves_nothing(folder: Path, tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_cohort(folder, tmp_path / "a" / "cohort", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_an_existing_cohort_is_not_touched(folder: Path, tmp_path: Path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(DataError, match="holds files already"):
        import_cohort(folder, tmp_path / "cohort")
    assert [path.name for path in (tmp_path / "cohort").iterdir()] == ["thesis.txt"]


def test_several_kinds_of_image_ask_for_a_choice(folder: Path, tmp_path: Path, capsys):
    image = read_volume(folder / "P00" / "FLAIR.nii.gz")
    write_volume(folder / "P00" / "T2.nii.gz", image)
    with pytest.raises(DataError, match="FLAIR, T2"):
        import_cohort(folder, tmp_path / "cohort")
    arguments = ["import", str(folder), "-o", str(tmp_path / "cohort"), "--channels", "FLAIR", "--spacing", "2,2,3"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "left out  P00/T2.nii.gz" in printed
    assert "3 patients" in printed


def test_the_command_prints_a_row_a_file_even_if_all_are_refused(folder: Path, tmp_path: Path, capsys):
    for path in folder.rglob("*.nii.gz"):
        path.write_bytes(b"no image")
    assert main(["import", str(folder), "-o", str(tmp_path / "cohort")]) == 2
    captured = capsys.readouterr()
    assert captured.out.count("refused") >= 6
    assert captured.err.count("lesionkit:") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ("FLAIR", "FLAIR")}, "each image once"),
        ({"channels": ("../x",)}, "BIDS suffix"),
        ({"spacing": 0}, "above 0.05"),
        ({"spacing": (1, 2)}, "one or three"),
        ({"spacing": float("nan")}, "one or three"),
        ({"outside": "keep"}, "'refuse' or 'drop'"),
        ({"units": "inch"}, "'mm'"),
        ({"tolerance_mm": -1}, "0 or more"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ImportConfig(**settings)
