"""The explorer as one HTML file that needs neither kernel nor network.

In: an :class:`~lesionkit.explorer.Explorer`. Out: a page with the volumes, and searches done beforehand for some values
of sigma in both modes, with the verdicts at every threshold at which they change. It is moved, stepped, played and
thresholded like the widget.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lesionkit import __version__
from lesionkit.explorer import Explorer, Trajectory
from lesionkit.io import atomic_path
from lesionkit.matching import match_points
from lesionkit.widgets.packing import COMMANDS, pack_case, pack_frame, pack_trajectory, static

MODES: tuple[Literal["joint", "paper"], ...] = ("joint", "paper")
FACTORS = (0.7, 0.85, 1.0, 1.2, 1.5)
"""Values of sigma that are recorded by default, as multiples of the explorer's."""


def export_page(
    explorer: Explorer,
    path: str | Path,
    *,
    title: str = "lesionkit",
    sigmas: Sequence[float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Write the page.

    Parameters
    ----------
    explorer : Explorer
        What is shown; the page opens where it stands. Its sigma must be one number.
    path : path
        The HTML file.
    title : str
        Heading, plain text.
    sigmas : sequence of float, optional
        Values of sigma to record, in voxels; the explorer's own is added. By default five around it.
    progress : callable, optional
        Called with the share that is done.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    ValueError
        If sigma is not one number, or a value is not positive.
    """
    own = explorer.config.sigma
    if not isinstance(own, float):
        raise ValueError(f"sigma must be one number for a page, got {own!r}")
    values = sorted(
        {round(float(s), 3) for s in (*([f * own for f in FACTORS] if sigmas is None else sigmas),)} | {own}
    )
    if values[0] <= 0:
        raise ValueError(f"sigmas must be positive, in voxels, got {values[0]}")
    explorer.wait()
    searches = []
    for number, sigma in enumerate(values):
        for mode in MODES:
            config = replace(explorer.config, sigma=sigma, mode=mode)
            known = explorer.detections.config == config
            trajectory = explorer.trajectory if known else Trajectory.of(explorer.heatmap, config)
            searches.append(_record(explorer, trajectory, sigma, mode))
        if progress is not None:
            progress((number + 1) / len(values))
    scene, image, heat = pack_case(explorer, title, commands=COMMANDS - {"set_window"})
    frame = pack_frame(explorer)
    data = {
        "state": {
            "scene": scene | {"sigmas": values},
            "frame": frame | {"ack": 0, "playing": False, "busy": False},
            "view": {"overlay": "heatmap", "opacity": 0.75, "radiological": True},
        },
        "image": base64.b64encode(image).decode(),
        "heat": base64.b64encode(heat).decode(),
        "searches": searches,
        "truth": frame["truth"],
        "limits": [n - 1 for n in (*explorer.heatmap.shape, 1)][:3],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "css": static("style.css"),
        "js": static("drawing.js", "explorer.js", "recorded.js"),
        "sigmas": ", ".join(f"{s:g}" for s in values),
        "version": __version__,
        "data": base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode(),
    }
    # One pass: what is put in is never searched for placeholders.
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], static("page.html"))
    target = Path(path)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _record(explorer: Explorer, trajectory: Trajectory, sigma: float, mode: str) -> dict[str, Any]:
    """Note the steps of a search, and at each moment the verdicts for every number of lesions that are kept."""
    return {
        "sigma": sigma,
        "mode": mode,
        "trajectory": pack_trajectory(trajectory),
        "moments": [_verdicts(explorer, moment.mu, moment.alpha) for moment in trajectory.moments],
    }


def _verdicts(explorer: Explorer, mu: np.ndarray, alpha: np.ndarray) -> dict[str, list[str]]:
    """Verdicts (t f k b, one letter a lesion) and found true points (1 0), for 0, 1, 2, ... lesions that are kept."""
    order = np.argsort(-alpha, kind="stable")
    truth = explorer.truth
    verdicts, hits = [], []
    for n in range(len(alpha) + 1):
        letters = np.full(len(alpha), "b")
        kept = np.sort(order[:n])
        letters[kept] = "k" if truth is None else "f"
        if truth is not None:
            matching = match_points(
                mu[kept], truth, max_distance=explorer.max_distance, spacing=explorer.spacing, gate=explorer.gate
            )
            letters[kept[matching.matched_predicted]] = "t"
            hits.append("".join("1" if hit else "0" for hit in matching.matched_true.tolist()))
        verdicts.append("".join(letters.tolist()))
    return {"verdicts": verdicts, "hits": hits}
