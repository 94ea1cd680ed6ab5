"""The explorer as one HTML file that needs neither kernel nor network: what `detect` writes, and `export`.

In: an :class:`~lesionkit.explorer.Explorer`. Out: a page with the volumes and searches done beforehand, for some values
of sigma in both modes. It is moved, stepped, played and thresholded like the widget.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lesionkit import __version__
from lesionkit.explorer import Explorer, Trajectory
from lesionkit.io import atomic_path
from lesionkit.widgets.packing import COMMANDS, PARTS, SCORES, VIEW, pack_case, pack_frame, pack_trajectory, static

MODES: tuple[Literal["joint", "paper"], ...] = ("joint", "paper")
FACTORS = (0.7, 0.85, 1.0, 1.2, 1.5)
"""Values of sigma that are recorded by default, as multiples of the explorer's."""


def export_page(
    explorer: Explorer,
    path: str | Path,
    *,
    title: str = "lesionkit",
    sigmas: Sequence[float] | None = None,
    facts: Mapping[str, str] | None = None,
    sizes: Sequence[int | None] | None = None,
    score: Literal["alpha", "score"] = "alpha",
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Write the page.

    Parameters
    ----------
    explorer : Explorer
        What is shown; the page opens where it stands.
    path : path
        The HTML file.
    title : str
        Heading, plain text.
    sigmas : sequence of float, optional
        Values of sigma to record, in voxels; the explorer's own is added. By default five around it; where it has one
        for each axis, only those.
    facts : mapping of str to str, optional
        What the reader should know about the case, in order.
    sizes : sequence of int or None, optional
        Voxels of each true lesion, where they are known.
    score : {"alpha", "score"}
        What the number of a lesion is: ``score`` where the lesions are connected components.
    progress : callable, optional
        Called with the share that is done.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    ValueError
        If a value of sigma is not positive, or some are given where there is one for each axis.
    """
    own = explorer.config.sigma
    if isinstance(own, float):
        wanted = [factor * own for factor in FACTORS] if sigmas is None else sigmas
        values = sorted({round(float(s), 3) for s in wanted} | {own})
        if values[0] <= 0:
            raise ValueError(f"sigmas must be positive, in voxels, got {values[0]}")
    elif sigmas is not None:
        raise ValueError(f"sigmas go with a sigma that is one number, got {own!r}")
    else:
        values = []
    explorer.wait()
    configs = [replace(explorer.config, sigma=sigma) for sigma in values] or [explorer.config]
    searches = []
    for number, config in enumerate(configs):
        for mode in MODES if score == "alpha" else (config.mode,):
            wished = replace(config, mode=mode)
            known = explorer.detections.config == wished
            trajectory = explorer.trajectory if known else Trajectory.of(explorer.heatmap, wished)
            searches.append({"sigma": _plain(wished.sigma), "mode": mode, "trajectory": pack_trajectory(trajectory)})
        if progress is not None:
            progress((number + 1) / len(configs))
    scene, image, heat = pack_case(explorer, title, commands=COMMANDS - {"set_window"}, small=True)
    scene |= {"sigmas": values or [_plain(own)], "score": score, "score_help": SCORES[score]}
    if score == "score":
        scene["unit"] = ""
    frame = pack_frame(explorer) | {"ack": 0, "playing": False, "busy": False, "truth_sizes": sizes}
    data = {
        "state": {"scene": scene, "frame": frame, "view": dict(VIEW)},
        "searches": searches,
    }
    told = dict(facts or {})
    if scene["stride"] > 1:
        told["pictures"] = f"one voxel in {scene['stride']} along each axis"
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "lead": html.escape(_lead(explorer)),
        "facts": "".join(f"<div><dt>{html.escape(n)}</dt><dd>{html.escape(t)}</dd></div>" for n, t in told.items()),
        "css": static("style.css"),
        "js": static(*PARTS, "recorded.js"),
        "version": __version__,
        "data": _base64(gzip.compress(text.encode(), compresslevel=6, mtime=0)),
        "image": _base64(image),
        "heat": _base64(heat),
    }
    # One pass: what is put in is never searched for placeholders.
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], static("page.html"))
    target = Path(path)
    with atomic_path(target) as temporary:
        temporary.write_bytes(page.encode("utf-8", "replace"))  # names need not be Unicode
    return target


def _lead(explorer: Explorer) -> str:
    truth = explorer.truth
    if truth is None:
        return "Lesions detected in the predicted map. The truth is not known here."
    known = f"against {len(truth)} known ones (hit within {explorer.max_distance:g} mm)"
    return f"Lesions detected in the predicted map, {known}."


def _plain(sigma: Any) -> Any:
    return list(sigma) if isinstance(sigma, tuple) else sigma


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
