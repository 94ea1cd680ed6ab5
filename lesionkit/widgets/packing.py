"""What a browser needs of an explorer: plain values and bytes; nothing is drawn and nothing is kept.

In: an :class:`~lesionkit.explorer.Explorer`. Out: the case (volumes and grid), the trajectory (what each step changes)
and the frame (where it stands, and the truth). Numbers are those that JSON has: no NaN.

Maps in 2-D get a third axis of length 1, so that the browser knows one kind of volume only.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8

from lesionkit.explorer import Explorer, Trajectory

MOST_VOXELS = 6_000_000
"""Larger volumes are thinned out for the browser; positions and fits stay those of the whole volume."""

COMMANDS = frozenset(
    {
        "go_to", "jump_to_next", "move_to", "set_follow", "set_mode", "set_sigma", "set_speed", "set_threshold",
        "set_window", "show_answer", "tick", "toggle_playing",
    }
)  # fmt: skip
"""What a view may ask of an explorer."""
PARTS = ("drawing.js", "replay.js", "store.js", "planes.js", "charts.js", "table.js", "explorer.js")
"""The front end of the explorer, in this order."""
VIEW = {"overlay": "heatmap", "opacity": 0.75, "radiological": True, "window": [0, 255]}
"""How a view looks at first: `window` is what is black and what is white of the image as packed."""
QUALITY = 75
"""Of the image in a page, in percent: it is looked at, not measured."""
HEAT_LEVELS = 1023
"""Levels of the heatmap in a page."""
FAINT = 8
"""Levels below this are 0 in a page: less than anyone can see, and most of the map."""
WIDEST = 16383
"""Pixels along an edge of the picture that holds the slices (WebP has no larger ones)."""
SCORES = {
    "alpha": "existence probability: the sum of the heatmap over the lesion, by the fit",
    "score": "the highest value of the map in the component",
}
"""What the number of a lesion means, by its name."""


def static(*names: str) -> str:
    """Return files of the front end, one after another."""
    folder = resources.files("lesionkit.widgets") / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def pack_case(
    explorer: Explorer, title: str, *, commands: Iterable[str] = COMMANDS, small: bool = False
) -> tuple[dict[str, Any], bytes, bytes]:
    """Pack grid and volumes.

    Parameters
    ----------
    explorer : Explorer
        What is to be shown.
    title : str
        Its name on the screen.
    commands : iterable of str
        What the view may ask for; the rest of its controls is hidden.
    small : bool
        Pack for a file: the image as a picture (WebP), the heatmap in fewer levels.

    Returns
    -------
    scene : dict
        Shape and spacing (mm) of the volumes as sent, one voxel in `stride` along each axis; the affine of the whole
        map; the ends of the scales of heatmap and image; how many slices the picture has in a row (0: no picture).
    image : bytes
        gzip, uint8, ``(i, j, k)``, windowed to the tissue, or a picture of all slices k; empty without an image.
    heat : bytes
        gzip, uint16 little-endian, from `heat_low` to `heat_high`.
    """
    heatmap = explorer.heatmap
    stride = max(1, math.ceil((heatmap.size / MOST_VOXELS) ** (1 / heatmap.ndim)))
    thin = (slice(None, None, stride),) * heatmap.ndim
    heat = np.asarray(heatmap[thin], dtype=np.float32)
    heat = np.where(np.isfinite(heat), heat, 0.0)
    low, high = min(float(heat.min()), 0.0), float(heat.max())
    span = high - low if high > low else 1.0
    levels = np.rint((heat - low) * (65535 / span)).astype("<u2")
    if small:
        few = np.rint((heat - low) * (HEAT_LEVELS / span))
        nothing = round(-low * HEAT_LEVELS / span)
        few[np.abs(few - nothing) < FAINT] = nothing
        levels = np.rint(few * (65535 / HEAT_LEVELS)).astype("<u2")
    image, grey, mosaic = b"", (0.0, 1.0), 0
    if explorer.image is not None:
        shown, grey = _grey(explorer.image[thin])
        image, mosaic = _picture(shown) if small else (b"", 0)
        image = image or _zipped(shown)
    ndim = heatmap.ndim
    affine = np.eye(4)
    affine[:ndim, :ndim], affine[:ndim, 3] = explorer.affine[:-1, :-1], explorer.affine[:-1, -1]
    scene = {
        "title": title,
        "ndim": ndim,
        "shape": [*levels.shape, 1][:3],
        "stride": stride,
        "spacing": [s * stride for s in [*explorer.spacing, 1.0][:3]],
        "affine": affine.tolist(),
        "anatomical": ndim == 3 and not np.allclose(affine, np.eye(4)),
        "heat_low": low,
        "heat_high": low + span,
        "grey": list(grey),
        "mosaic": mosaic,
        "unit": "lesions per voxel",
        "score": "alpha",
        "score_help": SCORES["alpha"],
        "can": sorted(commands),
        "sigmas": None,
    }
    return scene, image, _zipped(levels, 9 if small else 4)


def pack_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """Pack the steps, and for each what it changes of the lesions: ``set`` (found, mu, alpha) and ``drop`` (found).

    ``start`` are the lesions before the first step, ``status`` and ``look`` say for each cursor where it stands and
    where to look, ``details`` (found, standard error of alpha, share explained) describe the lesions at the end.
    """
    ndim = trajectory.heatmap.ndim
    steps = [
        {
            "number": step.number,
            "voxel": _three(step.voxel),
            "value": _number(step.value),
            "mu": _three(step.mu) if np.isfinite(step.mu).all() else None,
            "alpha": _number(step.alpha),
            "status": step.status,
            "window": [[part.start, part.stop] for part in (*step.window, *[slice(0, 1)] * (3 - ndim))],
        }
        for step in trajectory.steps
    ]
    lesions = [
        {found: (*_three(mu), float(alpha)) for found, mu, alpha in zip(m.found, m.mu, m.alpha, strict=True)}
        for m in trajectory.moments
    ]
    changes = [
        {
            "set": [[found, *values] for found, values in now.items() if was.get(found) != values],
            "drop": [found for found in was if found not in now],
        }
        for was, now in itertools.pairwise(lesions)
    ]
    cursors = range(-1, trajectory.last + 1)
    end = trajectory.detections
    return {
        "sigma": [*trajectory.sigma.tolist(), 1.0][:3],
        "peak": trajectory.peak_of_unit_alpha,
        "steps": steps,
        "start": [[found, *values] for found, values in lesions[0].items()],
        "changes": changes,
        "status": [trajectory.status(cursor) for cursor in cursors],
        "look": [None if (peak := trajectory.peak(cursor)) is None else _three(peak) for cursor in cursors],
        "details": [
            [found, _number(se), _number(share)]
            for found, se, share in zip(end.found, end.alpha_se, end.explained, strict=True)
        ],
    }


def pack_frame(explorer: Explorer) -> dict[str, Any]:
    """Pack where the explorer stands: cursor, position, settings, and the truth with the rules of a hit."""
    config, truth = explorer.config, explorer.truth
    return {
        "cursor": explorer.cursor,
        "position": _three(explorer.position),
        "follow": explorer.follow,
        "playing": explorer.playing,
        "speed": explorer.speed,
        "busy": explorer.busy,
        "threshold": explorer.threshold,
        "sigma": list(config.sigma) if isinstance(config.sigma, tuple) else config.sigma,
        "window": config.window,
        "mode": config.mode,
        "truth": None if truth is None else [_three(point) for point in truth],
        "answer": explorer.answer,
        "max_distance": explorer.max_distance,
        "gate": explorer.gate,
        "error": explorer.error,
    }


def _grey(image: Num[np.ndarray, " ..."]) -> tuple[UInt8[np.ndarray, " ..."], tuple[float, float]]:
    """Window an image to 0 to 255, and say what these are."""
    data = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    low = float(data.min())
    tissue = data[data > low]
    high = float(np.percentile(tissue, 99.8)) if tissue.size else low + 1.0
    levels = np.clip((data - low) * (255 / max(high - low, 1e-12)), 0, 255)
    return levels.astype(np.uint8), (low, high)


def _picture(grey: UInt8[np.ndarray, " ..."]) -> tuple[bytes, int]:
    """Lay the slices of a volume beside each other; no bytes if that is too large a picture."""
    from PIL import Image

    ni, nj, nk = (*grey.shape, 1)[:3]
    columns = max(1, min(math.ceil(math.sqrt(nk)), WIDEST // ni))
    rows = math.ceil(nk / columns)
    if max(columns * ni, rows * nj) > WIDEST:
        return b"", 0
    slices = np.zeros((rows * columns, nj, ni), np.uint8)
    slices[:nk] = grey.reshape(ni, nj, nk).transpose(2, 1, 0)
    sheet = slices.reshape(rows, columns, nj, ni).swapaxes(1, 2).reshape(rows * nj, columns * ni)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY)
    return file.getvalue(), columns


def _zipped(array: Num[np.ndarray, " ..."], level: int = 4) -> bytes:
    return gzip.compress(np.ascontiguousarray(array).tobytes(), compresslevel=level, mtime=0)


def _three(point: Sequence[float] | Float[np.ndarray, " ndim"]) -> list[float]:
    """Round a point, and give it three coordinates."""
    values = [round(float(x), 4) for x in point]
    return [*values, 0.0][:3]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(f"{float(value):.6g}") if math.isfinite(value) else None
