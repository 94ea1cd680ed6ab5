"""Nothing wrong without a word: headers, labels, numbers, and work that is not lost."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lesionkit.cli import main
from lesionkit.io import (
    DataError,
    check_same_grid,
    check_writable,
    import_points,
    read_points,
    read_volume,
    write_volume,
)
from lesionkit.metrics import CasePoints, choose_threshold, precision_recall, score_points
from lesionkit.samples import sample
from lesionkit.volume import Volume

DATA = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def _saved(path: Path, change=None, affine=None) -> Path:
    image = nib.Nifti1Image(DATA, np.diag([2.0, 3, 4, 1]) if affine is None else affine)
    image.set_qform(image.affine, code=1)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    if change:
        change(header)
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"pixdim0": 0.0}, {"pixdim0": 3.0, "sform_code": 0}, {"pixdim0": 0.0, "sform_code": 0},
        {"pixdim1": -2.0, "sform_code": 0, "qform_code": 0}, {"pixdim3": -4.0, "sform_code": 0},
        {"pixdim2": -3.0, "sform_code": 0, "qform_code": 0, "pixdim0": -1.0},
    ],
)  # fmt: skip
def test_headers_are_read_as_nibabel_reads_them(change: dict, tmp_path: Path):
    def spoil(header):
        for name, value in change.items():
            if name.startswith("pixdim"):
                header["pixdim"][int(name[6:])] = value
            else:
                header[name] = value

    path = _saved(tmp_path / "x.nii", spoil)
    canonical = nib.as_closest_canonical(nib.load(path))
    volume = read_volume(path)
    assert volume.affine == pytest.approx(canonical.affine)
    assert np.array_equal(volume.data, canonical.get_fdata())


@pytest.mark.parametrize(("codes", "apart"), [((0, 0), 0.0), ((1, 1), 2.5), ((2, 1), 30.0), ((1, 1), -3.0)])
def test_a_place_that_is_left_open_is_said(codes: tuple[int, int], apart: float, tmp_path: Path, caplog):
    def spoil(header):
        header["sform_code"], header["qform_code"] = codes
        header["qoffset_x"] += apart

    with caplog.at_level(logging.WARNING, "lesionkit.io"):
        volume = read_volume(_saved(tmp_path / "x.nii", spoil))
    assert volume.native.note in caplog.text
    assert ("sform is taken" if apart else "LAS") in volume.native.note
    caplog.clear()
    assert read_volume(_saved(tmp_path / "y.nii", lambda h: h["qoffset_x"].__iadd__(1.5))).native.note == ""
    assert not caplog.text


def test_an_axis_without_length_gets_a_hint_that_fits(tmp_path: Path):
    def spoil(header):
        header["dim"][0], header["dim"][4] = 4, 0

    with pytest.raises(DataError, match=r"2 x 3 x 4 x 0.*set dim\[0\] to 3"):
        read_volume(_saved(tmp_path / "x.nii", spoil))


@pytest.mark.parametrize("ending", ["mgz", "img"])
def test_an_image_of_another_program_gets_a_hint_that_works(ending: str, tmp_path: Path):
    path = tmp_path / f"it's {ending}.{ending}"
    kind = nib.MGHImage if ending == "mgz" else nib.Nifti1Pair
    nib.save(kind(DATA.astype(np.float32), np.diag([2.0, 3, 4, 1])), path)
    with pytest.raises(DataError, match="this makes one") as caught:
        read_volume(path)
    code = str(caught.value).partition('-c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", code], check=True)
    assert np.array_equal(read_volume(path.with_suffix(".nii.gz")).data, DATA)


@pytest.mark.parametrize("status", ["0", "1", "3", "9"])
def test_points_without_a_position_are_left_out_of_fcsv(status: str, tmp_path: Path):
    row = "{},0,0,0,0,0,0,1,1,1,0,F-{},,,{},0\n"
    head = "# Markups fiducial file version = 5.0\n# CoordinateSystem = LPS\n"
    path = tmp_path / "x.fcsv"
    placed = "1,4,5,6,0,0,0,1,1,1,0,F-1,,,2,0\n"
    path.write_text(head + placed + row.format(2, 2, status), encoding="utf-8")
    found = import_points(path)
    assert found.frame[["x", "y", "z"]].to_numpy().tolist() == [[-4, -5, 6]]
    assert "left out 1" in found.notes[0]


def test_images_two_micrometres_apart_are_on_one_grid(rng: np.random.Generator):
    affine = np.eye(4)
    one = Volume(rng.random((5, 6, 7)), affine)
    affine = affine.copy()
    affine[0, 3] = 0.002
    check_same_grid(one, Volume(one.data, affine), ("a", "b"))
    affine[0, 3], affine[0, 0] = 0, 1.02  # 0.02 a voxel: 0.08 mm over the image
    with pytest.raises(DataError, match=r"by up to 0\.08"):
        check_same_grid(one, Volume(one.data, affine), ("a", "b"))


def test_a_mask_with_a_slope_of_nearly_one_is_a_mask(tmp_path: Path):
    image = nib.Nifti1Image((DATA > 3).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(1.00000006, 0)
    nib.save(image, tmp_path / "x.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "x.nii.gz", np.int32).data, DATA > 3)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, tmp_path / "x.nii.gz")
    with pytest.raises(DataError, match="int32 voxels"):
        read_volume(tmp_path / "x.nii.gz", np.int32)


def test_a_chosen_threshold_has_the_best_f1_of_all(rng: np.random.Generator):
    cases = []
    for number in range(6):
        true = rng.uniform(0, 40, (12, 3))
        near = true[:9] + rng.normal(0, 3, (9, 3))
        predicted = np.vstack([near, rng.uniform(0, 40, (60, 3))])
        score = np.r_[rng.beta(3, 2, 9), rng.beta(1, 4, 60)]
        case = {"predicted": predicted, "score": score, "true": true, "sizes": np.full(12, np.nan)}
        cases.append(CasePoints(**case, subject=str(number), split="validation"))
    for gate in ("before", "after"):
        table = precision_recall(cases, gate=gate)
        assert len(table) == 6 * 69
        chosen = choose_threshold(cases, gate=gate)
        assert score_points(cases, chosen, gate=gate).pooled.f1 == pytest.approx(table["f1"].max(), abs=1e-12)
        for row in table.iloc[::60].itertuples():
            pooled = score_points(cases, row.threshold, gate=gate).pooled
            assert (pooled.tp, pooled.fp, pooled.fn) == (row.tp, row.fp, row.fn)


def test_output_is_checked_before_the_work(tmp_path: Path, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("the network ran")

    monkeypatch.setattr("lesionkit.pipeline.predict", never)
    _, case = sample("gad")
    images = [*map(str, case.images), "-c", "gad"]
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "lesions" / f"{case.images[0].name.removesuffix('.nii.gz')}_report.html").mkdir(parents=True)
    for command in ("detect", "predict"):
        assert main([command, *images, "-o", str(tmp_path / "file" / "below")]) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert main(["detect", *images, "-o", str(tmp_path / "lesions")]) == 2
    assert "report.html: is a folder" in capsys.readouterr().err
    check_writable(tmp_path / "new" / "folder" / "file")
    assert not (tmp_path / "new").exists()


def test_the_next_patient_is_always_done(tmp_path: Path, capsys):
    _, case = sample("gad")
    images = []
    for name in ("first", "bad [red]x", "last [a] :smile:"):
        for part, path in zip(("", "_pre"), case.images, strict=True):
            images.append(tmp_path / f"{name}{part}.nii.gz")
            images[-1].write_bytes(b"no image" if name.startswith("bad") else path.read_bytes())
    out = tmp_path / "out [b]"
    assert main(["detect", *map(str, images), "-c", "gad", "-o", str(out)]) == 2
    said = capsys.readouterr()
    assert sorted(p.name for p in out.glob("*.tsv")) == ["first_lesions.tsv", "last [a] :smile:_lesions.tsv"]
    assert f"{images[2]}: is not a NIfTI image" in said.err
    assert "1 of 3 cases failed" in said.err.splitlines()[-1]
    assert str(out / "last [a] :smile:_report.html") in said.out


RUN = "import sys; from lesionkit.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("how", ["closed", "full", "cp1252", "latin"])
def test_printing_never_ends_a_run(how: str, tmp_path: Path):
    _, case = sample("gad")
    name = os.fsdecode(
        "b\xe9 \u0161 [x].nii.gz".encode("latin-1", "replace") if how == "latin" else "č [x].nii.gz".encode()
    )
    path = tmp_path / name
    path.write_bytes(case.images[0].read_bytes())
    arguments = ["detect", path, case.images[1], "-c", "gad", "-o", tmp_path / "out"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252" if how == "cp1252" else "utf-8"}
    reader, writer = os.pipe()
    if how == "closed":
        os.close(reader)
    output = os.open("/dev/full", os.O_WRONLY) if how == "full" else writer
    done = subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)], env=environment,
        stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.close(writer)
    printed = b""
    if how not in ("closed",):
        with os.fdopen(reader, "rb") as stream:
            printed = stream.read()
    assert done.wait() == 0
    assert len(list((tmp_path / "out").iterdir())) == 3
    if how == "latin":
        assert os.fsencode(name.removesuffix(".nii.gz")) in printed


def test_progress_without_a_terminal_is_a_line_every_tenth():
    from rich.console import Console

    from lesionkit.terminal import Bar

    log = io.StringIO()
    with Bar(Console(file=log, width=80, markup=False)) as bar:
        task = bar.add_task("stage [one]", total=200)
        for done in range(1, 201):
            bar.update(task, completed=done)
        bar.update(task, description="stage two", completed=0)
    lines = log.getvalue().splitlines()
    assert lines == [*(f"stage [one]: {10 * n} %" for n in range(1, 11)), "stage two: 0 %"]


def _children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("seconds", [1.0, 4.0, 9.0])
def test_sigterm_ends_a_simulation_without_a_trace(seconds: float, tmp_path: Path):
    private = tmp_path / "tmp"
    private.mkdir()
    arguments = ["simulate", "--n", "60", "--jobs", "2", "-o", str(tmp_path / "cohort")]
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], env=os.environ | {"TMPDIR": str(private)})
    time.sleep(seconds)
    children = _children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (143, -signal.SIGTERM)  # before Python has come to the command line
    until = time.monotonic() + 30  # workers end when they notice; a busy machine lets them run late
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not list(private.iterdir())
    assert main(["simulate", "--n", "3", "--jobs", "1", "-o", str(tmp_path / "other")]) == 0


def test_true_points_of_every_format_are_taken(tmp_path: Path, capsys):
    _, case = sample("gad")
    frame = read_points(case.points)
    assert main(["points", "convert", str(case.points), str(tmp_path / "t.mrk.json")]) == 0
    arguments = ["detect", *map(str, case.images), "-c", "gad", "-o", str(tmp_path / "out")]
    arguments += ["--truth", str(tmp_path / "t.mrk.json")]
    assert main(arguments) == 0
    assert "this case" in capsys.readouterr().out
    assert len(frame)


def test_a_low_threshold_finds_more(tmp_path: Path):
    _, case = sample("gad")
    for threshold in ("0.02", "0.2"):
        arguments = [*map(str, case.images), "-c", "gad", "-o", str(tmp_path / threshold)]
        assert main(["detect", *arguments, "--threshold", threshold]) == 0
    low, high = (pd.read_csv(next((tmp_path / t).glob("*.tsv")), sep="\t")["alpha"] for t in ("0.02", "0.2"))
    assert low.min() < 0.1 <= high.min()


def test_a_cohort_without_validation_is_refused_before_it_is_predicted(tmp_path: Path, monkeypatch, capsys):
    from lesionkit.io import write_cohort_description, write_participants, write_points

    _, case = sample("gad")
    folder = tmp_path / "cohort"
    write_participants(folder, pd.DataFrame({"participant_id": ["sub-1"], "split": ["test"]}))
    write_cohort_description(folder, "gad", ("ce-gad_T1w", "T1w"))
    for channel, path in zip(("ce-gad_T1w", "T1w"), case.images, strict=True):
        write_volume(folder / "sub-1" / "anat" / f"sub-1_{channel}.nii.gz", read_volume(path))
    truth = folder / "derivatives" / "lesions" / "sub-1" / "anat" / "sub-1_label-lesion_points.tsv"
    write_points(truth, read_points(case.points))
    with monkeypatch.context() as patch:
        patch.setattr("lesionkit.evaluation.predict_array", lambda *_, **__: pytest.fail("predicted"))
        assert main(["evaluate", str(folder), "-o", str(tmp_path / "e")]) == 2
    assert "no validation case" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "-o", str(tmp_path / "e"), "--threshold", "0.3", "--device", "cpu"]) == 0
    assert (tmp_path / "e" / "scores.tsv").is_file()


def test_a_training_under_spawn_without_a_main_guard_is_refused(tmp_path: Path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import multiprocessing\nmultiprocessing.set_start_method('spawn', force=True)\n"
        "from lesionkit.io import Cohort\nfrom lesionkit.training import train\n"
        "train(Cohort('.', 'gad', ('T1w',), ()), 'out')\n",
        encoding="utf-8",
    )
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"{script}: has no main guard" in done.stderr
