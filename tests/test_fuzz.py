"""The readers under damaged files: a few now, a million by hand (`tests/fuzz/readers.py`), and what once broke one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_spec = importlib.util.spec_from_file_location("fuzz_readers", Path(__file__).parent / "fuzz" / "readers.py")
assert _spec is not None
assert _spec.loader is not None
readers = importlib.util.module_from_spec(_spec)
sys.modules["fuzz_readers"] = readers
_spec.loader.exec_module(readers)

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
