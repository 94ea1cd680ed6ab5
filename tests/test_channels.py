"""Images in the wrong order: names and what the images show put them right, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lesionkit.channels import check_contrast, contrast_ratio, in_order, marks
from lesionkit.cli import main
from lesionkit.io import read_points, read_volume
from lesionkit.samples import sample

GAD = ("ce-gad_T1w", "T1w")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sub-01_ce-gad_T1w.nii.gz", "T1 post"), ("sub-post01_ses-pre_T1w.nii.gz", "T1"), ("P1_T1POST.nii", "T1 post"),
        ("patient_T1_pre_contrast.nii.gz", "T1 pre"), ("BraTS_0001_t1ce.nii.gz", "T1 post"), ("x_t1c.nii", "T1 post"),
        ("x_T1+C.nii", "T1 post"), ("x-t1n.nii.gz", "T1 pre"), ("3DFLAIR_sag.nii", "FLAIR"), ("t2_flair.nii", "FLAIR"),
        ("MPRAGE_Gd.nii.gz", "T1 post"), ("mprage.nii.gz", "T1"), ("T2w.nii", "T2"), ("scan12.nii", ""),
        ("t1_without_contrast.nii.gz", "T1 pre"), ("FLAIR_postop.nii", "FLAIR"), ("pre.nii.gz", "pre"),
        ("T1_precontrast.nii.gz", "T1 pre"), ("preprocessed_space-MNI_T1w.nii.gz", "T1"),
    ],
)  # fmt: skip
def test_a_name_says_what_an_image_is(name: str, said: str):
    assert marks(name) == set(said.split())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("PRE.nii.gz", "POST.nii.gz"), ("sub-1_T1w.nii.gz", "sub-1_ce-gad_T1w.nii.gz"), ("p_t1.nii", "p_t1ce.nii"),
        ("t1n.nii.gz", "t1c.nii.gz"), ("pre/T1.nii.gz", "post/T1.nii.gz"), ("mprage.nii", "mprage_gd.nii"),
        ("x_t1_pre.nii", "x_t1_post.nii"),
    ],
)  # fmt: skip
def test_names_put_channels_into_the_order_of_the_network(first: str, second: str):
    for given in ((first, second), (second, first)):
        assert in_order(tuple(map(Path, given)), GAD) == (Path(second), Path(first))


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        (("a_pre.nii", "b_pre.nii"), GAD), (("a_post.nii", "b_post.nii"), GAD), (("FLAIR.nii", "T1.nii"), GAD),
        (("T1w.nii.gz",), ("FLAIR",)), (("sub-1_ce-gad_T1w.nii", "sub-2_T1w.nii"), GAD), (("FLAIR.nii",), ("T1w",)),
        (("sub-1_ses-1_ce-gad_T1w.nii", "sub-1_ses-2_T1w.nii"), GAD), (("T1_gd.nii",), ("T1w",)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(names: tuple[str, ...], channels: tuple[str, ...]):
    with pytest.raises(ValueError, match="wanted"):
        in_order(tuple(map(Path, names)), channels)


@pytest.mark.parametrize("names", [("a.nii", "b.nii"), ("scan1.nii", "scan2.nii"), ("x.nii", "T1.nii")])
def test_names_that_say_nothing_leave_the_order(names: tuple[str, ...]):
    assert in_order(tuple(map(Path, names)), GAD) == tuple(map(Path, names))


def test_the_images_tell_before_from_after_contrast():
    _, case = sample("gad")
    post, pre = map(read_volume, case.images)
    assert contrast_ratio(post, pre) > 1.8
    assert contrast_ratio(pre, post) < 1 / 1.8
    scaled = post.with_data((post.data - post.data.mean()) / post.data.std())
    assert contrast_ratio(scaled, pre) == pytest.approx(contrast_ratio(post, pre), rel=0.01)
    silent = (Path("a.nii"), Path("b.nii"))
    assert check_contrast(silent, (post, pre), GAD) == (0, 1)
    assert check_contrast(silent, (pre, post), GAD) == (1, 0)
    with pytest.raises(ValueError, match="vessels are darker"):
        check_contrast((Path("post.nii"), Path("pre.nii")), (pre, post), GAD)
    with pytest.raises(ValueError, match="the same image"):
        check_contrast(silent, (post, post), GAD)
    assert check_contrast(silent, (post, post.with_data(np.flip(post.data, 0))), GAD) == (0, 1)


@pytest.mark.parametrize("names", [("POST", "PRE"), ("b", "a")])
def test_detect_finds_the_same_in_any_order(names: tuple[str, str], tmp_path: Path, capsys):
    _, case = sample("gad")
    paths = []
    for name, path in zip(names, case.images, strict=True):
        paths.append(tmp_path / f"{name}.nii.gz")
        paths[-1].write_bytes(path.read_bytes())
    found = []
    for order in (paths, paths[::-1]):
        folder = tmp_path / f"out{len(found)}"
        assert main(["detect", *map(str, order), "-c", "gad", "-o", str(folder)]) == 0
        (table,) = folder.glob("*_lesions.tsv")
        found.append(read_points(table))
        assert f"{paths[0]} is taken as ce-gad_T1w, {paths[1]} as T1w" in capsys.readouterr().err
    assert len(found[0]) >= 1
    assert found[0].equals(found[1])


def test_detect_refuses_a_t1_for_flair_unless_forced(tmp_path: Path, capsys):
    _, case = sample("flair")
    path = tmp_path / "P1_T1w.nii.gz"
    path.write_bytes(case.images[0].read_bytes())
    arguments = ["detect", str(path), "-c", "flair", "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "cannot be FLAIR" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
