"""From slider to redraw: how long a person waits in JupyterLab, on the dashboard and in an exported page.

`python -m benchmarks widgets`; needs Chromium. "Redrawn" is the time from a slider's event to the first new picture of
the planes; "answered" that to the kernel's answer drawn, with scores and table.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.timing import Row
from lesionkit.detection import FitConfig
from lesionkit.simulate.scenes import crowded_field
from lesionkit.volume import Volume
from lesionkit.widgets.cases import ShownCase
from lesionkit.widgets.dashboard import keep_cases, served
from lesionkit.widgets.page import export_page

SHAPE = (64, 192, 192)
"""The paper's volume."""
N_PEAKS = 20
TARGETS_MS = {"JupyterLab": 50.0, "dashboard": 20.0, "page": 20.0}
"""Median, slider to redraw."""
MEASURE = """async ([name, values]) => {
    const root = document.querySelector('.lk'), slider = document.querySelector(`input[data-name=${name}]`);
    const taken = [], answered = [], frame = () => new Promise(requestAnimationFrame);
    for (const value of values) {
        const drawn = +root.dataset.drawn, ack = +root.dataset.ack, start = performance.now();
        slider.value = value;
        slider.dispatchEvent(new Event('input', { bubbles: true }));
        do await frame(); while (+root.dataset.drawn === drawn);
        taken.push(performance.now() - start);
        while (+root.dataset.ack <= ack && performance.now() - start < 5000) await frame();
        answered.push(performance.now() - start);
        await frame();
    }
    return [taken, answered];
}"""


def rows(*, quick: bool) -> Iterator[Row]:
    """Measure the slice slider, the step slider and the threshold on each host."""
    rng = np.random.default_rng(0)
    scene = crowded_field(N_PEAKS, SHAPE, sigma=1.5, noise=0.01, rng=rng)
    image = Volume((100 + 20 * rng.standard_normal(SHAPE)).astype(np.float32), np.diag([3.0, 1.0, 1.0, 1.0]))
    heatmap = image.with_data(scene.heatmap)
    case = ShownCase(title="crowd", heatmap=heatmap, image=image, truth=scene.points, config=FitConfig(sigma=1.5))
    n = 15 if quick else 60
    moves = {
        "slice": ("axial", [10 + i for i in range(n)]),
        "step": ("cursor", [i % 50 for i in range(1, n + 1)]),
        "threshold": ("threshold", [round(0.1 + 0.01 * (i % 60), 2) for i in range(1, n + 1)]),
    }
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for host, opened in (("JupyterLab", _lab), ("dashboard", _dashboard), ("page", _page)):
            with opened(browser, case, Path(folder)) as page:
                page.wait_for_selector(".lk[data-drawn]", timeout=240_000)
                page.wait_for_timeout(2000)
                for what, (name, values) in moves.items():
                    taken, answered = page.evaluate(MEASURE, [name, values])
                    median, slow = np.percentile(taken, [50, 95])
                    whole = float(np.median(answered))
                    yield Row(
                        f"{host}, {what}: redrawn, {' x '.join(map(str, SHAPE))}",
                        f"{TARGETS_MS[host]:g} ms",
                        f"median {median:.0f} ms, p95 {slow:.0f} ms; answered: {whole:.0f} ms",
                        bool(median <= TARGETS_MS[host]),
                    )


@contextmanager
def _page(browser: Browser, case: ShownCase, folder: Path) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1440, "height": 1000}, bypass_csp=True)
    page.goto(export_page(case.explorer(), folder / "page.html", sigmas=(1.5,)).as_uri())
    yield page
    page.close()


@contextmanager
def _dashboard(browser: Browser, case: ShownCase, folder: Path) -> Iterator[Page]:
    with served([case], patience_s=240) as server:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(server.url, timeout=240_000)
        yield page
        page.close()


@contextmanager
def _lab(browser: Browser, case: ShownCase, folder: Path) -> Iterator[Page]:
    """Open a notebook in a JupyterLab of its own, and run it."""
    home = folder / "lab"
    (home / "data").mkdir(parents=True)
    keep_cases([case], home / "data")
    source = (
        "from lesionkit.widgets import ExplorerWidget\nfrom lesionkit.widgets.dashboard import _kept\n"
        f"case = next(read for _, read in _kept({str(home / 'data')!r}))()\nExplorerWidget(case.explorer())"
    )
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": [cell]}
    (home / "one.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR",
             "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
    port = 18888
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={home}"]  # fmt: skip
    environment = {**os.environ, **{name: str(home / name.lower()) for name in names}, "JUPYTER_TOKEN": "bench"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=bench", timeout=2)
                break
            except OSError:
                time.sleep(0.2)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(240_000)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/one.ipynb?token=bench&reset")
        page.wait_for_function("document.querySelector('#jp-main-statusbar')?.innerText.includes('Idle')")
        page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        yield page
        page.close()
    finally:
        server.terminate()
        server.wait(30)
