from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesionkit.io import (
    MAX_VOXELS,
    Cohort,
    DataError,
    atomic_path,
    case_layout,
    check_same_grid,
    read_cohort,
    read_points,
    read_volume,
    write_cohort_description,
    write_participants,
    write_points,
    write_volume,
)
from lesionkit.volume import Volume, resample


def _save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, dtype: type | None = None) -> Path:
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine, dtype=dtype)
    image.to_filename(path)
    return path


def _complaint(path: Path | str, dtype: type = np.float32) -> str:
    """The message about an image, after checking its form."""
    with pytest.raises(DataError) as caught:
        read_volume(path, dtype)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def _edit_header(path: Path, **fields: object) -> Path:
    """Change fields of a plain NIfTI-1 header in place."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.fixture
def image(tmp_path: Path, rng: np.random.Generator) -> Path:
    return _save(tmp_path / "image.nii", rng.random((4, 5, 6)).astype(np.float32))


# Images that come in


def test_axes_are_turned_to_ras(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    lps = np.diag([-1.0, -2.0, 3.0, 1.0])
    lps[:3, 3] = 5, 6, 7
    volume = read_volume(_save(tmp_path / "lps.nii", data, lps))
    np.testing.assert_array_equal(volume.data, data[::-1, ::-1])
    np.testing.assert_allclose(volume.affine, [[1, 0, 0, 4], [0, 2, 0, 2], [0, 0, 3, 7], [0, 0, 0, 1]])
    assert volume.data.flags.c_contiguous
    assert volume.native is not None
    np.testing.assert_array_equal(volume.native.affine, lps)


@st.composite
def _grids(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Arrays on oblique, anisotropic grids with flipped and exchanged axes."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    data = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape).astype(np.float32)
    axes = np.eye(3)[list(draw(st.sampled_from(list(itertools.permutations(range(3))))))]
    tilt, _ = np.linalg.qr(np.eye(3) + draw(hnp.arrays(np.float64, (3, 3), elements=st.floats(-0.3, 0.3))))
    signs = draw(hnp.arrays(np.float64, 3, elements=st.sampled_from([-1.0, 1.0])))
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * signs * draw(hnp.arrays(np.float64, 3, elements=st.floats(0.3, 6)))
    affine[:3, 3] = draw(hnp.arrays(np.float64, 3, elements=st.floats(-200, 200)))
    return data, affine


@given(grid=_grids(), ending=st.sampled_from([".nii", ".nii.gz"]))
def test_image_written_back_is_the_image_read(
    tmp_path_factory: pytest.TempPathFactory, grid: tuple[np.ndarray, np.ndarray], ending: str
) -> None:
    folder = tmp_path_factory.mktemp("grid")
    source = _save(folder / f"in{ending}", *grid)
    volume = read_volume(source)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    write_volume(folder / f"out{ending}", volume)
    before, after = nib.load(source), nib.load(folder / f"out{ending}")
    np.testing.assert_array_equal(before.get_fdata(), after.get_fdata())
    np.testing.assert_array_equal(before.affine, after.affine)


@given(grid=_grids())
def test_voxel_keeps_its_place_in_mm(
    tmp_path_factory: pytest.TempPathFactory, grid: tuple[np.ndarray, np.ndarray]
) -> None:
    path = _save(tmp_path_factory.mktemp("grid") / "in.nii", *grid)
    volume = read_volume(path)
    file = nib.load(path)
    brightest = np.unravel_index(int(np.argmax(file.get_fdata())), file.shape)
    place = volume.to_mm(np.argwhere(volume.data == volume.data.max()))
    np.testing.assert_allclose(place[0], nib.affines.apply_affine(file.affine, brightest), atol=1e-4)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = _save(tmp_path / "scaled.nii", np.arange(8, dtype=np.int16).reshape(2, 2, 2))
    _edit_header(path, scl_slope=0.5, scl_inter=-1)
    np.testing.assert_allclose(read_volume(path).data, np.arange(8).reshape(2, 2, 2) * 0.5 - 1)
    np.testing.assert_array_equal(read_volume(path).data, nib.load(path).get_fdata())


@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_slope_that_is_none_changes_nothing(tmp_path: Path, slope: float) -> None:
    path = _save(tmp_path / "unscaled.nii", np.arange(8, dtype=np.int16).reshape(2, 2, 2))
    np.testing.assert_array_equal(read_volume(_edit_header(path, scl_slope=slope)).data.ravel(), np.arange(8))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_real_type_and_byte_order_is_read(tmp_path: Path, dtype: type, order: str) -> None:
    header = nib.Nifti1Header(endianness=order)
    data = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    nib.Nifti1Image(data, np.eye(4), header, dtype=dtype).to_filename(tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, data)


def test_nifti2_is_read(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    nib.Nifti2Image(data, np.eye(4)).to_filename(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "image.nii.gz").data, data)


def test_header_extension_is_passed_over(tmp_path: Path) -> None:
    file = nib.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    file.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    file.to_filename(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "image.nii.gz").data.ravel(), np.arange(24))


def test_content_and_not_the_name_says_whether_it_is_gzipped(image: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.nii.gz").write_bytes(image.read_bytes())
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(image.read_bytes()))
    expected = read_volume(image).data
    np.testing.assert_array_equal(read_volume(tmp_path / "plain.nii.gz").data, expected)
    np.testing.assert_array_equal(read_volume(tmp_path / "zipped.nii").data, expected)


def test_image_of_several_slabs_is_read_whole(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesionkit.io.images._SLAB_VOXELS", 7)
    data = rng.random((4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(read_volume(_save(tmp_path / "image.nii.gz", data)).data, data)
    data[3, 2, 4] = np.nan
    assert "(3, 2, 4)" in _complaint(_save(tmp_path / "image.nii.gz", data))


def test_trailing_axes_of_one_are_fine(tmp_path: Path) -> None:
    assert read_volume(_save(tmp_path / "a.nii", np.zeros((2, 3, 4, 1), np.float32))).shape == (2, 3, 4)
    assert read_volume(_save(tmp_path / "b.nii", np.zeros((2, 3, 1, 1, 1), np.float32))).shape == (2, 3, 1)


def test_mask_is_read_as_integers_that_hold_it_exactly(tmp_path: Path) -> None:
    path = _save(tmp_path / "mask.nii", np.array([0, 1, 1, 0, 2, 0, 0, 1], np.float32).reshape(2, 2, 2))
    assert read_volume(path, np.uint8).data.dtype == np.uint8
    assert "holds 2.0 at voxel (1, 0, 0)" in _complaint(path, np.bool_)
    half = _save(tmp_path / "half.nii", np.full((2, 2, 2), 0.5, np.float32))
    assert "holds 0.5 at voxel (0, 0, 0)" in _complaint(half, np.int16)
    negative = _save(tmp_path / "negative.nii", np.full((2, 2, 2), -1, np.int16))
    assert "uint8 voxels are wanted" in _complaint(negative, np.uint8)


def test_type_that_is_not_real_is_refused(image: Path) -> None:
    with pytest.raises(ValueError, match="dtype is complex64"):
        read_volume(image, np.complex64)


# Images that cannot be used


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in _complaint(tmp_path / "none.nii.gz")
    assert "does not exist" in _complaint("none.nii")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in _complaint(tmp_path)


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    assert "is a device or a pipe" in _complaint(tmp_path / "pipe.nii")


@pytest.mark.parametrize("content", [b"", b"hello", b"x y z\n" * 200, bytes(400), b"\x5c\x01\0\0" + bytes(400)])
def test_other_files_are_not_nifti(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "note.nii"
    path.write_bytes(content)
    assert "a NIfTI image (.nii or .nii.gz) is wanted" in _complaint(path)
    path.write_bytes(gzip.compress(content))
    assert "a NIfTI image (.nii or .nii.gz) is wanted" in _complaint(path)


def test_half_of_a_pair(tmp_path: Path) -> None:
    nib.Nifti1Pair(np.zeros((2, 2, 2), np.float32), np.eye(4)).to_filename(tmp_path / "pair.hdr")
    assert "half of a .hdr/.img pair" in _complaint(tmp_path / "pair.hdr")


def test_four_axes(tmp_path: Path) -> None:
    assert "has 4 axes (2 x 3 x 4 x 5)" in _complaint(_save(tmp_path / "run.nii", np.zeros((2, 3, 4, 5), np.float32)))


def test_two_axes(tmp_path: Path) -> None:
    assert "has 2 axes (2 x 3)" in _complaint(_save(tmp_path / "slice.nii", np.zeros((2, 3), np.float32)))


def test_complex_and_colour(tmp_path: Path) -> None:
    assert "complex" in _complaint(_save(tmp_path / "complex.nii", np.zeros((2, 2, 2), np.complex64)))
    colour = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "RGB" in _complaint(_save(tmp_path / "colour.nii", colour))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_first_voxel_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    data = np.zeros((3, 4, 5), np.float32)
    data[2, 3, 1] = data[0, 0, 4] = value
    assert f"holds {value} at voxel (2, 3, 1)" in _complaint(_save(tmp_path / "image.nii.gz", data))


def test_value_beyond_the_type_is_named(tmp_path: Path) -> None:
    data = np.full((2, 2, 2), 1e300)
    assert "float32 voxels are wanted" in _complaint(_save(tmp_path / "large.nii", data))
    assert read_volume(tmp_path / "large.nii", np.float64).data.max() == 1e300


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"srow_x": [np.nan, 0, 0, 0]}, "affine"),
        ({"srow_x": [0, 0, 0, 0]}, "affine"),
        ({"srow_x": [0, 1, 0, 0]}, "affine"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 5}, "affine"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": np.nan}, "affine"),
        ({"sform_code": 0, "qform_code": 0, "pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0]}, "affine"),
        ({"xyzt_units": 1}, "metres"),
        ({"xyzt_units": 3}, "micrometres"),
        ({"datatype": 9999}, "unknown type"),
        ({"datatype": 1}, "unknown type"),
        ({"dim": [0, 1, 1, 1, 1, 1, 1, 1]}, "claims 0 axes"),
        ({"dim": [3, -4, 5, 6, 1, 1, 1, 1]}, "shape -4 x 5 x 6"),
        ({"dim": [3, 0, 5, 6, 1, 1, 1, 1]}, "shape 0 x 5 x 6"),
        ({"dim": [3, 4, 5, 7, 1, 1, 1, 1]}, "more than the file can hold"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "claims 32767 x 32767 x 32767 voxels"),
        ({"vox_offset": np.nan}, "start at byte nan"),
        ({"vox_offset": np.inf}, "start at byte inf"),
        ({"vox_offset": -352}, "start at byte -352"),
        ({"vox_offset": 1e12}, "more than the file can hold"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "intercept nan"),
    ],
)
def test_header_that_makes_no_sense(image: Path, fields: dict[str, object], wrong: str) -> None:
    assert wrong in _complaint(_edit_header(image, **fields))
    zipped = image.with_suffix(".nii.gz")
    zipped.write_bytes(gzip.compress(image.read_bytes()))
    assert _complaint(zipped)


@pytest.mark.parametrize("kept", [10, 200, 348, 352, 500, -1])
def test_truncated_file(image: Path, kept: int) -> None:
    image.write_bytes(image.read_bytes()[:kept])
    assert _complaint(image)


@pytest.mark.parametrize("kept", [2, 12, 100, -9, -1])
def test_truncated_gzip(image: Path, kept: int) -> None:
    zipped = image.with_suffix(".nii.gz")
    zipped.write_bytes(gzip.compress(image.read_bytes())[:kept])
    assert "trunc" in _complaint(zipped)


def test_any_flipped_byte_is_an_error_or_the_image(image: Path) -> None:
    whole = gzip.compress(image.read_bytes(), mtime=0)
    expected = read_volume(image).data
    zipped = image.with_suffix(".nii.gz")
    for place in range(2, len(whole), 7):
        zipped.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with suppress(DataError):
            np.testing.assert_array_equal(read_volume(zipped).data, expected)


def test_memory_is_not_taken_for_a_claim(tmp_path: Path) -> None:
    """A file of 400 bytes announces 8 GB."""
    header = nib.Nifti1Header()
    header.set_data_shape((1024, 1024, 1024))
    header.set_data_dtype(np.float64)
    header["magic"], header["vox_offset"] = b"n+1", 352
    plain, zipped = tmp_path / "claim.nii", tmp_path / "claim.nii.gz"
    plain.write_bytes(header.binaryblock + bytes(52))
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    tracemalloc.start()
    try:
        for path in (plain, zipped):
            assert "more than the file can hold" in _complaint(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_largest_image_is_a_limit_of_voxels(image: Path) -> None:
    side = round(MAX_VOXELS ** (1 / 3))
    assert "at most" in _complaint(_edit_header(image, dim=[3, side, side, side + 1, 1, 1, 1, 1]))


def test_gzip_that_goes_on_and_on_is_refused(image: Path) -> None:
    bomb = image.with_suffix(".nii.gz")
    bomb.write_bytes(gzip.compress(image.read_bytes() + bytes(2**25)))
    assert "goes on after the 4 x 5 x 6 voxels" in _complaint(bomb)


def test_unreadable_path_is_an_error_of_one_line() -> None:
    assert _complaint("a" * 5000)
    with pytest.raises(DataError, match=r"is no usable path|does not exist"):
        read_volume("a\0b")


# Images that go out


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (np.ones((2, 2, 2), bool), np.uint8),
        (np.full((2, 2, 2), 200), np.uint8),
        (np.full((2, 2, 2), -3), np.int16),
        (np.full((2, 2, 2), 70000), np.int32),
        (np.full((2, 2, 2), 0.1), np.float32),
        (np.full((2, 2, 2), 0.5, np.float16), np.float32),
    ],
)
def test_type_on_disk_follows_the_values(tmp_path: Path, data: np.ndarray, stored: type) -> None:
    write_volume(tmp_path / "out.nii", Volume(data, np.eye(4)))
    file = nib.load(tmp_path / "out.nii")
    assert file.get_data_dtype() == stored
    np.testing.assert_array_equal(np.asarray(file.dataobj), data.astype(stored))


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (np.full((2, 2, 2), 2**40), "int32"),
        (np.full((2, 2, 2), 1j), "complex"),
        (np.full((2, 2, 2), 1e300), "1e.300 at voxel"),
        (np.array([0, 0, 0, np.nan, 0, 0, 0, 0]).reshape(2, 2, 2), r"nan at voxel \(0, 1, 1\)"),
    ],
)
def test_values_that_cannot_be_stored_leave_no_file(tmp_path: Path, data: np.ndarray, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        write_volume(tmp_path / "out.nii", Volume(data, np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_result_in_ras_where_native_space_is_not_wanted(tmp_path: Path) -> None:
    source = _save(tmp_path / "las.nii", np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.diag([-1.0, 1, 1, 1]))
    write_volume(tmp_path / "ras.nii", read_volume(source), native=False)
    assert nib.aff2axcodes(nib.load(tmp_path / "ras.nii").affine) == ("R", "A", "S")


def test_resampled_volume_is_written_on_its_own_grid(tmp_path: Path) -> None:
    source = _save(tmp_path / "las.nii", np.ones((4, 4, 4), np.float32), np.diag([-1.0, 1, 1, 1]))
    coarse = resample(read_volume(source), 2)
    write_volume(tmp_path / "coarse.nii", coarse)
    assert read_volume(tmp_path / "coarse.nii").same_grid(coarse)


def test_both_forms_of_the_affine_agree_where_they_can(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turned = np.diag([1.0, 2.0, 3.0, 1.0])
    turned[:2, :2] = [[np.cos(angle), -2 * np.sin(angle)], [np.sin(angle), 2 * np.cos(angle)]]
    sheared = np.eye(4)
    sheared[0, 1] = 0.4
    for name, affine, code in (("turned.nii", turned, 2), ("sheared.nii", sheared, 0)):
        write_volume(tmp_path / name, Volume(np.zeros((3, 3, 3), np.float32), affine))
        header = nib.load(tmp_path / name).header
        assert int(header["qform_code"]) == code
        np.testing.assert_allclose(header.get_sform(), affine, atol=1e-6)
        assert read_volume(tmp_path / name).same_grid(Volume(np.zeros((3, 3, 3)), affine))


def test_same_volume_gives_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    volume = Volume(rng.random((3, 4, 5)), np.eye(4))
    write_volume(tmp_path / "a.nii.gz", volume)
    write_volume(tmp_path / "b.nii.gz", volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_axis_too_long_for_nifti1_is_written(tmp_path: Path) -> None:
    volume = Volume(np.zeros((40000, 1, 1), np.uint8), np.eye(4))
    write_volume(tmp_path / "long.nii", volume)
    assert read_volume(tmp_path / "long.nii").shape == (40000, 1, 1)


def test_other_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"an ending \.nii or \.nii\.gz is wanted"):
        write_volume(tmp_path / "out.mgz", Volume(np.zeros((2, 2, 2)), np.eye(4)))


def test_grids_that_differ_are_named() -> None:
    one = Volume(np.zeros((2, 3, 4)), np.eye(4))
    check_same_grid(one, Volume(np.ones((2, 3, 4)), np.eye(4)), ("a.nii", "b.nii"))
    with pytest.raises(DataError, match=r"b\.nii: has 2 x 3 x 5 voxels, but a\.nii has 2 x 3 x 4"):
        check_same_grid(one, Volume(np.ones((2, 3, 5)), np.eye(4)), ("a.nii", "b.nii"))
    with pytest.raises(DataError, match=r"b\.nii: lies elsewhere than a\.nii .*0\.5"):
        check_same_grid(one, Volume(np.ones((2, 3, 4)), np.diag([1.5, 1, 1, 1])), ("a.nii", "b.nii"))


# Writing as a whole or not at all


def test_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.nii.gz"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def _fail_halfway(path: Path, failure: type[BaseException]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    (tmp_path / "file.txt").write_text("old")
    for path in (tmp_path / "file.txt", tmp_path / "new" / "deep" / "file.txt"):
        with pytest.raises(failure):
            _fail_halfway(path, failure)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "old"


def test_place_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), atomic_path(tmp_path / "file" / "below"):
        pass
    with pytest.raises(DataError, match="is a folder"), atomic_path(tmp_path):
        pass


# Tables of points


def _table_complaint(path: Path, content: bytes | str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read_points(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


_numbers = st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0"), min_size=1).filter(
    lambda text: text.strip() == text and text != "n/a"
)


@given(
    rows=st.lists(st.tuples(_numbers, _numbers, _numbers, st.integers(0, 10**6), _texts), max_size=5),
)
def test_points_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, ...]]) -> None:
    path = tmp_path_factory.mktemp("points") / "points.tsv"
    frame = pd.DataFrame(rows, columns=["x", "y", "z", "size_vox", "note"])
    write_points(path, frame)
    back = read_points(path)
    assert list(back.columns) == list(frame.columns)
    assert all(back[name].dtype == np.float64 for name in "xyz")
    np.testing.assert_array_equal(back[["x", "y", "z"]], frame[["x", "y", "z"]].astype(float))
    if rows:
        np.testing.assert_array_equal(back["size_vox"], frame["size_vox"])


def test_no_points_is_a_table_without_rows(tmp_path: Path) -> None:
    write_points(tmp_path / "none.tsv", pd.DataFrame({"x": [], "y": [], "z": [], "alpha": []}))
    frame = read_points(tmp_path / "none.tsv")
    assert len(frame) == 0
    assert list(frame.columns) == ["x", "y", "z", "alpha"]
    assert all(dtype == np.float64 for dtype in frame.dtypes)


def test_missing_entries_are_na_as_in_bids(tmp_path: Path) -> None:
    write_points(tmp_path / "p.tsv", pd.DataFrame({"x": [1], "y": [2], "z": [3], "probability": [np.nan]}))
    assert (tmp_path / "p.tsv").read_text() == "x\ty\tz\tprobability\n1\t2\t3\tn/a\n"
    assert np.isnan(read_points(tmp_path / "p.tsv")["probability"][0])


@pytest.mark.parametrize("content", ["\ufeffx\ty\tz\n1\t2\t3\n", "x\ty\tz\r\n1\t2\t3\r\n\r\n", "z \ty\tx\n\n3\t2\t 1"])
def test_harmless_varieties_are_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.tsv").write_bytes(content.encode())
    assert read_points(tmp_path / "p.tsv")[["x", "y", "z"]].to_numpy().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("x\ty\n1\t2\n", "lacks the column z"),
        ("x\ty\ty\tz\n1\t2\t3\t4\n", "names the column 'y' twice"),
        ("x,y,z\n1,2,3\n", "separated by commas"),
        ("x;y;z\n1;2;3\n", "separated by semicolons"),
        ("x y z\n1 2 3\n", "separated by spaces"),
        ("x\ty\tz\n1\t2\t3\n4\tfive\t6\n", "line 3 has 'five' as y"),
        ("x\ty\tz\n1\t2\t\n", "line 2 has '' as z"),
        ("x\ty\tz\n\n1\tnan\t2\n", "line 3 has 'nan' as y"),
        ("x\ty\tz\n1\t-inf\t2\n", "line 2 has '-inf' as y"),
        ("x\ty\tz\n1\tn/a\t2\n", "line 2 has 'n/a' as y"),
        ("x\ty\tz\n1,5\t2\t3\n", "line 2 has '1,5' as x"),
        ("x\ty\tz\n1_0\t2\t3\n", "line 2 has '1_0' as x"),
        ("x\ty\tz\n1\t2\n", "line 2 has 2 entries"),
        ("x\ty\tz\n1\t2\t3\n1\t2\t3\t4\n", "line 3 has 4 entries"),
        ('x\ty\tz\n1\t2\t"3\n', "line 2 cannot be read"),
        ("x\ty\tz\n1\t2\t3\n".encode("utf-16"), "UTF-16"),
        ("x\ty\tz\n1\t2\t3\n".encode("utf-16-le"), "UTF-16"),
        (b"x\ty\tz\tnote\n1\t2\t3\tok\n1\t2\t3\t\xe9\n", "line 3 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, content: bytes | str, wrong: str) -> None:
    assert wrong in _table_complaint(tmp_path / "points.tsv", content)


def test_points_that_are_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.tsv"):
        with pytest.raises(DataError, match="with the columns x y z"):
            read_points(path)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": [1.0], "y": [2.0]}),
        pd.DataFrame({"x": [1.0], "y": [2.0], "z": [np.nan]}),
        pd.DataFrame({"x": [1.0], "y": [np.inf], "z": [1.0]}),
        pd.DataFrame({"x": ["left"], "y": [1.0], "z": [1.0]}),
        pd.DataFrame([[1.0] * 4], columns=["x", "x", "y", "z"]),
        pd.DataFrame({"x": [1.0], "y": [1.0], "z": [1.0], "note": ["two\nlines"]}),
        pd.DataFrame({"x": [1.0], "y": [1.0], "z": [1.0], "a\tb": [1]}),
    ],
)
def test_points_that_are_no_coordinates_leave_no_file(tmp_path: Path, frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"frame (has|holds)"):
        write_points(tmp_path / "p.tsv", frame)
    assert list(tmp_path.iterdir()) == []


# Cohorts


CHANNELS = ("ce-gad_T1w", "T1w")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three patients; the last one has no truth. The images are empty: nothing may read them."""
    folder = tmp_path / "cohort"
    write_cohort_description(folder, "gad", CHANNELS, seed=3)
    subjects = {"sub-02": "train", "sub-01": "validation", "sub-03": "test"}
    write_participants(folder, pd.DataFrame({"participant_id": list(subjects), "split": list(subjects.values())}))
    for subject, split in subjects.items():
        case = case_layout(folder, subject, CHANNELS, split=split)
        truth = [] if subject == "sub-03" else [case.mask, case.points]
        for path in (*case.images, *truth):
            assert path is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def test_cohort_is_found_without_reading_a_voxel(cohort: Path) -> None:
    found = read_cohort(cohort)
    assert isinstance(found, Cohort)
    assert (found.kind, found.channels, found.extra) == ("gad", CHANNELS, {"seed": 3})
    assert [case.subject for case in found] == ["sub-02", "sub-01", "sub-03"]
    assert len(found) == 3
    assert found[0] == replace(case_layout(cohort, "sub-02", CHANNELS, split="train"), brain=None)
    assert [path.name for path in found[0].images] == ["sub-02_ce-gad_T1w.nii.gz", "sub-02_T1w.nii.gz"]
    assert found[2].mask is None
    assert found[2].points is None


