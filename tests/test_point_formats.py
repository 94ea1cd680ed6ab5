"""Points of other programs: what is read is where it was clicked, and every other file is one clear line."""

from __future__ import annotations

import csv
import itertools
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lesionkit.cli import main
from lesionkit.io import (
    DataError,
    convert_points,
    export_points,
    import_points,
    read_points,
    read_volume,
    write_points,
)
from lesionkit.io.slicer import pack, unpack
from lesionkit.labels import points_from_mask
from lesionkit.volume import Volume, resample

SHAPE = (6, 5, 7)
OBLIQUE = np.array([[-0.9, 0.05, 0.3, 40.0], [0.04, 0.88, -1.1, -31.0], [-0.1, 0.5, 2.8, 12.0], [0, 0, 0, 1]])
MARKUPS = {
    "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {"id": "1", "label": "F-1", "description": "", "position": [-1.5, 2.0, 3.0]},
                {"id": "2", "label": "F-2", "description": "big", "position": [4.0, -5.0, 6.25]},
            ],
        }
    ],
}
FCSV = (
    "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    "0,-1.5,2.0,3.0,0,0,0,1,1,1,0,F-1,,\n"
    "1,4.0,-5.0,6.25,0,0,0,1,1,1,0,F-2,big,vtkMRMLScalarVolumeNode1\n"
)
EXPECTED = [[1.5, -2.0, 3.0], [-4.0, 5.0, 6.25]]


def _xyz(frame: pd.DataFrame) -> np.ndarray:
    return frame[["x", "y", "z"]].to_numpy(dtype=float)


