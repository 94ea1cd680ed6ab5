"""The explorer as a page of its own: Voila serves it on this machine only, behind a token.

`serve` runs in the command line: it puts the user's cases into a private folder and starts the server, which reads
nothing but its one notebook. `dashboard` runs in the kernel and builds the view.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Dropdown, HBox, Layout, ToggleButtons, VBox

from lesionkit.detection import FitConfig
from lesionkit.io import DataError, read_points, read_volume, write_points, write_volume
from lesionkit.widgets.cases import SAMPLES, SCENES, ShownCase, sample_case
from lesionkit.widgets.explorer import ExplorerWidget, compare_sigmas

HOST = "127.0.0.1"
VIEWS = ("explore", "compare two sigmas")
EXTENSIONS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8", "anywidget"]
"""All that the page needs of JupyterLab's extensions; others that are installed may want more than Voila has."""
WIDER = 1.5
"""The second sigma of the comparison, as a multiple of the first."""


# ---------------------------------------------------------------------- in the kernel
def dashboard(folder: str | Path | None = None) -> VBox:
    """Build the page.

    Parameters
    ----------
    folder : path, optional
        Cases that :func:`keep_cases` has written; the samples come after them.
    """
    cases: dict[str, Callable[[], ShownCase]] = dict(_kept(folder) if folder is not None else [])
    for name, title in {**SAMPLES, **SCENES}.items():
        cases[f"sample: {title}"] = lambda name=name: sample_case(name)  # type: ignore[misc]  # the default binds it
    first = next(iter(cases))
    shown = cases[first]()
    explorer = shown.explorer()
    view = ExplorerWidget(explorer, title=shown.title)
    case_box = Dropdown(options=list(cases), value=first, description="case", layout=Layout(width="430px"))
    view_box = ToggleButtons(options=VIEWS, value=VIEWS[0])
    message = HTML()
    place = VBox([view])

    def show(_: object = None) -> None:
        for old in place.children:
            if old is not view:
                for widget in old.children:
                    widget.close()
                old.close()
        if view_box.value == VIEWS[0]:
            place.children = (view,)
            return
        sigma = explorer.label_sigma[0]
        place.children = (compare_sigmas(explorer, round(sigma, 2), round(WIDER * sigma, 2)),)

    def open_case(change: Mapping[str, Any]) -> None:
        try:
            message.value = ""
            chosen = cases[change["new"]]()
            view.title = chosen.title
            explorer.load(chosen.heatmap, image=chosen.image, truth=chosen.truth, config=chosen.config)
            explorer.set_threshold(chosen.threshold)
            explorer.wait()
            show()
        except Exception as error:  # nobody sees an exception in a browser
            message.value = f"<p role='alert' style='color:#c8402a'>{_escaped(str(error))}</p>"

    case_box.observe(open_case, "value")
    view_box.observe(show, "value")
    return VBox([HBox([case_box, view_box]), message, place])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# ---------------------------------------------------------------------- cases between the two
def keep_cases(cases: Sequence[ShownCase], folder: Path) -> None:
    """Write cases into a folder, for the kernel to read."""
    listed = []
    for number, case in enumerate(cases):
        write_volume(folder / f"{number}_heatmap.nii.gz", case.heatmap, native=False)
        if case.image is not None:
            write_volume(folder / f"{number}_image.nii.gz", case.image, native=False)
        if case.truth is not None:
            import pandas as pd

            points = pd.DataFrame(case.heatmap.to_mm(case.truth), columns=["x", "y", "z"])
            write_points(folder / f"{number}_points.tsv", points)
        listed.append({"title": case.title, "threshold": case.threshold, "config": asdict(case.config)})
    (folder / "cases.json").write_text(json.dumps(listed), encoding="utf-8")


