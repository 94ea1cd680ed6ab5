"""The manifest: everything it names exists, and napari finds it."""

from __future__ import annotations

import warnings
from importlib import metadata

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

from lesionkit import __version__


@pytest.fixture(scope="module")
def manifest():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PluginManifest.from_distribution("lesionkit")


def test_everything_it_names_can_be_imported(manifest):
    manifest.validate_imports()
    assert manifest.package_version == __version__
    assert "Framework :: napari" in metadata.metadata("lesionkit").get_all("Classifier")


def test_every_command_is_used_and_every_use_is_a_command(manifest):
    found = manifest.contributions
    commands = {command.id for command in found.commands}
    used = {use.command for use in (*found.widgets, *found.readers, *found.sample_data)}
    used |= {item.command for items in found.menus.values() for item in items}
    assert used == commands
    assert all(name.startswith("lesionkit.") for name in commands)


def test_menus_are_open_to_plugins(manifest):
    from napari._app_model.constants import MenuId

    assert set(manifest.contributions.menus) <= {item.value for item in MenuId.contributables()}


def test_napari_opens_nifti_with_it(viewer, tmp_path):
    from plugin_cases import SPACING, volume_of

    from lesionkit.io import write_volume

    write_volume(tmp_path / "some_heatmap.nii.gz", volume_of())
    (layer,) = viewer.open(tmp_path / "some_heatmap.nii.gz", plugin="lesionkit")
    assert layer.name == "some_heatmap"
    assert tuple(layer.scale) == SPACING[::-1]
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3


def test_a_file_that_is_no_image_is_refused_in_one_line(viewer, tmp_path):
    (tmp_path / "odd.nii").write_bytes(b"nothing")
    with pytest.raises(Exception, match=r"odd\.nii: is not a NIfTI image"):
        viewer.open(tmp_path / "odd.nii", plugin="lesionkit")


@pytest.mark.parametrize("key", ["gad", "flair", "pair", "triangle", "beside_giant", "hot_voxel"])
def test_samples_open_and_can_be_stepped_through(viewer, dock, key):
    assert key in {
        sample.key for sample in PluginManager.instance().get_manifest("lesionkit").contributions.sample_data
    }
    viewer.open_sample("lesionkit", key)
    layer = dock.widget.heatmap.layer
    assert layer is not None  # the heatmap is found by itself
    dock.widget.begin()
    explorer = dock.widget.explorer
    explorer.last()
    assert explorer.error == ""
    assert explorer.score.tp >= 1
    assert np.isfinite(explorer.residual).all()
    images = [one for one in viewer.layers if one.name.startswith("sub-01") and one is not layer]
    assert all(np.allclose(one.extent.world, layer.extent.world) for one in images)