def _saved(path: Path, affine: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """Write an image in the axes of `affine` and read it, turned to RAS+."""
    nib.Nifti1Image(np.zeros(shape, dtype=np.uint8), affine).to_filename(path)
    return read_volume(path)


def _write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8", newline="")
    return path


def _complaint(path: Path | str, **options: Any) -> str:
    """The message about a file, after checking its form."""
    with pytest.raises(DataError) as caught:
        import_points(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert len(message.splitlines()) == 1
    assert len(message) < 500 + len(str(path))
    return message.removeprefix(f"{path}: ")


def _markups(**changes: Any) -> dict[str, Any]:
    return {**MARKUPS, "markups": [{**MARKUPS["markups"][0], **changes}]}  # type: ignore[index]  # values of many types


def _point(**changes: Any) -> dict[str, Any]:
    return _markups(controlPoints=[{"label": "F-1", "position": [1, 2, 3]}, {"position": [4, 5, 6], **changes}])


# --- 3D Slicer


@pytest.mark.parametrize("system", ["LPS", "lps", "1", 1, 1.0])
def test_markups_in_lps_are_turned_to_ras(tmp_path: Path, system: object) -> None:
    found = import_points(_write(tmp_path, "F.mrk.json", _markups(coordinateSystem=system)))
    assert _xyz(found.frame).tolist() == EXPECTED
    assert found.frame["label"].tolist() == ["F-1", "F-2"]
    assert found.rows == ("control point 1 ('F-1')", "control point 2 ('F-2')")
    assert found.notes == ()


@pytest.mark.parametrize("system", ["RAS", "0", 0])
def test_markups_in_ras_stay(tmp_path: Path, system: object) -> None:
    found = import_points(_write(tmp_path, "F.mrk.json", _markups(coordinateSystem=system)))
    assert _xyz(found.frame).tolist() == [[-1.5, 2.0, 3.0], [4.0, -5.0, 6.25]]


def test_markups_without_a_system_are_lps_as_the_format_says(tmp_path: Path) -> None:
    content = _markups()
    del content["markups"][0]["coordinateSystem"]
    assert _xyz(import_points(_write(tmp_path, "F.json", content)).frame).tolist() == EXPECTED


@pytest.mark.parametrize("system", ["LPS", "1"])
def test_fcsv_in_lps_is_turned_to_ras(tmp_path: Path, system: str) -> None:
    found = import_points(_write(tmp_path, "F.fcsv", FCSV.replace("= LPS", f"= {system}")))
    assert _xyz(found.frame).tolist() == EXPECTED
    assert found.frame["label"].tolist() == ["F-1", "F-2"]
    assert found.frame["description"].isna().tolist() == [True, False]
    assert found.rows == ("line 4", "line 5")


@pytest.mark.parametrize("system", ["RAS", "0", " RAS ,,,,"])
def test_fcsv_in_ras_stays(tmp_path: Path, system: str) -> None:
    found = import_points(_write(tmp_path, "F.fcsv", FCSV.replace("= LPS", f"= {system}").replace("\n", "\r\n")))
    assert _xyz(found.frame).tolist() == [[-1.5, 2.0, 3.0], [4.0, -5.0, 6.25]]


def test_fcsv_of_few_columns_is_read_by_their_names(tmp_path: Path) -> None:
    text = "# CoordinateSystem = 0\n# columns = id,x,y,z,vis,sel\np0,1,2,3,1,1\n"
    assert _xyz(import_points(_write(tmp_path, "F.fcsv", text)).frame).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("name", "content"), [("F.fcsv", FCSV.replace("LPS", "2")), ("F.mrk.json", None)])
def test_voxel_indices_of_slicer_need_the_image(tmp_path: Path, name: str, content: str | None) -> None:
    inside = [{"position": [1.0, 2.0, 3.0]}]
    path = _write(tmp_path, name, _markups(coordinateSystem="IJK", controlPoints=inside))
    if content is not None:
        path = _write(tmp_path, name, "# CoordinateSystem = 2\n0,1.0,2.0,3.0,0,0,0,1,1,1,0,F-1,,\n")
    assert "image" in _complaint(path)
    image = _saved(tmp_path / "image.nii", OBLIQUE)
    assert image.native is not None
    expected = image.native.affine @ [1, 2, 3, 1]
    assert _xyz(import_points(path, image=image).frame)[0] == pytest.approx(expected[:3], abs=1e-9)
    assert "leave units out" in _complaint(path, image=image, units="mm")


@pytest.mark.parametrize(
    "change",
    [
        {"position": "", "positionStatus": "undefined"},  # what 3D Slicer writes
        {"positionStatus": "preview"},
        {"position": None},
        {"position": []},
    ],
)
def test_point_that_was_never_placed_is_left_out_and_said(tmp_path: Path, change: dict[str, Any]) -> None:
    found = import_points(_write(tmp_path, "F.mrk.json", _point(**change)))
    assert _xyz(found.frame).tolist() == [[-1, -2, 3]]
    assert found.notes == ("left out 1 without a position: control point 2",)


def test_unset_point_of_fcsv_is_left_out_and_said(tmp_path: Path) -> None:
    text = FCSV.replace("F-1,,", "F-1,,,2,0").replace("F-2,big,vtkMRMLScalarVolumeNode1", "F-2,,,0,0")
    found = import_points(_write(tmp_path, "F.fcsv", text))
    assert _xyz(found.frame).tolist() == EXPECTED[:1]
    assert found.notes == ("left out 1 without a position: line 5",)


def test_lines_and_curves_are_left_out_and_said(tmp_path: Path) -> None:
    content = _markups()
    content["markups"] += [{"type": "Line", "controlPoints": []}, {**content["markups"][0], "name": "late"}]
    found = import_points(_write(tmp_path, "F.mrk.json", content))
    assert found.frame["list"].tolist() == ["1", "1", "late", "late"]
    assert "Line" in found.notes[0]
    assert "same place" in found.notes[1]


def test_slicer_finds_what_it_needs_in_the_file(tmp_path: Path) -> None:
    """The keys that its schema and its reader ask for, in their types."""
    frame = pd.DataFrame({"x": [1.5], "y": [-2.0], "z": [3.0], "alpha": [0.93], "size_vox": [12]})
    export_points(tmp_path / "F.mrk.json", frame)
    content = json.loads((tmp_path / "F.mrk.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r".*markups-schema-v1\.[0-9]+\.[0-9]+\.json#*", content["@schema"])
    (markup,) = content["markups"]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    (point,) = markup["controlPoints"]
    assert point["position"] == [-1.5, 2.0, 3.0]
    assert point["description"] == "alpha=0.93; size_vox=12"
    assert point["positionStatus"] == "defined"
    assert len(point["orientation"]) == 9
    assert all(isinstance(point[key], str) for key in ("id", "label", "description", "associatedNodeID"))
    assert all(isinstance(point[key], bool) for key in ("selected", "locked", "visibility"))


def test_fcsv_has_its_fields_where_every_slicer_looks_for_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.5], "y": [-2.0], "z": [3.0], "label": ['a, "b"'], "alpha": [0.93]})
    export_points(tmp_path / "F.fcsv", frame)
    lines = (tmp_path / "F.fcsv").read_bytes().decode().splitlines()
    assert lines[0].startswith("# Markups fiducial file version = ")
    assert lines[1] == "# CoordinateSystem = 0"  # old versions take the name of a system for 0
    fields = next(csv.reader(lines[3:]))
    assert (fields[1:4], fields[11:]) == (["1.5", "-2.0", "3.0"], ['a, "b"', "alpha=0.93", ""])
    with pytest.raises(ValueError, match="1000 bytes"):
        export_points(tmp_path / "F.fcsv", frame.assign(text="ä" * 500))
    assert (tmp_path / "F.fcsv").read_bytes().decode().splitlines() == lines


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), min_size=1, max_size=4))
@example({"a;b=%3D": "1; c=2%25"})
@example({"description": "a=b"})
@example({"description": "nothing special"})
def test_columns_survive_in_a_description(columns: dict[str, str]) -> None:
    clean = {" ".join(name.split()) or "n": " ".join(text.split()) or "t" for name, text in columns.items()}
    clean = {name: text for name, text in clean.items() if name not in ("x", "y", "z", "label", "list")}
    clean = {name: text for name, text in clean.items() if (name + text).isprintable()}
    assert unpack(pack(clean)) == clean


def test_description_of_another_form_is_kept_as_it_is() -> None:
    for text in ("big one", "a=b=c", "a=1; b", "x=3", "a=1; a=2", "=1"):
        assert unpack(text) == {"description": text}


