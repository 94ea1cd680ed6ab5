"""What a browser needs of an explorer: plain values and bytes; nothing is drawn and nothing is kept.

In: an :class:`~lesionkit.explorer.Explorer`. Out: the case (volumes and grid), the trajectory (what each step changes)
and the frame (where it stands, and what threshold and truth say). Numbers are those that JSON has: no NaN.

Maps in 2-D get a third axis of length 1, so that the browser knows one kind of volume only.
"""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from lesionkit.explorer import Explorer, Trajectory

MOST_VOXELS = 6_000_000
"""Larger volumes are thinned out for the browser; positions and fits stay those of the whole volume."""

COMMANDS = frozenset(
    {
        "go_to", "jump_to_lesion", "move_to", "set_follow", "set_mode", "set_sigma", "set_speed", "set_threshold",
        "set_window", "tick", "toggle_playing",
    }
)  # fmt: skip
"""What a view may ask of an explorer."""


def static(*names: str) -> str:
    """Return files of the front end, one after another."""
    folder = resources.files("lesionkit.widgets") / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def pack_case(
    explorer: Explorer, title: str, *, commands: Iterable[str] = COMMANDS
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

    Returns
    -------
    scene : dict
        Shape and spacing (mm) of the volumes as sent, one voxel in `stride` along each axis; the affine of the whole
        map; the ends of the heatmap's scale.
    image : bytes
        gzip, uint8, ``(i, j, k)``, windowed to the tissue; empty without an image.
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
    image = b"" if explorer.image is None else _zipped(_grey(explorer.image[thin]))
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
        "can": sorted(commands),
        "sigmas": None,
    }
    return scene, image, _zipped(levels)


def pack_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """Pack the steps, and for each what it changes of the lesions: ``set`` (found, mu, alpha) and ``drop`` (found)."""
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
        {found: (*_three(mu), _number(alpha)) for found, mu, alpha in zip(m.found, m.mu, m.alpha, strict=True)}
        for m in trajectory.moments
    ]
    changes = [
        {
            "set": [[found, *values] for found, values in now.items() if was.get(found) != values],
            "drop": [found for found in was if found not in now],
        }
        for was, now in itertools.pairwise(lesions)
    ]
    return {
        "sigma": [*trajectory.sigma.tolist(), 1.0][:3],
        "peak": trajectory.peak_of_unit_alpha,
        "steps": steps,
        "changes": changes,
    }


def pack_frame(explorer: Explorer) -> dict[str, Any]:
    """Pack where the explorer stands: cursor, position, settings, and the verdict on each lesion."""
    config, outcome, truth, score = explorer.config, explorer.outcome, explorer.truth, explorer.score
    return {
        "cursor": explorer.cursor,
        "status": explorer.status,
        "position": _three(explorer.position),
        "follow": explorer.follow,
        "playing": explorer.playing,
        "speed": explorer.speed,
        "busy": explorer.busy,
        "threshold": explorer.threshold,
        "sigma": list(config.sigma) if isinstance(config.sigma, tuple) else config.sigma,
        "window": config.window,
        "mode": config.mode,
        "verdicts": list(explorer.lesions.verdicts),
        "outcome": [
            [found, *_three(mu), _number(alpha), verdict]
            for found, mu, alpha, verdict in zip(
                outcome.found, outcome.mu, outcome.alpha, outcome.verdicts, strict=True
            )
        ],
        "truth": None if truth is None else [_three(point) for point in truth],
        "truth_found": None if score is None else score.matched_true.tolist(),
        "score": None
        if score is None
        else {
            "tp": score.tp,
            "fp": score.fp,
            "fn": score.fn,
            "precision": _number(score.precision),
            "recall": _number(score.recall),
            "f1": _number(score.f1),
        },
        "error": explorer.error,
    }


def _grey(image: Num[np.ndarray, " ..."]) -> Num[np.ndarray, " ..."]:
    """Window an image to 0 to 255."""
    data = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    low = float(data.min())
    tissue = data[data > low]
    high = float(np.percentile(tissue, 99.8)) if tissue.size else low + 1.0
    return np.asarray(np.clip((data - low) * (255 / max(high - low, 1e-12)), 0, 255), dtype=np.uint8)


def _zipped(array: Num[np.ndarray, " ..."]) -> bytes:
    return gzip.compress(np.ascontiguousarray(array).tobytes(), compresslevel=4, mtime=0)


def _three(point: Sequence[float] | Float[np.ndarray, " ndim"]) -> list[float]:
    """Round a point, and give it three coordinates."""
    values = [round(float(x), 4) for x in point]
    return [*values, 0.0][:3]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(f"{float(value):.6g}") if math.isfinite(value) else None
