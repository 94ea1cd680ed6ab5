"""What an import may bring along; each in a fresh process, since imports cannot be undone."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lesionkit
from lesionkit.checkpoints import load_checkpoint, read_card

HEAVY = (
    "torch",
    "lightning",
    "plotly",
    "pandas",
    "nibabel",
    "scipy.optimize",
    "matplotlib",
    "qtpy",
    "napari",
    "ipywidgets",
)


def _loaded(statement: str) -> set[str]:
    """Modules of `HEAVY` that are there after a statement."""
    code = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded("import lesionkit; dir(lesionkit)") == set()


@pytest.mark.parametrize("module", ["detection", "labels", "volume"])
def test_numeric_stages_load_nothing_heavy(module: str) -> None:
    assert _loaded(f"import lesionkit.{module}") == set()


def test_reading_images_needs_no_network_library() -> None:
    assert _loaded("import lesionkit.io") & {"torch", "lightning", "plotly", "matplotlib"} == set()


def test_a_card_can_be_read_without_torch() -> None:
    assert "torch" not in _loaded("from lesionkit.checkpoints import read_card; read_card('gad')")
    assert read_card("gad") == load_checkpoint("gad").card


@pytest.mark.parametrize("name", [name for name in lesionkit.__all__ if name != "__version__"])
def test_public_name_is_there(name: str) -> None:
    value = getattr(lesionkit, name)
    assert value.__module__.startswith("lesionkit.")
    assert name in dir(lesionkit)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="attribute nothing"):
        lesionkit.nothing  # type: ignore[attr-defined]  # noqa: B018 (that it is not there is the test)
