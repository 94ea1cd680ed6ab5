"""Cohorts: in one process, in several, on a Dask cluster."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from rendered import matched, render

from lesionkit.detection import Detections, FailedCase, detect_many


def load_map():
    return render([(8, 8, 8)], (16, 16, 16))


def load_nothing():
    raise OSError("no such map")


def check(results):
    """Two maps are done, and the one between them is a failed case."""
    first, failed, last = results
    assert isinstance(first, Detections)
    assert isinstance(last, Detections)
    assert isinstance(failed, FailedCase)
    assert "no such map" in failed.error
    assert failed.number == 1
    matched(first, [(8, 8, 8)], 1.0)
    np.testing.assert_allclose(first.replay(0).residual, 0.0, atol=1e-6)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_failing_map_does_not_stop_the_others(n_jobs, capsys):
    check(detect_many([load_map, load_nothing, load_map()], n_jobs=n_jobs, progress=n_jobs == 1))


def test_the_same_call_runs_on_a_dask_cluster():
    from distributed import Client, LocalCluster

    maps = [load_map, load_nothing, load_map()]
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
        with Client(cluster) as client:
            check(detect_many(maps, scheduler=client, progress=False))
        check(detect_many(maps, scheduler=cluster.scheduler_address, progress=False))


def test_importing_the_detector_loads_nothing_heavy():
    heavy = "('torch', 'scipy', 'pandas', 'joblib', 'plotly', 'rich', 'jaxtyping')"
    code = f"import sys, lesionkit.detection; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
