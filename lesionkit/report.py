"""The picture page: image, heatmap and lesions in; one self-contained interactive HTML page out.

The page opens offline in any browser of 2023 or later: plotly.js, the volumes (8 bits a voxel, compressed) and the
script are inside it, and its security policy forbids it to load anything. Its parts lie in ``assets/``.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import nibabel.orientations
import numpy as np
import pandas as pd
from jaxtyping import Float, Real, UInt8
from plotly.offline import get_plotlyjs

from lesionkit import __version__
from lesionkit.figures import HEAT_COLOURS, STATUS_COLOURS, alpha_figure
from lesionkit.matching import match_points
from lesionkit.volume import Volume

_XYZ = ["x", "y", "z"]
_MOST_VOXELS = 12_000_000
"""Larger volumes are shown at every 2nd (3rd...) voxel, so that a page stays below about 15 MB."""
_MOST_EXTRAS = 4


def render_report(
    image: Volume,
    heatmap: Volume,
    lesions: pd.DataFrame,
    *,
    truth: pd.DataFrame | None = None,
    threshold: float,
    title: str,
    facts: Mapping[str, str],
    max_distance_mm: float = 6.0,
) -> str:
    """Render one case as an interactive page.

    Parameters
    ----------
    image
        MRI on which the page is drawn.
    heatmap
        Predicted heatmap on the same grid, in lesions a voxel.
    lesions
        Candidates, one a row, in any order: columns ``x y z`` (mm, RAS+) and ``alpha``; candidates below `threshold`
        let the reader lower it. Up to four further columns appear in the table (``i j k`` do not).
    truth
        True lesions where known: columns ``x y z`` (mm, RAS+) and, if known, ``size_vox``.
    threshold
        Smallest alpha of a detection; the slider starts there.
    title
        Heading of the page, plain text.
    facts
        What the reader should know about the case, in order; an entry named ``checkpoint`` also stands in the footer.
    max_distance_mm
        Largest distance of a hit, as in :func:`~lesionkit.matching.match_points`.

    Returns
    -------
    str
        The whole page, UTF-8 text.

    Raises
    ------
    ValueError
        If the grids differ, a column is missing, or a number is not finite.
    """
    if not image.same_grid(heatmap):
        raise ValueError(f"heatmap: got another grid {heatmap.shape} than that of the image, {image.shape}")
    if not math.isfinite(threshold):
        raise ValueError(f"threshold: got {threshold!r}, wanted a finite number")
    candidates = _checked("lesions", lesions, [*_XYZ, "alpha"]).sort_values("alpha", ascending=False, kind="stable")
    candidates = candidates.reset_index(drop=True)
    known = None if truth is None else _checked("truth", truth, _XYZ).reset_index(drop=True)

    (grey, warm), affine, step = _display_grid([image.data, heatmap.data], image.affine)
    low, high = _grey_window(grey)
    heat_max = max(float(warm.max(initial=0.0)), 0.0)
    alpha = candidates["alpha"].to_numpy(dtype=np.float64)
    points, targets = _points(candidates, affine), [] if known is None else _points(known, affine)
    for point, value in zip(points, alpha, strict=True):
        point["alpha"] = float(value)
    sizes = _sizes(known)
    for target, size in zip(targets, sizes, strict=True):
        # The sphere of the lesion's volume, so that a missed lesion shows how large it is.
        radius = 4.0 if size is None else (3 * size * image.voxel_mm3 / (4 * math.pi)) ** (1 / 3)
        target.update(size=size, radius=min(max(radius, 3.0), 25.0))

    matches = [] if known is None else _matches(candidates[_XYZ].to_numpy(), known[_XYZ].to_numpy(), max_distance_mm)
    start = points[0]["ijk"] if points else np.unravel_index(int(np.argmax(warm)), warm.shape)
    data = {
        "shape": list(grey.shape),
        "spacing": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
        "affine": affine.tolist(),
        "box": _tissue_box(grey, low + 0.05 * (high - low)),
        "image_low": low,
        "image_high": high,
        "heat_max": heat_max,
        "lesions": points,
        "truth": None if known is None else targets,
        "matches": matches,
        "threshold": threshold,
        "start": [int(np.clip(round(float(p)), 0, n - 1)) for p, n in zip(start, grey.shape, strict=True)],
        "colours": dict(STATUS_COLOURS),
        "heat_colours": list(HEAT_COLOURS),
        "chart": alpha_figure(alpha, threshold=threshold).to_plotly_json(),
    }
    checkpoint = next((text for name, text in facts.items() if name.casefold() == "checkpoint"), "not stated")
    assets = resources.files("lesionkit") / "assets"
    parts = {
        "title": html.escape(title),
        "lead": html.escape(_lead(known, max_distance_mm)),
        "facts": _facts_html(facts),
        "scores": _scores_html(known, max_distance_mm),
        "legend": _legend_html(known is not None),
        "threshold": f"{threshold:.3f}",
        "alpha_max": f"{max(1.0, math.ceil(20 * alpha.max(initial=threshold)) / 20):g}",
        "heat_max": f"{heat_max:.2g}",
        "heat_gradient": ",".join(HEAT_COLOURS),
        "truth_help": _truth_help(max_distance_mm) if known is not None else "",
        "display_note": "" if step == 1 else f" The pictures show one voxel in {step} along each axis.",
        "table": _table_html(candidates, known, sizes),
        "checkpoint": html.escape(str(checkpoint)),
        "version": html.escape(__version__),
        "data": _safe_json(data),
        "image": _packed((grey - low) / (high - low)),
        "heat": _packed(warm / heat_max if heat_max > 0 else np.zeros_like(warm)),
        "plotly": get_plotlyjs(),
        "css": (assets / "report.css").read_text(encoding="utf-8"),
        "js": (assets / "report.js").read_text(encoding="utf-8"),
    }
    page = (assets / "report.html").read_text(encoding="utf-8")
    # One pass: what is put in is never searched for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)


def _checked(name: str, frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"{name}: got the columns {list(frame.columns)}, wanted also {missing}")
    try:
        values = frame[list(columns)].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got text in {list(columns)}, wanted numbers") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: got NaN or infinite values in {list(columns)}, wanted finite numbers")
    return frame


def _display_grid(
    arrays: Sequence[Real[np.ndarray, "i j k"]], affine: Float[np.ndarray, "4 4"]
) -> tuple[list[Float[np.ndarray, "i j k"]], Float[np.ndarray, "4 4"], int]:
    """Turn arrays to the nearest RAS+ and thin them out to what a page can hold."""
    turn = nibabel.orientations.io_orientation(affine)
    turned = [nibabel.orientations.apply_orientation(np.asarray(a, dtype=np.float32), turn) for a in arrays]
    for name, array in zip(("image", "heatmap"), turned, strict=True):
        if not array.size or not np.isfinite(array).all():
            raise ValueError(f"{name}: got no voxels, NaN or infinite ones, wanted finite numbers")
    ras = affine @ nibabel.orientations.inv_ornt_aff(turn, arrays[0].shape)
    step = math.ceil((turned[0].size / _MOST_VOXELS) ** (1 / 3))
    return [a[::step, ::step, ::step] for a in turned], ras @ np.diag([step, step, step, 1.0]), step


def _grey_window(image: Float[np.ndarray, "i j k"]) -> tuple[float, float]:
    foreground = image[image > image.min()]
    low = float(image.min())
    high = float(np.percentile(foreground, 99.8)) if foreground.size else low
    return low, high if high > low else low + 1.0


def _tissue_box(image: Float[np.ndarray, "i j k"], above: float, margin: int = 7) -> list[list[int]]:
    """Find the first and one past the last voxel of each axis that is brighter than `above`, and some more around."""
    bright = image > above
    box: list[list[int]] = [[], []]
    for axis, length in enumerate(image.shape):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(bright.any(axis=others))
        first, last = (int(where[0]), int(where[-1])) if where.size else (0, length - 1)
        box[0].append(max(first - margin, 0))
        box[1].append(min(last + 1 + margin, length))
    return box


def _packed(share: Float[np.ndarray, "i j k"]) -> str:
    levels: UInt8[np.ndarray, "i j k"] = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return base64.b64encode(gzip.compress(levels.tobytes(), compresslevel=6, mtime=0)).decode("ascii")


def _points(frame: pd.DataFrame, affine: Float[np.ndarray, "4 4"]) -> list[dict[str, Any]]:
    world = frame[_XYZ].to_numpy(dtype=np.float64)
    index = np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T).T
    return [{"mm": mm, "ijk": ijk} for mm, ijk in zip(world.tolist(), index.round(3).tolist(), strict=True)]


def _sizes(truth: pd.DataFrame | None) -> list[int | None]:
    if truth is None:
        return []
    if "size_vox" not in truth:
        return [None] * len(truth)
    sizes = pd.to_numeric(truth["size_vox"], errors="coerce").to_numpy(dtype=np.float64)
    return [round(size) if math.isfinite(size) and size >= 0 else None for size in sizes.tolist()]


def _matches(
    predicted: Float[np.ndarray, "n 3"], true: Float[np.ndarray, "m 3"], max_distance_mm: float
) -> list[list[int]]:
    """Match the first 1, 2, ... candidates: changes ``[number of candidates, candidate, its lesion or -1]``.

    The page replays them up to the number above the threshold, and so shows the same matching as Python would.
    """
    changes: list[list[int]] = []
    before = np.full(len(predicted), -1)
    for count in range(1, len(predicted) + 1):
        now = np.full(len(predicted), -1)
        pairs = match_points(predicted[:count], true, max_distance=max_distance_mm).pairs
        now[pairs[:, 0]] = pairs[:, 1]
        changed = np.flatnonzero(now != before)
        changes += [[count, int(n), int(now[n])] for n in changed]
        before = now
    return changes


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its script element: no ``<``, ``>``, ``&`` or line separators."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"), default=_plain)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def _lead(truth: pd.DataFrame | None, max_distance_mm: float) -> str:
    if truth is None:
        return "Lesions detected in the predicted heatmap. The truth is not known here."
    known = f"against {len(truth)} known ones (hit within {max_distance_mm:g} mm)"
    return f"Lesions detected in the predicted heatmap, {known}."


def _truth_help(max_distance_mm: float) -> str:
    return (
        f" Detections and true lesions are matched one to one within {max_distance_mm:g}&nbsp;mm. A white + is the "
        "true centre of a lesion that was found; a dashed ring is a missed lesion, as large as the lesion is."
    )


def _facts_html(facts: Mapping[str, str]) -> str:
    return "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(str(text))}</dd></div>" for name, text in facts.items()
    )


def _scores_html(truth: pd.DataFrame | None, max_distance_mm: float) -> str:
    cards = [("", "n-detected", "detected")]
    if truth is None:
        cards += [("", "expected", "expected lesions (sum of alpha)")]
    else:
        cards += [
            ("tp", "n-tp", f"hits within {max_distance_mm:g} mm"),
            ("fp", "n-fp", "false alarms"),
            ("fn", "n-fn", f"missed of {len(truth)}"),
            ("", "precision", "precision"),
            ("", "recall", "recall"),
            ("", "f1", "F1"),
        ]
    return "".join(
        f'<div class="score {k}"><b id="{name}">&ndash;</b><span>{text}</span></div>' for k, name, text in cards
    )


def _legend_html(with_truth: bool) -> str:
    ring = '<circle cx="9" cy="9" r="6.5" fill="none" stroke="{}" stroke-width="2.2" {}/>'
    ticks = '<path d="M4.4 4.4l3 3M13.6 4.4l-3 3M4.4 13.6l3-3M13.6 13.6l-3-3" stroke="{}" stroke-width="1.8"/>'
    cross = (
        '<path d="M9 3v12M3 9h12" stroke="#000" stroke-width="4"/>'
        '<path d="M9 3v12M3 9h12" stroke="#fff" stroke-width="1.8"/>'
    )
    entries = [("detected", "detected, by alpha", ring.format(STATUS_COLOURS["detected"], ""))]
    if with_truth:
        tp, fp, fn = (STATUS_COLOURS[name] for name in ("TP", "FP", "FN"))
        entries = [
            ("TP", "hit", ring.format(tp, "")),
            ("FP", "false alarm", ring.format(fp, "") + ticks.format(fp)),
            ("FN", "missed", ring.format(fn, 'stroke-dasharray="3.4 2.6"')),
            ("truth", "true centre of a hit", cross),
        ]
    return "".join(
        f'<label class="check"><input type="checkbox" data-show="{name}" checked>'
        f'<svg width="18" height="18" aria-hidden="true">{drawing}</svg>{text}</label>'
        for name, text, drawing in entries
    )


def _table_html(lesions: pd.DataFrame, truth: pd.DataFrame | None, sizes: Sequence[int | None]) -> str:
    """Write one row a candidate, then one a true lesion; the script fills in what depends on the threshold."""
    extras = [name for name in lesions.columns if name not in {*_XYZ, "alpha", "i", "j", "k"}][:_MOST_EXTRAS]
    numeric = {name: pd.api.types.is_numeric_dtype(lesions[name]) for name in extras}
    heads = [("#", False)] + ([("status", True)] if truth is not None else [])
    heads += [("alpha", False), *((f"{axis} (mm)", False) for axis in _XYZ)]
    heads += [("distance (mm)", False), ("size (vox)", False)] if truth is not None else []
    heads += [(str(name), not numeric[name]) for name in extras]
    head = "".join(f'<th scope="col"{_text(left)}>{html.escape(name)}</th>' for name, left in heads)

    rows = []
    for n, lesion in enumerate(lesions.to_dict("records")):
        alpha = float(lesion["alpha"])
        cells = [f"<td>{n + 1}</td>"]
        if truth is not None:
            cells.append('<td class="text"><span data-cell="status"></span></td>')
        bar = (
            f'<span class="bar" aria-hidden="true"><i style="width:{100 * min(max(alpha, 0.0), 1.0):.0f}%"></i></span>'
        )
        cells.append(f"<td>{bar}{alpha:.3f}</td>")
        cells += [_number_cell(lesion[axis]) for axis in _XYZ]
        if truth is not None:
            cells += ['<td data-cell="distance">&ndash;</td>', '<td data-cell="size">&ndash;</td>']
        cells += [f"<td{_text(not numeric[name])}>{html.escape(_shown(lesion[name]))}</td>" for name in extras]
        rows.append(f'<tr data-lesion="{n}" tabindex="-1" aria-selected="false">{"".join(cells)}</tr>')
    if truth is not None:
        targets = truth.to_dict("records")
        for n in sorted(range(len(targets)), key=lambda n: -(sizes[n] or 0)):  # the largest miss first
            target = targets[n]
            cells = ["<td>&ndash;</td>", '<td class="text"><span class="fn">missed</span></td>', "<td>&ndash;</td>"]
            cells += [_number_cell(target[axis]) for axis in _XYZ]
            cells += ["<td>&ndash;</td>", f"<td>{'&ndash;' if sizes[n] is None else sizes[n]}</td>"]
            cells += [f"<td{_text(not numeric[name])}></td>" for name in extras]
            rows.append(f'<tr data-truth="{n}" tabindex="-1" aria-selected="false" hidden>{"".join(cells)}</tr>')
    empty = "" if rows else '<p class="empty">Nothing was detected.</p>'
    return (
        '<table id="lesion-table" role="grid" aria-label="Lesions by falling alpha, then missed ones">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{empty}"
    )


def _text(left: bool) -> str:
    return ' class="text"' if left else ""


def _number_cell(value: float) -> str:
    text = f"{round(float(value), 1) + 0.0:.1f}"  # + 0.0: no negative zero
    return f"<td>{text.replace('-', '&minus;')}</td>"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    return str(value)