# --- tables


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y,z\n1,2,3\n"),
        ("a.CSV", "\ufeffX, Y ,Z\r\n1,2,3\r\n\r\n"),
        ("a.csv", "name,z,y,x\nfirst,3,2,1\n"),  # by name, whatever the order
        ("a.csv", ",x_mm,y_mm,z_mm,i,j,k\n0,1,2,3,7,8,9\n"),
        ("a.csv", "label,r,a,s,defined,selected,visible,locked,description\nF-1,1,2,3,1,1,1,0,\n"),
        ("a.csv", "label,l,p,s,defined,selected,visible,locked,description\nF-1,-1,-2,3,1,1,1,0,\n"),
        ("a_points.tsv", "x\ty\tz\n1e0\t+2.0\t 3\n"),
        ("a ö (1).tsv", "y\tz\tx\talpha\n2\t3\t1\tn/a\n"),
    ],
)
def test_columns_say_what_coordinates_are(tmp_path: Path, name: str, content: str) -> None:
    assert _xyz(import_points(_write(tmp_path, name, content)).frame).tolist() == [[1, 2, 3]]


def test_table_of_slicer_keeps_what_is_no_flag(tmp_path: Path) -> None:
    text = "label,l,p,s,defined,selected,visible,locked,description\nA,1,2,3,1,1,1,0,alpha=0.5\nB,0,0,0,0,1,1,0,\n"
    found = import_points(_write(tmp_path, "a.csv", text))
    assert found.frame.to_dict(orient="list") == {"x": [-1.0], "y": [-2.0], "z": [3.0], "label": ["A"], "alpha": [0.5]}
    assert found.notes == ("left out 1 without a position: line 3",)


def test_mm_go_before_voxels_and_units_turn_that_round(tmp_path: Path) -> None:
    image = _saved(tmp_path / "image.nii", OBLIQUE)
    path = tmp_path / "lesions.tsv"
    write_points(path, pd.DataFrame({"x": [37.0], "y": [-32.0], "z": [22.0], "i": [1.0], "j": [2.0], "k": [3.0]}))
    assert _xyz(import_points(path).frame).tolist() == [[37.0, -32.0, 22.0]]
    assert "i" in import_points(path).frame
    voxel = import_points(path, units="ras-voxel", image=image).frame
    assert _xyz(voxel) == pytest.approx(image.to_mm([[1, 2, 3]]))
    assert list(voxel.columns) == ["x", "y", "z"]


def test_voxel_indices_are_asked_about_where_they_could_mean_two_grids(tmp_path: Path) -> None:
    flipped = _saved(tmp_path / "image.nii", np.diag([-1.0, 1, 2, 1]))
    path = _write(tmp_path, "a.csv", "i,j,k\n1,2,3\n")
    assert "stored as LAS" in _complaint(path, image=flipped)
    file, turned = (import_points(path, image=flipped, units=units).frame for units in ("voxel", "ras-voxel"))
    assert _xyz(file).tolist() == [[-1, 2, 6]]
    assert _xyz(turned).tolist() == [[-4, 2, 6]]
    straight = _saved(tmp_path / "straight.nii", np.diag([1.0, 1, 2, 1]))
    assert _xyz(import_points(path, image=straight).frame).tolist() == [[1, 2, 6]]
    assert "resampled" in _complaint(path, image=resample(straight, 1.0))


def test_xyz_can_be_said_to_be_voxels(tmp_path: Path) -> None:
    image = _saved(tmp_path / "image.nii", np.diag([1.0, 1, 2, 1]))
    path = _write(tmp_path, "a.csv", "x,y,z\n1,2,3\n")
    found = import_points(path, image=image)
    assert "units voxel" in found.notes[0]  # whole numbers from 0: mm, but worth a word
    assert import_points(path, image=image, units="mm").notes == ()
    assert _xyz(import_points(path, image=image, units="voxel").frame).tolist() == [[1, 2, 6]]
    assert "image" in _complaint(path, units="voxel")


# --- napari


def test_napari_counts_voxels_of_the_file_in_the_order_shown(tmp_path: Path) -> None:
    image = _saved(tmp_path / "image.nii", OBLIQUE)
    path = _write(tmp_path, "Points.csv", "index,axis-0,axis-1,axis-2,alpha\n0.0,1.0,2.0,3.5,0.5\n")
    expected = nib.affines.apply_affine(image.native.affine, [1.0, 2.0, 3.5])  # type: ignore[union-attr]  # a file always has it
    found = import_points(path, image=image, units="voxel")
    assert _xyz(found.frame)[0] == pytest.approx(expected)
    assert found.frame["alpha"].tolist() == [0.5]
    assert "index" not in found.frame
    path = _write(tmp_path, "Points.csv", "index,axis-0,axis-1,axis-2\n0,3.5,2.0,1.0\n")
    assert _xyz(import_points(path, image=image, units="voxel", axes="kji").frame)[0] == pytest.approx(expected)
    spacing = nib.affines.voxel_sizes(image.native.affine)  # type: ignore[union-attr]  # a file always has it
    shown = ",".join(map(repr, (spacing * [1.0, 2.0, 3.5]).tolist()))
    path = _write(tmp_path, "Points.csv", f"index,axis-0,axis-1,axis-2\n0,{shown}\n")
    assert _xyz(import_points(path, image=image, units="mm").frame)[0] == pytest.approx(expected)
    assert "image" in _complaint(path)


