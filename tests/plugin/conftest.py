"""A virtual screen, one napari viewer for all tests, and the plugin's dock in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from types import SimpleNamespace

# napari restores window sizes from its settings: tests have settings of their own.
os.environ["NAPARI_CONFIG"] = os.path.join(tempfile.mkdtemp(prefix="napari-"), "settings.yaml")

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari's own
    import napari
    from napari.components import ViewerModel

from plugin_cases import SIGMA, TRUTH, add_heatmap, volume_of

from lesionkit.detection import FitConfig
from lesionkit.explorer import Explorer
from lesionkit.volume import Volume
from napari_lesionkit.layers import LayerView
from napari_lesionkit.placement import Placement
from napari_lesionkit.session import Session

THIRD_PARTY = (
    "ignore::DeprecationWarning", "ignore::PendingDeprecationWarning", "ignore::FutureWarning",
    "ignore:.*json_encoders", "ignore::ResourceWarning", "ignore:Refreshing plugin",
)  # fmt: skip
"""Warnings of napari and what it builds on. Those of the plugin and of lesionkit stay errors."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/plugin" in item.nodeid or item.path.parent.name == "plugin":
            for text in (*THIRD_PARTY, "error:::lesionkit", "error:::napari_lesionkit"):
                item.add_marker(pytest.mark.filterwarnings(text))


@pytest.fixture(scope="session")
def qapp_args():
    """Give Qt an Xvfb of its own, so that no window pops up and pixels are the same everywhere."""
    if shutil.which("Xvfb") is None:
        if not os.environ.get("DISPLAY"):
            pytest.fail("these tests draw: they need Xvfb (apt-get install xvfb) or a screen; `make test` sees to it")
        return ["lesionkit"]
    read, write = os.pipe()
    # it ends with its last client, which is this process
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1920x1200x24", "-nolisten", "tcp", "-terminate"]
    subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    os.environ["DISPLAY"] = f":{number}"
    os.environ.pop("WAYLAND_DISPLAY", None)
    os.environ.pop("QT_QPA_PLATFORM", None)
    return ["lesionkit"]


@pytest.fixture
def volume() -> Volume:
    return volume_of()


# ---------------------------------------------------------------------- without Qt
@pytest.fixture
def model():
    return ViewerModel()


@pytest.fixture
def session(model, volume):
    """A session on a viewer without a window, standing at the start."""
    session = Session(model, inline_s=np.inf)
    session.start(add_heatmap(model, volume))
    yield session
    session.close()


@pytest.fixture
def view(model, volume):
    """Layers alone, without a session."""
    layer = add_heatmap(model, volume)
    explorer = Explorer(volume, config=FitConfig(sigma=SIGMA), truth=TRUTH, inline_s=np.inf)
    view = LayerView(model, explorer, Placement.of_layer(layer))
    yield view
    view.close()


# ---------------------------------------------------------------------- with a window
@pytest.fixture(scope="session")
def window(qapp):
    """One viewer for all: opening one takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        viewer = napari.Viewer(show=True)
        viewer.window._qt_window.resize(1500, 1000)
        for _ in range(10):
            qapp.processEvents()
    yield viewer
    viewer.close()


@pytest.fixture
def viewer(window, qapp):
    """The viewer, empty before and after."""
    yield window
    for name in list(window.window.dock_widgets):
        if "lesionkit" in name:
            window.window.remove_dock_widget(window.window.dock_widgets[name])
    window.layers.clear()
    window.dims.ndisplay = 2
    window.dims.order = tuple(range(window.dims.ndim))
    window.theme = "dark"
    for _ in range(5):
        qapp.processEvents()


@pytest.fixture
def dock(viewer):
    """The plugin's dock as napari opens it: the dock widget and what is in it."""
    outer, inner = viewer.window.add_plugin_dock_widget("lesionkit", "Step through lesion detection")
    inner.explorer._refitter.inline_s = np.inf  # results do not depend on how busy the machine is
    return SimpleNamespace(outer=outer, widget=inner)


@pytest.fixture
def widget(viewer, dock, volume, qapp):
    """The dock, started on a heatmap, standing at the start."""
    layer = add_heatmap(viewer, volume)
    dock.widget.begin(layer)
    viewer.reset_view()
    for _ in range(5):
        qapp.processEvents()
    assert dock.widget.explorer.error == ""
    return dock.widget
