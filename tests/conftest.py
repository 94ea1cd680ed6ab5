"""Limits and fixtures that all tests share."""

from __future__ import annotations

import os

# Before NumPy and torch load: several threads on tiny arrays only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# One Qt binding for napari and for pytest-qt: `QT_API=pyside6 make test` takes the other one.
os.environ["PYTEST_QT_API"] = os.environ.setdefault("QT_API", "pyqt6")

import numpy as np  # noqa: E402 (after the thread limits)
import pytest  # noqa: E402 (after the thread limits)
from hypothesis import settings  # noqa: E402 (after the thread limits)

# Time limits fail on busy machines, not on wrong code.
settings.register_profile("lesionkit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lesionkit")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20220918)
