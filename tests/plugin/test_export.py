"""Files that leave the plugin: read back, and held against what was shown."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from plugin_cases import TRUTH

from lesionkit.io import DataError, import_points, read_points
from napari_lesionkit import export


def test_lesions_are_written_in_mm_the_highest_first(session, volume, tmp_path):
    session.explorer.set_threshold(0.6)
    assert export.write_lesions(tmp_path / "lesions", session.explorer, session.placement) == 2
    frame = read_points(tmp_path / "lesions.tsv")
    np.testing.assert_allclose(frame["alpha"], sorted(session.explorer.kept.alpha, reverse=True))
    expected = volume.to_mm(session.explorer.kept.mu[np.argsort(-session.explorer.kept.alpha)])
    np.testing.assert_allclose(frame[["x", "y", "z"]], expected)
    with pytest.raises(DataError, match=r"a name that ends in \.tsv is wanted"):
        export.write_lesions(tmp_path / "lesions.csv", session.explorer, session.placement)


@pytest.mark.parametrize("name", ["points.tsv", "points.csv", "points.mrk.json", "points.fcsv", "points_napari.csv"])
def test_true_points_come_back_in_every_format(session, tmp_path, name):
    session.explorer.set_truth([*TRUTH, (1.25, 2.5, 3.75)])
    before = session.explorer.truth.copy()
    assert export.write_truth(tmp_path / name, session.explorer, session.placement) == 3
    session.explorer.set_truth(None)
    found = export.read_truth(tmp_path / name, session.explorer, session.placement)
    np.testing.assert_allclose(found, before, atol=1e-3)
    assert len(import_points(tmp_path / name, image=session.placement.volume(session.source.data)).frame) == 3


def test_points_outside_and_unknown_endings_are_refused(session, tmp_path):
    (tmp_path / "far.tsv").write_text("x\ty\tz\n900\t0\t0\n")
    with pytest.raises(DataError, match=r"far\.tsv"):
        export.read_truth(tmp_path / "far.tsv", session.explorer, session.placement)
    with pytest.raises(DataError, match="no name that points are written to"):
        export.write_truth(tmp_path / "points.doc", session.explorer, session.placement)


def run(path):
    """Run a notebook's code in a fresh process and return what the last explorer knows."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    code += (
        "\nimport json\nprint('RESULT', json.dumps([explorer.status, explorer.threshold, explorer.kept.mu.tolist(), "
        "explorer.position, explorer.score.tp, float(explorer.residual.sum()), len(figure.data)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.split("RESULT", 1)[1])


def test_a_notebook_reproduces_the_view(session, tmp_path):
    explorer = session.explorer
    explorer.set_sigma(1.3)
    explorer.set_mode("paper")
    explorer.set_threshold(0.35)
    explorer.go_to(4)
    written = export.write_notebook(tmp_path / "view.ipynb", explorer, session.placement)
    assert written == tmp_path / "view_heatmap.nii.gz"
    status, threshold, mu, position, tp, total, traces = run(tmp_path / "view.ipynb")
    assert (status, threshold, tp) == (explorer.status, 0.35, explorer.score.tp)
    np.testing.assert_allclose(mu, explorer.kept.mu, atol=1e-4)
    np.testing.assert_allclose(position, explorer.position, atol=1e-3)
    assert total == pytest.approx(float(explorer.residual.sum()), abs=1e-4)
    assert traces == 1 + sum(
        len(explorer.rings(2, through=(0, 0, round(explorer.position[2])), of=of)) for of in ("lesions", "fit", "truth")
    )


def test_a_notebook_reads_the_file_that_is_shown(session, volume, tmp_path):
    from lesionkit.io import write_volume

    write_volume(tmp_path / "map.nii.gz", volume)
    source = str(tmp_path / "map.nii.gz")
    assert str(export.write_notebook(tmp_path / "view", session.explorer, session.placement, source=source)) == source
    assert (tmp_path / "view.ipynb").is_file()
    assert not (tmp_path / "view_heatmap.nii.gz").exists()
    assert source in (tmp_path / "view.ipynb").read_text(encoding="utf-8")


def test_two_dimensional_maps_are_refused(model, tmp_path):
    from napari_lesionkit.session import Session

    session = Session(model, inline_s=np.inf)
    session.start(model.add_image(np.zeros((8, 8), np.float32), name="flat heatmap"))
    for write in (export.write_lesions, export.write_truth, export.write_notebook):
        with pytest.raises(ValueError, match="2-D"):
            write(tmp_path / "x.tsv", session.explorer, session.placement)
    assert list(tmp_path.iterdir()) == []
    session.close()


def test_the_gif_shows_every_phase_and_everything_is_as_before(widget, tmp_path):
    widget.explorer.go_to(3)
    position = widget.explorer.position
    widget.save_gif(str(tmp_path / "steps.gif"))
    assert widget.error.text() == ""
    with Image.open(tmp_path / "steps.gif") as movie:
        assert movie.n_frames == widget.explorer.trajectory.last + 2
        frames = []
        for i in range(movie.n_frames):
            movie.seek(i)
            frames.append(np.asarray(movie.convert("RGB")).astype(int))
    assert all(np.abs(a - b).max() > 50 for a, b in pairwise(frames))
    assert (widget.explorer.cursor, widget.explorer.position) == (3, position)
    assert not widget.viewer.canvas.overlays["text"].visible


def test_the_dock_writes_and_reads_files(widget, tmp_path):
    widget.save_lesions(str(tmp_path / "a.tsv"))
    widget.save_truth(str(tmp_path / "b.tsv"))
    widget.save_notebook(str(tmp_path / "c.ipynb"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.tsv", "b.tsv", "c.ipynb", "c_heatmap.nii.gz"}
    widget.explorer.set_truth(None)
    widget.load_truth(str(tmp_path / "b.tsv"))
    np.testing.assert_allclose(widget.explorer.truth, TRUTH, atol=1e-3)
    widget.load_truth(str(tmp_path / "none.tsv"))
    assert "none.tsv" in widget.error.text()
    widget.session.stop()
    widget.save_lesions(str(tmp_path / "d.tsv"))
    assert "start on a heatmap first" in widget.error.text()