def test_split_gives_the_cases_of_one_split(cohort: Path) -> None:
    found = read_cohort(cohort)
    assert [case.subject for case in found.split("validation")] == ["sub-01"]
    with pytest.raises(ValueError, match="one of train, validation, test is wanted"):
        found.split("val")


def test_channels_of_a_foreign_folder_are_alphabetical(cohort: Path) -> None:
    (cohort / "dataset_description.json").write_text('{"Name": "elsewhere", "BIDSVersion": "1.8.0"}')
    assert read_cohort(cohort).channels == ("T1w", "ce-gad_T1w")
    (cohort / "dataset_description.json").unlink()
    assert read_cohort(cohort).channels == ("T1w", "ce-gad_T1w")
    assert read_cohort(cohort).kind == "unknown"


def test_unzipped_images_are_found(cohort: Path) -> None:
    image = cohort / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    image.rename(image.with_suffix(""))
    assert read_cohort(cohort)[1].images[1] == image.with_suffix("")
    image.touch()
    with pytest.raises(DataError, match=r"sub-01_T1w\.nii\.gz: stands beside sub-01_T1w\.nii"):
        read_cohort(cohort)


def test_missing_image_is_named(cohort: Path) -> None:
    (cohort / "sub-01" / "anat" / "sub-01_T1w.nii.gz").unlink()
    with pytest.raises(DataError, match=r"sub-01_T1w\.nii\.gz: does not exist"):
        read_cohort(cohort)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("../sub-01\ttrain", "line 2: subject is '../sub-01'"),
        ("/etc\ttrain", "line 2: subject is '/etc'"),
        ("sub-../../x\ttrain", "line 2: subject is"),
        ("01\ttrain", "line 2: subject is '01'"),
        ("sub-01\ttrian", "line 2: split is 'trian'"),
        ("sub-01\ttrain\nsub-01\ttest", "line 3 names sub-01 a second time"),
        ("sub-01\ttrain\textra", "line 2 has 3 entries"),
        ("sub-99\ttrain", "does not exist"),
    ],
)
def test_participants_that_cannot_be_used(cohort: Path, line: str, wrong: str) -> None:
    (cohort / "participants.tsv").write_text(f"participant_id\tsplit\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_cohort(cohort)
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        '{"lesionkit": 3}',
        '{"lesionkit": {"kind": 3, "channels": ["T1w"]}}',
        '{"lesionkit": {"kind": "gad", "channels": "T1w"}}',
        '{"lesionkit": {"kind": "gad", "channels": ["../T1w"]}}',
        '{"lesionkit": {"kind": "gad", "channels": [1]}}',
    ],
)
def test_description_that_cannot_be_used(cohort: Path, content: str) -> None:
    (cohort / "dataset_description.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset_description\.json: "):
        read_cohort(cohort)


