"""Every notebook runs; students' copies stop at a check cell; what is committed is what the sources make."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks  # noqa: E402 (found by the path above)

SOURCES = sorted((ROOT / "notebooks" / "source").glob("*.py"))
NAMES = [source.stem for source in SOURCES]


def run(notebook: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    monkeypatch.setenv("LESIONKIT_FAST", "1")
    monkeypatch.setenv("LESIONKIT_STATIC", "0")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    resources = {"metadata": {"path": str(folder)}}
    # asyncio and sockets of the kernel's client are closed when they are collected
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "solution" / f"{name}.ipynb", 4)
    ran = run(notebook, monkeypatch, tmp_path)
    shown = [o["data"] for cell in ran.cells for o in cell.get("outputs", []) if "data" in o]
    widgets = [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
    assert all("image/png" in data for data in widgets), "a widget has no picture for where no script runs"
    assert widgets or any("application/vnd.plotly.v1+json" in data for data in shown)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["00_start_here", "01_labels", "03_detection", "04_calibration"])
def test_students_copy_stops_at_its_check(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "student" / f"{name}.ipynb", 4)
    with pytest.raises(CellExecutionError):
        run(notebook, monkeypatch, tmp_path)
    failed = [cell for cell in notebook.cells if any(o.output_type == "error" for o in cell.get("outputs", []))]
    assert [cell.metadata.get("tags") for cell in failed] == [["check"]]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_building_again_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LESIONKIT_DATA", "LESIONKIT_FAST", "LESIONKIT_STATIC", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # the build sets its own, which this takes back
    source = ROOT / "notebooks" / "source" / "03_detection.py"  # widgets, lessons and charts
    build_notebooks.build(source, run=True, folder=tmp_path, pictures=tmp_path)
    assert build_notebooks.compared(source, run=True, folder=tmp_path) == []
    path = tmp_path / "student" / f"{source.stem}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("by_hand", "by_head"), encoding="utf-8")
    assert build_notebooks.compared(source, run=False, folder=tmp_path) == [
        f"student/{path.name} differs in cells 5, 6"
    ]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_committed_copies_are_those_of_the_source(source: Path) -> None:
    for kind in ("student", "solution"):
        made = build_notebooks.text_of(build_notebooks.read(source, kind))
        assert (ROOT / "notebooks" / kind / f"{source.stem}.ipynb").read_text(encoding="utf-8") == made
    reader = nbformat.read(ROOT / "notebooks" / f"{source.stem}.ipynb", 4)
    expected = build_notebooks.read(source, "reader")
    assert [(cell.id, cell.source) for cell in reader.cells] == [(cell.id, cell.source) for cell in expected.cells]


@pytest.mark.parametrize("name", NAMES)
def test_copy_to_read_is_small_and_has_figures(name: str) -> None:
    path = ROOT / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size <= 1_000_000
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    main = build_notebooks.pictures_of(notebook)[build_notebooks.MAIN[name]]
    assert (build_notebooks.PICTURES / f"{name}.png").read_bytes() == main
    assert not [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_exercise_is_taken_out_of_the_students_copy_only(source: Path) -> None:
    student, solution = (build_notebooks.read(source, kind) for kind in ("student", "solution"))
    changed = [(a, b) for a, b in zip(student.cells, solution.cells, strict=True) if a.source != b.source]
    exercises = [a for a, _ in changed if "exercise" in a.metadata.get("tags", [])]
    assert exercises
    assert all("# your turn" in cell.source for cell in exercises)
    assert not any("# solution" in cell.source for _, cell in changed)
    assert len(changed) == len(exercises) + 1  # and the links at the top