def test_napari_opens_what_is_written(tmp_path: Path) -> None:
    """Read the file as napari's own reader does."""
    image = _saved(tmp_path / "image.nii", OBLIQUE)
    world = image.to_mm([[1, 2, 3], [4, 1, 5.5]])
    frame = pd.DataFrame(world, columns=["x", "y", "z"]).assign(alpha=[0.5, np.nan], name=["a, b", "ö"])
    notes = export_points(tmp_path / "f_napari.csv", frame, image=image)
    assert "LAS" in notes[0]
    with (tmp_path / "f_napari.csv").open(newline="", encoding="utf-8") as stream:
        names, *rows = list(csv.reader(stream, delimiter=","))
    assert names == ["index", "axis-0", "axis-1", "axis-2", "alpha", "name"]
    table = np.array(rows)
    data = table[:, [name.startswith("axis-") for name in names]].astype(float)
    back = nib.affines.apply_affine(image.native.affine, data)  # type: ignore[union-attr]  # a file always has it
    assert back == pytest.approx(world, abs=1e-9)
    assert table[:, 4].astype(float) == pytest.approx([0.5, np.nan], nan_ok=True)
    assert table[:, 5].tolist() == ["a, b", "ö"]
    with pytest.raises(ValueError, match="axis-0"):
        export_points(tmp_path / "g_napari.csv", frame.rename(columns={"alpha": "axis-0"}), image=image)
    with pytest.raises(DataError, match="image"):
        export_points(tmp_path / "g_napari.csv", frame)
    assert "without points" in export_points(tmp_path / "g_napari.csv", frame[:0], image=image)[1]


# --- label images


@pytest.mark.parametrize("name", ["labels.nii", "labels.nii.gz"])
def test_label_image_gives_a_point_and_a_size_for_each_component(tmp_path: Path, name: str) -> None:
    labels = np.zeros((9, 8, 7), dtype=np.uint16)
    labels[1:3, 1, 1], labels[3, 1, 1] = 5, 7  # two lesions that touch
    labels[6, 6, 2:5], labels[8, 0, 0] = 5, 5
    nib.Nifti1Image(labels, OBLIQUE).to_filename(tmp_path / name)
    found = import_points(tmp_path / name)
    got = {
        (int(row.label), int(row.size_vox), tuple(np.round([row.x, row.y, row.z], 6)))
        for row in found.frame.itertuples()
    }
    places = {(5, 2): [1.5, 1, 1], (5, 3): [6, 6, 3], (5, 1): [8, 0, 0], (7, 1): [3, 1, 1]}
    stored = nib.load(tmp_path / name).affine
    assert got == {(*k, tuple(np.round(nib.affines.apply_affine(stored, v), 6))) for k, v in places.items()}
    assert found.rows[0].startswith("label 5")


def test_binary_mask_gives_the_points_that_labels_py_gives(tmp_path: Path, rng: np.random.Generator) -> None:
    mask = rng.random((12, 10, 8)) > 0.9
    nib.Nifti1Image(mask.astype(np.uint8), np.diag([0.7, 0.7, 3, 1])).to_filename(tmp_path / "mask.nii")
    volume = read_volume(tmp_path / "mask.nii")
    lesions = points_from_mask(volume.data)
    frame = import_points(tmp_path / "mask.nii").frame
    assert _xyz(frame) == pytest.approx(volume.to_mm(lesions.points))
    assert frame["size_vox"].tolist() == lesions.sizes.tolist()


def test_image_that_is_no_label_image_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    for name, data, wrong in (
        ("mri.nii", rng.integers(1, 30_000, (40, 40, 20), dtype=np.int16), "looks like an image"),
        ("noise.nii", rng.integers(0, 200, (40, 40, 20), dtype=np.int16), "looks like an image"),
        ("float.nii", rng.random((4, 4, 4), dtype=np.float32), "int32 voxels are wanted"),
        ("negative.nii", np.full((4, 4, 4), -1, dtype=np.int16), "label -1"),
        ("full.nii", np.ones((4, 4, 4), dtype=np.uint8), "every voxel"),
        ("four.nii", np.zeros((4, 4, 4, 2), dtype=np.uint8), "4 axes"),
    ):
        nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / name)
        assert wrong in _complaint(tmp_path / name)
    nib.Nifti1Image(np.zeros((4, 4, 4), dtype=np.uint8), np.eye(4)).to_filename(tmp_path / "empty.nii")
    assert len(import_points(tmp_path / "empty.nii").frame) == 0


# --- round trips

_FORMATS = [
    ("p.mrk.json", None, "ijk"),
    ("p.fcsv", None, "ijk"),
    ("p_points.tsv", None, "ijk"),
    ("p.csv", None, "ijk"),
    *(("p.csv", units, "ijk") for units in ("voxel", "ras-voxel")),
    *(("p.tsv", units, "ijk") for units in ("mm", "voxel", "ras-voxel")),
    *(("p_napari.csv", units, axes) for units in ("mm", "voxel", "ras-voxel") for axes in ("ijk", "kji", "jki")),
]