def _kept(folder: str | Path) -> Iterator[tuple[str, Callable[[], ShownCase]]]:
    """Give name and reader of each case that was kept."""
    place = Path(folder)
    for number, facts in enumerate(json.loads((place / "cases.json").read_text(encoding="utf-8"))):

        def read(number: int = number, facts: Mapping[str, Any] = facts) -> ShownCase:
            heatmap = read_volume(place / f"{number}_heatmap.nii.gz")
            image, points = place / f"{number}_image.nii.gz", place / f"{number}_points.tsv"
            config: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in facts["config"].items()
            }
            return ShownCase(
                title=facts["title"],
                heatmap=heatmap,
                image=read_volume(image) if image.is_file() else None,
                truth=heatmap.to_voxel(read_points(points)[["x", "y", "z"]].to_numpy(dtype=float))
                if points.is_file()
                else None,
                config=FitConfig(**config),
                threshold=facts["threshold"],
            )

        yield str(facts["title"]), read


# ---------------------------------------------------------------------- in the command line
@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server."""

    url: str
    """Where the page is, the token included."""
    process: subprocess.Popen[bytes]


@contextmanager
def served(cases: Sequence[ShownCase] = (), *, port: int | None = None, patience_s: float = 120.0) -> Iterator[Served]:
    """Serve the page for as long as the context lasts; then server, kernels and files are gone.

    Parameters
    ----------
    cases : sequence of ShownCase
        The user's cases, before the samples.
    port : int, optional
        A free one by default.
    patience_s : float
        How long the server may take to answer, in seconds.

    Raises
    ------
    DataError
        If the server does not start.
    """
    token = secrets.token_urlsafe(24)
    port = port or _free_port()
    with tempfile.TemporaryDirectory(prefix="lesionkit_") as private:
        data, pages = Path(private) / "data", Path(private) / "pages"
        data.mkdir()
        pages.mkdir()
        keep_cases(cases, data)
        notebook = pages / "lesionkit.ipynb"
        notebook.write_text(json.dumps(_notebook(data)), encoding="utf-8")
        command = [
            sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--port={port}", "--port_retries=0",
            f"--Voila.ip={HOST}", "--theme=light", "--VoilaConfiguration.file_allowlist=[]",
            "--VoilaConfiguration.allow_template_override=NO", "--VoilaConfiguration.allow_theme_override=YES",
            "--VoilaConfiguration.show_tracebacks=False", "--Voila.auto_token=True",
            "--MappingKernelManager.cull_idle_timeout=1800",
            "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e9",
            f"--VoilaConfiguration.extension_allowlist={EXTENSIONS}",
            "--template=lesionkit",
        ]  # fmt: skip
        # The token goes by the environment, where other users of the machine cannot read it.
        environment = {**os.environ, "JUPYTER_TOKEN": token, "JUPYTER_PATH": _jupyter_path()}
        log = Path(private) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        try:
            _await(process, log, f"http://{HOST}:{port}/voila/static/", patience_s)
            yield Served(url=f"http://{HOST}:{port}/?token={token}", process=process)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve(cases: Sequence[ShownCase] = (), *, port: int | None = None, browser: bool = True) -> Iterator[str]:
    """Serve until interrupted; gives the address once it is there."""
    with served(cases, port=port) as server:
        if browser:
            webbrowser.open(server.url)
        yield server.url
        server.process.wait()
        raise DataError(f"{server.url.split('?')[0]}: the server has stopped")


def _notebook(data: Path) -> dict[str, Any]:
    source = f"from lesionkit.widgets.dashboard import dashboard\n\ndashboard({str(data)!r})"
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "dashboard",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "title": "lesionkit"},
        "cells": [cell | {"source": source}],
    }


def _jupyter_path() -> str:
    """Where Jupyter looks for files: also where our template of the page is, which fetches nothing from elsewhere."""
    own = str(resources.files("lesionkit.widgets") / "static" / "jupyter")
    return os.pathsep.join(filter(None, [own, os.environ.get("JUPYTER_PATH")]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], log: Path, url: str, patience_s: float) -> None:
    """Wait for any answer at all."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise DataError(f"{url}: the server did not start: {said[-1] if said else 'no message'}")
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise DataError(f"{url}: the server did not answer within {patience_s:g} s")
