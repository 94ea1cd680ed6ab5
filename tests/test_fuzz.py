"""The readers under damaged files: a few now, a million by hand (`tests/fuzz/readers.py`), and what once broke one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", Path(__file__).parent / "fuzz" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


readers, trees, headers = map(_loaded, ("readers", "trees", "headers"))
CASES = sorted(readers.CASES.iterdir())


@pytest.mark.parametrize("name", readers.READERS)
def test_seeds_are_read(name: str, tmp_path: Path):
    """Otherwise everything would be refused, and damage would prove nothing."""
    path = tmp_path / f"file{readers.READERS[name].ending}"
    messages = [readers.attack(name, seed, path) for seed in readers.READERS[name].seeds()]
    assert messages[0] is None
    assert messages.count(None) >= len(messages) / 2


@pytest.mark.parametrize("name", readers.READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name: str, tmp_path: Path):
    path = tmp_path / f"file{readers.READERS[name].ending}"

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def every_file(data: st.DataObject) -> None:
        readers.attack(name, data.draw(strategy), path)

    strategy = readers.damaged(name)
    every_file()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_what_once_broke_a_reader_is_refused_in_one_line(case: Path, tmp_path: Path):
    name = case.name.partition("-")[0]
    path = tmp_path / f"file{readers.READERS[name].ending}"
    assert readers.attack(name, case.read_bytes(), path) is not None


def test_a_case_of_a_random_folder_is_of_one_person_and_one_visit():
    found = [trees.mixed(seed) for seed in range(40)]
    assert not [what for what, _ in found if what]
    assert sum(n for _, n in found) > 40


def test_a_random_header_is_read_as_nibabel_reads_it_or_refused(tmp_path: Path):
    outcomes = [headers.displaced(np.random.default_rng(seed), tmp_path / "x.nii") for seed in range(150)]
    assert not [what for what in outcomes if what not in ("read", "refused")]
    assert outcomes.count("read") > 50
