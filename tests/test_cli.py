"""The command line, as a user calls it."""

from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from lesionkit.cli import main
from lesionkit.io import read_cohort, read_points, read_volume
from lesionkit.samples import sample


def test_every_command_explains_itself(capsys):
    for command in ("demo", "simulate", "train", "predict", "detect", "evaluate", "reproduce"):
        assert main([command, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from lesionkit.cli import main; main(['--help']);"
        "print([m for m in ('torch', 'lightning', 'plotly', 'pandas', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_simulate_writes_a_cohort(tmp_path, capsys):
    assert main(["simulate", "--kind", "gad", "--n", "3", "--seed", "4", "--jobs", "1", "-o", str(tmp_path / "c")]) == 0
    assert len(read_cohort(tmp_path / "c")) == 3
    assert "3 cases" in capsys.readouterr().out


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detected")
    _, case = sample("gad")
    arguments = ["detect", *map(str, case.images), "-c", "gad", "-o", str(folder), "--truth", str(case.points)]
    assert main(arguments) == 0
    return folder, case


def test_detect_writes_heatmap_lesions_and_report(detected):
    folder, case = detected
    name = case.images[0].name.removesuffix(".nii.gz")
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{name}_heatmap.nii.gz",
        f"{name}_lesions.tsv",
        f"{name}_report.html",
    ]
    heatmap, image = read_volume(folder / f"{name}_heatmap.nii.gz"), read_volume(case.images[0])
    assert heatmap.same_grid(image)
    lesions = read_points(folder / f"{name}_lesions.tsv")
    assert {"x", "y", "z", "i", "j", "k", "alpha"} <= set(lesions.columns)
    assert image.to_mm(lesions[["i", "j", "k"]].to_numpy()) == pytest.approx(
        lesions[["x", "y", "z"]].to_numpy(), abs=1e-3
    )
    truth = read_points(case.points)[["x", "y", "z"]].to_numpy()
    distance = np.linalg.norm(truth[:, None] - lesions[["x", "y", "z"]].to_numpy()[None], axis=2)
    assert (distance.min(axis=1) < 6).mean() >= 0.5
    page = (folder / f"{name}_report.html").read_text(encoding="utf-8")
    assert page.count("<html") == 1
    assert "not a medical device" in page.lower()


def test_results_do_not_depend_on_the_orientation_of_the_file(detected, tmp_path):
    """The same image stored as LPS, inferior first: the same lesions in mm, and the heatmap in the file's own space."""
    folder, case = detected
    turned = []
    for path in case.images:
        image = nib.load(path)
        to_lsp = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("LSP"))
        turned.append(tmp_path / path.name.replace("sub", "turned"))
        nib.save(image.as_reoriented(to_lsp), turned[-1])
    assert main(["detect", *map(str, turned), "-c", "gad", "-o", str(tmp_path / "out")]) == 0
    name = case.images[0].name.removesuffix(".nii.gz")
    straight = read_points(folder / f"{name}_lesions.tsv")
    crooked = read_points(tmp_path / "out" / f"{name.replace('sub', 'turned')}_lesions.tsv")
    assert crooked[["x", "y", "z", "alpha"]].to_numpy() == pytest.approx(
        straight[["x", "y", "z", "alpha"]].to_numpy(), abs=0.02
    )
    written = nib.load(tmp_path / "out" / f"{name.replace('sub', 'turned')}_heatmap.nii.gz")
    assert written.shape == nib.load(turned[0]).shape
    assert written.affine == pytest.approx(nib.load(turned[0]).affine)


def test_predict_writes_the_heatmap_alone(tmp_path):
    _, case = sample("gad")
    assert main(["predict", *map(str, case.images), "-c", "gad", "-o", str(tmp_path)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [case.images[0].name.replace(".nii.gz", "_heatmap.nii.gz")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "missing.nii.gz"], "missing.nii.gz"),
        (["detect", "a.nii", "--checkpoint", "none.safetensors"], "no such checkpoint"),
        (["detect", "one.nii", "-c", "gad"], "wants 2 images a case"),
        (["train", "nowhere", "-o", "x"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["simulate", "--kind", "t2", "-o", "x"], "t2"),
        (["simulate", "--n", "0", "-o", "x"], "'--n'"),
        (["dance"], "dance"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


def test_interruption_ends_with_code_130(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lesionkit.samples.sample", interrupt)
    assert main(["demo"]) == 130


def test_an_internal_error_ends_with_code_1(monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("lesionkit.samples.sample", fail)
    assert main(["demo"]) == 1
    assert "out of luck" in capsys.readouterr().err