@st.composite
def _affines(draw: st.DrawFn) -> np.ndarray:
    """Oblique, flipped, permuted, anisotropic, sometimes sheared."""
    q = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    w, x, y, z = q / np.linalg.norm(q) if np.linalg.norm(q) > 1e-2 else (1.0, 0.0, 0.0, 0.0)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    order = draw(st.permutations(range(3)))
    flips = np.array(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))
    spacing = np.array(draw(st.tuples(*[st.floats(0.3, 6.0)] * 3)))
    shear = np.eye(3)
    shear[0, 1] = draw(st.sampled_from([0.0, 0.0, 0.2]))
    affine = np.eye(4)
    affine[:3, :3] = rotation[:, order] @ shear * (flips * spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


_POINTS = st.lists(st.tuples(*[st.floats(0, size - 1) for size in SHAPE]), max_size=6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(affine=_affines(), index=_POINTS, pick=st.integers(0, len(_FORMATS) - 1))
def test_points_come_back_from_every_format(
    tmp_path: Path, affine: np.ndarray, index: list[tuple[float, ...]], pick: int
) -> None:
    image = _saved(tmp_path / "image.nii", affine)
    assert image.native is not None
    world = nib.affines.apply_affine(image.native.affine, np.reshape(index, (-1, 3)))
    frame = pd.DataFrame(world, columns=["x", "y", "z"])
    frame["alpha"] = np.linspace(0.1, 1, len(frame))
    frame["size_vox"] = np.arange(3, 3 + len(frame))
    frame["rater"] = pd.Series(['A, B; "c" = 100 %'] * len(frame), dtype="str")
    for name, units, axes in (_FORMATS[pick], _FORMATS[(pick * 7 + 3) % len(_FORMATS)]):
        export_points(tmp_path / name, frame, image=image, units=units, axes=axes)
        back = import_points(tmp_path / name, image=image, units=units, axes=axes).frame
        assert np.abs(_xyz(back) - world).max(initial=0) < 1e-4
        if len(frame):
            assert back[["alpha", "size_vox", "rater"]].to_dict() == frame[["alpha", "size_vox", "rater"]].to_dict()


@pytest.mark.parametrize("affine", [OBLIQUE, np.diag([-0.5, 0.5, 5.0, 1.0]), np.diag([-1.0, -1.0, 2.0, 1.0])])
def test_points_go_round_through_all_programs(tmp_path: Path, affine: np.ndarray) -> None:
    image = _saved(tmp_path / "image.nii", affine)
    world = image.to_mm([[0.25, 1, 2], [5.4, 4.4, 6.4], [-0.5, -0.5, -0.5]])
    write_points(tmp_path / "start.tsv", pd.DataFrame(world, columns=["x", "y", "z"]).assign(alpha=[0.1, 0.2, 1 / 3]))
    names = ["start.tsv", "a.mrk.json", "b_napari.csv", "c.fcsv", "d.csv", "e.json", "end_points.tsv"]
    for source, target in itertools.pairwise(names):
        units = "voxel" if "napari" in source else None
        convert_points(tmp_path / source, tmp_path / target, image=tmp_path / "image.nii", units=units)
    end = read_points(tmp_path / "end_points.tsv")
    assert np.abs(_xyz(end) - world).max() < 1e-4
    assert end["alpha"].tolist() == [0.1, 0.2, 1 / 3]


# --- what cannot be used

_DEEP = '{"markups": ' + "[" * 200_000
_BAD = [
    # tables
    ("a.csv", "", "is empty"),
    ("a.csv", "\n\n", "is empty"),
    ("a.tsv", "x\ty\n1\t2\n", "lacks the column z"),
    ("a.csv", "name,size\na,3\n", "has no coordinates (its columns: name, size)"),
    ("a.csv", "1,2,3\n4,5,6\n", "has no header line"),
    ("a.csv", "x,y,z\n1,2,\n", "line 2 has '' as z"),
    ("a.csv", "x,y,z\n1,2,nan\n", "line 2 has 'nan' as z"),
    ("a.csv", "x,y,z\n1,2,3\n1,inf,3\n", "line 3 has 'inf' as y"),
    ("a.csv", "x,y,z\n1,2,1_000\n", "line 2 has '1_000' as z"),
    ("a.csv", "x,y,z\none,2,3\n", "line 2 has 'one' as x"),
    ("a.csv", 'x,y,z\n"1,5","2,5","3,5"\n', "line 2 has '1,5' as x; a finite number (decimal point)"),
    ("a.csv", "x,y,z\n1,5,2,5,3,5\n", "line 2 has 6 entries; 3 are wanted"),
    ("a.csv", "x;y;z\n1;2;3\n", "is separated by semicolons"),
    ("a.csv", "x\ty\tz\n1\t2\t3\n", "is separated by tabs"),
    ("a.tsv", "x,y,z\n1,2,3\n", "is separated by commas"),
    ("a.tsv", "x y z\n1 2 3\n", "is separated by spaces"),
    ("a.csv", "x,y,z,X\n1,2,3,4\n", "names the column 'x' twice"),
    ("a.csv", "x,y,z,a,a\n1,2,3,4,5\n", "names the column 'a' twice"),
    ("a.csv", "x,y,z,x_mm,y_mm,z_mm\n1,2,3,1,2,3\n", "gives the coordinates twice"),
    ("a.csv", "r,a,s,l,p\n1,2,3,-1,-2\n", "gives the coordinates twice"),
    ("a.csv", "x,y,z\n1,2,3\n1,2", "line 3 has 2 entries"),
    ("a.csv", 'x,y,z\n1,2,"3', "cannot be read"),
    ("a.csv", ",".join(f"c{i}" for i in range(5000)) + "\n", "has 5000 columns"),
    ("a.csv", "x,y,z\n1,2," + "3" * 200_000, "cannot be read"),
    ("a.csv", "x,y,z\n" + "1,2,3\n" * 100_001, "more than 100000 points"),
    ("a.csv", "x,y,z\n1,2,3\n".encode("utf-16"), "is UTF-16"),
    ("a.tsv", "x\ty\tz\tö\n".encode("latin-1"), "line 1 is not UTF-8"),
    ("a.csv", "x,y,z\n1,2,3\n1e300,2,3\n", "line 3 is at 1e+300, 2, 3 mm"),
    ("a.csv", FCSV, "name that ends in .fcsv"),
    ("a.csv", MARKUPS, "name that ends in .mrk.json"),
    ("a.csv", "i,j,k\n1,2,3\n", "the image that they count in is wanted"),
    # napari
    ("a.csv", "index,axis-0,axis-1\n0,1,2\n", "lacks the column axis-2"),
    ("a.csv", "index,axis-0,axis-1,axis-2,axis-3\n0,1,2,3,4\n", "more than three axes"),
    ("a.csv", "index,shape-type,vertex-index,axis-0,axis-1,axis-2\n0,line,0,1,2,3\n", "shapes layer"),
    # fcsv
    ("a.fcsv", "", "is empty"),
    ("a.fcsv", "x,y,z\n1,2,3\n", "does not say its coordinate system"),
    ("a.fcsv", FCSV.replace("LPS", "XYZ"), "coordinate system 'XYZ'"),
    ("a.fcsv", FCSV.replace("id,x,y,z", "id,x,y,u"), "lacks z"),
    ("a.fcsv", FCSV.replace("2.0", "two"), "line 4 has 'two' as y"),
    ("a.fcsv", FCSV.replace("2.0", ""), "line 4 has '' as y"),
    ("a.fcsv", FCSV[:-30], "line 5 has 12 entries"),
    ("a.fcsv", FCSV + "2,1.0", "line 6 has 2 entries"),
    ("a.fcsv", FCSV.encode("utf-16"), "is UTF-16"),
    # markups
    ("a.mrk.json", "", "is empty"),
    ("a.mrk.json", json.dumps(MARKUPS)[:-40], "is not JSON, or is truncated"),
    ("a.mrk.json", {"Name": "cohort"}, "JSON of another kind, without markups (it has: Name)"),
    ("a.mrk.json", [1, 2], "JSON of another kind"),
    ("a.mrk.json", {"markups": {}}, "JSON of another kind"),
    ("a.mrk.json", {"markups": []}, "no markup"),
    ("a.mrk.json", {"markups": [3]}, "only nothing"),
    ("a.mrk.json", _markups(type="Line"), "only Line"),
    ("a.mrk.json", _markups(controlPoints={"a": 1}), "no list of objects"),
    ("a.mrk.json", _markups(controlPoints=[[1, 2, 3]]), "no list of objects"),
    ("a.mrk.json", _markups(coordinateSystem="scanner"), "coordinate system 'scanner'"),
    ("a.mrk.json", _markups(coordinateSystem=None), "coordinate system None"),
    ("a.mrk.json", _markups(coordinateUnits="um"), "in 'um'"),
    ("a.mrk.json", _markups(coordinateUnits=["m", "UCUM", "metre"]), "in ['m'"),
    ("a.mrk.json", {"markups": [*MARKUPS["markups"], *_markups(coordinateSystem="RAS")["markups"]]}, "different"),  # type: ignore[misc]  # values of many types
    ("a.mrk.json", _point(position=[1, 2]), "control point 2 has the position [1, 2]"),
    ("a.mrk.json", _point(position=[1, 2, 3, 4]), "control point 2 has the position"),
    ("a.mrk.json", _point(position=[1, 2, "3"]), "control point 2 has the position"),
    ("a.mrk.json", _point(position=[1, 2, None]), "control point 2 has the position"),
    ("a.mrk.json", _point(position=[1, 2, True]), "control point 2 has the position"),
    ("a.mrk.json", _point(position={"x": 1}), "control point 2 has the position"),
    ("a.mrk.json", _point(position=[1, 2, float("nan")]), "control point 2 has the position"),
    ("a.mrk.json", _point(position=[1, 2, 10**400]), "control point 2 has the position"),
    ("a.mrk.json", '{"markups": [' + "9" * 5000 + "]}", "too many digits"),
    ("a.mrk.json", _DEEP, "nested too deeply"),
    ("a.mrk.json", json.dumps(MARKUPS).encode("utf-16"), "is UTF-16"),
    ("a.mrk.json", b" " * (2**24 + 1), "is larger than 16 MiB"),
    # others
    ("a.txt", "x,y,z\n", "an ending that no point file has"),
    ("a.nii", "x,y,z\n", "is not a NIfTI image"),
]


@pytest.mark.parametrize(("name", "content", "wrong"), _BAD, ids=[f"{i}-{bad[0]}" for i, bad in enumerate(_BAD)])
def test_file_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: Any, wrong: str) -> None:
    assert wrong in _complaint(_write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.fcsv", "a.mrk.json", "a.nii", "a.nii.gz", "a.txt"])
def test_missing_file_folder_and_no_permission(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in _complaint(tmp_path / name)
    (tmp_path / name).mkdir()
    assert "is a folder" in _complaint(tmp_path / name)
    if name == "a.txt":
        return

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = _write(tmp_path, f"b{name}", "content")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read (Permission denied)" in _complaint(path)


def test_point_outside_the_image_is_named_by_its_row(tmp_path: Path) -> None:
    image = _saved(tmp_path / "image.nii", np.array([[2.0, 0, 0, 100], [0, 2, 0, 50], [0, 0, 2, -80], [0, 0, 0, 1]]))
    first, last = image.to_mm([[-0.5, -0.5, -0.5], [5.5, 4.5, 6.5]])
    edge = pd.DataFrame([first, last], columns=["x", "y", "z"])
    export_points(tmp_path / "edge.csv", edge)
    assert len(import_points(tmp_path / "edge.csv", image=image).frame) == 2
    export_points(tmp_path / "out.csv", edge.assign(z=edge["z"] + 0.1))
    assert _complaint(tmp_path / "out.csv", image=image).startswith(
        "line 3 is outside the image, at 111, 59, -66.9 mm;"
    )
    export_points(tmp_path / "out.mrk.json", edge.assign(z=edge["z"] + 0.1))
    assert "control point 2 ('L-2') is outside" in _complaint(tmp_path / "out.mrk.json", image=image)
    for name, wrong, columns in (
        ("lps.csv", "may be in LPS", edge * [-1, -1, 1]),
        ("swapped.csv", "in the order z y x all are inside", edge[["z", "y", "x"]].set_axis(["x", "y", "z"], axis=1)),
        ("voxel.csv", "as voxel indices all are inside", pd.DataFrame([[1, 2, 3]], columns=["x", "y", "z"])),
        ("far.csv", "(and 1 more); points of this image are wanted", edge + 1000),
    ):
        export_points(tmp_path / name, columns)
        assert wrong in _complaint(tmp_path / name, image=image)


def test_same_point_twice_is_kept_and_said(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.csv", "x,y,z\n1.5,2,3\n4,5,6\n1.5,2,3.0002\n1.5,2,3\n")
    found = import_points(path)
    assert len(found.frame) == 4
    assert found.duplicates == ((0, 2), (0, 3))
    assert found.notes == ("line 2 and line 4 are the same place (and 1 more such pairs); both are kept",)


def test_no_points_is_fine_in_every_format(tmp_path: Path) -> None:
    image = _saved(tmp_path / "image.nii", OBLIQUE)
    empty = pd.DataFrame({"x": [], "y": [], "z": []}, dtype=float)
    for name in ("a.mrk.json", "a.fcsv", "a.csv", "a.tsv", "a_napari.csv"):
        export_points(tmp_path / name, empty, image=image)
        found = import_points(tmp_path / name, image=image).frame
        assert (len(found), list(found.columns)) == (0, ["x", "y", "z"])
        assert found["x"].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "frame", "options", "wrong"),
    [
        ("a.mrk.json", pd.DataFrame({"x": [1.0], "y": [2.0]}), {}, "each column once, are wanted"),
        ("a.csv", pd.DataFrame([[1.0, 2, 3, 4]], columns=[*"xyzx"]), {}, "each column once, are wanted"),
        ("a.fcsv", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [np.nan]}), {}, "holds nan as z in row 0"),
        ("a.csv", pd.DataFrame({"x": ["one"], "y": [2.0], "z": [1.0]}), {}, "holds one as x in row 0"),
        ("a.csv", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0], "t": ["a\nb"]}), {}, "line break"),
        ("a.fcsv", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0]}), {"units": "voxel"}, "takes mm only"),
        ("a.csv", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0]}), {"units": "inch"}, "'inch'"),
        ("a.csv", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0]}), {"axes": "iij"}, "'iij'"),
        ("a.csv", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0]}), {"units": "voxel"}, "image"),
        ("a.nii", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0]}), {}, "no name that points are written to"),
        ("a.txt", pd.DataFrame({"x": [1.0], "y": [2.0], "z": [1.0]}), {}, "no name that points are written to"),
    ],
)
def test_points_that_cannot_be_written_leave_the_old_file(
    tmp_path: Path, name: str, frame: pd.DataFrame, options: dict[str, Any], wrong: str
) -> None:
    _write(tmp_path, name, "old")
    with pytest.raises(ValueError, match=re.escape(wrong)):
        export_points(tmp_path / name, frame, **options)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"x": [1.0], "y": [2.0], "z": [3.0]})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    for name in ("a.mrk.json", "a.fcsv", "a.csv", "a.tsv"):
        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(DataError, match="No space left"):
            export_points(tmp_path / name, frame)
        assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 4