@pytest.mark.parametrize("name", ["participants.tsv", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01", "derivatives"])
def test_link_that_leads_out_of_the_cohort_is_refused(cohort: Path, name: str) -> None:
    inside, outside = cohort / name, cohort.parent / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(DataError, match="leads out of the cohort"):
        read_cohort(cohort)


def test_link_within_the_cohort_is_followed(cohort: Path) -> None:
    image = cohort / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    image.rename(cohort / "stored")
    image.symlink_to(cohort / "stored")
    assert read_cohort(cohort)[1].images[1] == image
    (cohort / "stored").unlink()
    with pytest.raises(DataError, match="does not exist"):
        read_cohort(cohort)


def test_folder_that_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_cohort(tmp_path / "none")
    with pytest.raises(DataError, match=r"participants\.tsv: does not exist"):
        read_cohort(tmp_path)


def test_description_is_bids(cohort: Path) -> None:
    content = json.loads((cohort / "dataset_description.json").read_text())
    assert {"Name", "BIDSVersion"} <= set(content)
    assert content["lesionkit"] == {"seed": 3, "kind": "gad", "channels": list(CHANNELS)}


def test_wrong_descriptions_and_participants_leave_no_file(tmp_path: Path) -> None:
    def table(subjects: list[str], split: str = "train") -> pd.DataFrame:
        return pd.DataFrame({"participant_id": subjects, "split": split})

    for frame in (table(["sub-1", "sub-1"]), table(["1"]), table(["sub-1"], "all"), pd.DataFrame({"split": ["train"]})):
        with pytest.raises(ValueError, match="wanted"):
            write_participants(tmp_path / "cohort", frame)
    for kind, channels in (("", ["T1w"]), ("gad", []), ("gad", "T1w"), ("gad", ["a/b"])):
        with pytest.raises(ValueError, match="wanted"):
            write_cohort_description(tmp_path / "cohort", kind, channels)
    with pytest.raises(TypeError):
        write_cohort_description(tmp_path / "cohort", "gad", ["T1w"], seed=np.arange(3))
    assert list(tmp_path.iterdir()) == []
