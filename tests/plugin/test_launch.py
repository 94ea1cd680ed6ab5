"""`lesionkit napari`: a window of its own, opened on files, ready to step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from plugin_cases import POINTS, volume_of

from lesionkit.checkpoints import read_card
from lesionkit.io import DataError, write_volume
from napari_lesionkit.launch import ROOM, launch


@pytest.fixture
def opened(qapp):
    """Launch, and close what it has opened."""
    viewers = []

    def run(*arguments, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # napari's own
            viewer, widget = launch(*arguments, **options)
        viewers.append(viewer)
        return viewer, widget

    yield run
    for viewer in viewers:
        viewer.close()
    qapp.processEvents()


def test_files_are_opened_ready_to_step(opened, tmp_path):
    volume = volume_of()
    write_volume(tmp_path / "FLAIR.nii.gz", volume, native=False)
    write_volume(tmp_path / "found.nii.gz", volume, native=False)
    rows = "\n".join("\t".join(f"{x:.4f}" for x in point) for point in volume.to_mm(POINTS[:2]))
    (tmp_path / "points.tsv").write_text(f"x\ty\tz\n{rows}\n")
    viewer, widget = opened(
        [tmp_path / "FLAIR.nii.gz"],
        heatmap=tmp_path / "found.nii.gz",
        checkpoint="gad",
        truth=tmp_path / "points.tsv",
    )
    explorer, card = widget.explorer, read_card("gad")
    assert explorer.error == ""
    assert explorer.steps
    assert (explorer.config.sigma, explorer.threshold) == (card.sigma, card.threshold)
    np.testing.assert_allclose(explorer.truth, POINTS[:2], atol=1e-3)
    assert [layer.name for layer in viewer.layers][:2] == ["FLAIR", "found"]
    window = widget.window()
    screen = window.screen().availableSize()
    assert window.width() >= min(ROOM[0], screen.width())
    assert window.height() >= min(ROOM[1], screen.height())


def test_a_file_that_cannot_be_used_opens_no_window(opened, tmp_path):
    with pytest.raises(DataError, match="nothing_here"):
        opened([tmp_path / "nothing_here.nii.gz"])