def test_wild_files_are_not_expanded_in_memory(tmp_path: Path) -> None:
    """Many columns in descriptions, and many points at one place, cost what their file costs."""
    many = [{"position": [1, 2, 3], "description": f"k{i}=1"} for i in range(3000)]
    path = _write(tmp_path, "a.mrk.json", _markups(controlPoints=many))
    tracemalloc.start()
    found = import_points(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(found.frame.columns) == ["x", "y", "z", "description"]
    assert found.frame["description"].iloc[7] == "k7=1"
    assert len(found.duplicates) == 2999
    assert peak < 30e6


# --- fuzzing

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["LPS", "RAS", "1", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["markups", "type", "coordinateSystem", "controlPoints", "position", "positionStatus", "label", "name"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_GRAMMAR = st.lists(
    st.sampled_from(
        [*",;\t\n\r\"'#= x", "x,y,z", "i,j,k", "axis-", "1.5", "nan", "-", "\ufeff", "ö", "# CoordinateSystem ="]
    ),
    max_size=30,
).map("".join)


def _is_read_or_refused(path: Path, **options: Any) -> None:
    try:
        found = import_points(path, **options)
    except DataError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 (any of many inputs may pass)
        return
    assert np.isfinite(_xyz(found.frame)).all()
    assert len(found.rows) == len(found.frame)
    for name in ("back.mrk.json", "back.fcsv", "back.csv", "back.tsv"):
        back = path.with_name(name)
        try:
            export_points(back, found.frame)
        except ValueError:
            assert name == "back.fcsv"  # a long line
            continue
        assert _xyz(import_points(back).frame).tolist() == _xyz(found.frame).tolist()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_JSON, point=_JSON)
def test_any_json_is_read_or_refused(tmp_path: Path, content: Any, point: Any) -> None:
    for tree in (
        content,
        {"markups": [content]},
        _markups(controlPoints=[point]),
        _point(position=point, label=content),
    ):
        _is_read_or_refused(_write(tmp_path, "a.mrk.json", tree))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_GRAMMAR | st.text(max_size=40), name=st.sampled_from(["a.csv", "a.tsv", "a.fcsv", "a.mrk.json"]))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str, name: str) -> None:
    for content in (text, "x,y,z," + text, FCSV + text, "index,axis-0,axis-1,axis-2\n" + text):
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        _is_read_or_refused(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    name, whole = data.draw(
        st.sampled_from(
            [
                ("a.mrk.json", json.dumps(MARKUPS)),
                ("a.fcsv", FCSV),
                ("a.csv", "x,y,z,alpha,label\n1,2,3,0.5,a\n4,5,6,0.25,\n"),
            ]
        )
    )
    content = bytearray(whole.encode())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)
    ):
        content[place] = byte
    kept = data.draw(st.integers(0, len(content)))
    _is_read_or_refused(_write(tmp_path, name, bytes(content[: max(kept, len(content) // 2)])))


# --- command line


def test_command_converts_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write(tmp_path, "F ö.mrk.json", _point(position="", positionStatus="undefined"))
    assert main(["points", "convert", str(source), str(tmp_path / "out" / "a_points.tsv")]) == 0
    said = capsys.readouterr()
    assert "1 points, from 3D Slicer markups" in said.out
    assert "left out 1 without a position" in said.err
    assert _xyz(read_points(tmp_path / "out" / "a_points.tsv")).tolist() == [[-1, -2, 3]]


def test_command_takes_image_and_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _saved(tmp_path / "image.nii", np.diag([-1.0, 1, 2, 1]))
    source = _write(tmp_path, "a.csv", "i,j,k\n1,2,3\n")
    arguments = ["points", "convert", str(source), str(tmp_path / "b.tsv"), "--image", str(tmp_path / "image.nii")]
    assert main(arguments) == 2
    assert not (tmp_path / "b.tsv").exists()
    assert main([*arguments, "--units", "voxel"]) == 0
    assert _xyz(read_points(tmp_path / "b.tsv")).tolist() == [[-1, 2, 6]]
    assert main([*arguments, "--units", "ras-voxel"]) == 0
    assert _xyz(read_points(tmp_path / "b.tsv")).tolist() == [[-4, 2, 6]]
    arguments[2:4] = [str(tmp_path / "b.tsv"), str(tmp_path / "c_napari.csv")]
    assert main([*arguments, "--out-units", "ras-voxel", "--axes", "kji"]) == 0
    assert (tmp_path / "c_napari.csv").read_text().splitlines()[1] == "0,3.0,2.0,1.0"
    assert "Traceback" not in capsys.readouterr().err
