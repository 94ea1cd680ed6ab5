"""The picture of a view where no script runs: on GitHub, in a mail, in a notebook that is opened without a kernel.

In: an explorer, or the panels of a lesson. Out: a PNG. Matplotlib, which is loaded when a picture is made; the same
input gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lesionkit.explorer import Explorer
from lesionkit.figures import HEAT_COLOURS, STATUS_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lesionkit.explorer import Sections
    from lesionkit.widgets.lesson import Panel

COLD_COLOURS = ("#b5e0ff", "#3f94e8", "#1450a0", "#0b1b3a")
VERDICT_COLOURS = {
    "tp": STATUS_COLOURS["TP"],
    "fp": STATUS_COLOURS["FP"],
    "fn": STATUS_COLOURS["FN"],
    "kept": STATUS_COLOURS["detected"],
    "below": "#8a94a3",
}
LINES = ("#4aa8ff", "#f2725c", "#2fbf8f", "#c79bff", "#e0a526")
PLANES = (("axial", 2, 0, 1), ("coronal", 1, 0, 2), ("sagittal", 0, 1, 2))
DPI = 96
GREYS = 86
"""Levels of grey in a picture."""


def print_explorer(explorer: Explorer, overlay: str = "heatmap") -> bytes:
    """Draw planes through the present position, and alpha with the threshold."""
    ndim = explorer.heatmap.ndim
    planes = PLANES if ndim == 3 else PLANES[:1]
    figure = sheet(11.0, 5.6)
    low, high = _tissue(explorer)
    extent = (high - low) * explorer.spacing
    grid = figure.add_gridspec(
        2, len(planes), height_ratios=(3.2, 1.5), width_ratios=[extent[r] for _, _, r, _ in planes]
    )
    for n, plane in enumerate(planes):
        _print_plane(figure.add_subplot(grid[0, n]), explorer, overlay, plane)
    _print_bars(figure.add_subplot(grid[1, :]), explorer)
    score = explorer.lesions.matching if explorer.answer else None
    found = f"{int(explorer.lesions.kept.sum())} lesions with alpha of {explorer.threshold:.3g} or more"
    scored = "" if score is None else f": {score.tp} hits, {score.fp} false alarms, {score.fn} missed"
    figure.suptitle(f"{explorer.status}; {found}{scored}", fontsize=10, color="#55616f")
    return picture_of(figure)


def print_panels(panels: Sequence[Panel], note: str = "") -> bytes:
    """Draw the panels of a lesson beside each other."""
    widths = [panel.width / DPI for panel in panels]
    figure = sheet(sum(widths) + 0.3 * len(panels), max(panel.height for panel in panels) / DPI + 0.7)
    for axes, panel in zip(figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0], panels, strict=True):
        axes.set_title(panel.title, fontsize=10)
        if panel.kind == "lines":
            _print_lines(axes, panel.spec)
        else:
            _print_picture(axes, panel.spec)
    figure.supxlabel(note, fontsize=9, color="#55616f")
    return picture_of(figure)


def print_maps(
    grey: Float[np.ndarray, "i j"],
    maps: Mapping[str, Float[np.ndarray, "i j"] | None],
    points: Float[np.ndarray, "n 2"],
) -> bytes:
    """Draw maps from 0 to 1 over one slice, beside each other, and over a darker one; rings around the points."""
    figure = sheet(2.7 * len(maps), 2.7 * grey.shape[1] / grey.shape[0] + 0.3)
    low, high = np.percentile(grey[grey > grey.min()], (0.5, 99.8))
    for axes, (name, one) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        bright = high if one is None else low + 1.7 * (high - low)
        axes.imshow(grey.T, cmap="gray", vmin=low, vmax=bright, origin="lower", interpolation="bilinear")
        if one is not None:
            axes.imshow(one.T, cmap=_signed(1.0), vmin=-1, vmax=1, origin="lower", interpolation="nearest")
        for x, y in points:
            _ring(axes, x, y, 4.0, 4.0, VERDICT_COLOURS["tp"], lw=1.2)
        axes.set_title(name, fontsize=9)
        axes.set(xticks=[], yticks=[])
    return picture_of(figure)


def sheet(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def picture_of(figure: Figure) -> bytes:
    """Write the figure with few colours: half the size, and nobody sees it.

    Greys get a fixed share of the palette; otherwise an MRI takes all of it, and lines and heat lose their colours.
    """
    from PIL import Image

    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    pixels = np.asarray(Image.open(stream).convert("RGB"))
    index = np.rint(pixels.mean(axis=2) * ((GREYS - 1) / 255)).astype(np.uint8)
    palette = np.repeat(np.rint(np.linspace(0, 255, GREYS)).astype(np.uint8), 3).tolist()
    coloured = np.ptp(pixels, axis=2) > 8
    if coloured.any():
        few = Image.fromarray(pixels[coloured][None]).quantize(256 - GREYS, Image.Quantize.MAXCOVERAGE)
        index[coloured] = GREYS + np.asarray(few)[0]
        palette += few.getpalette() or []
    picture = Image.fromarray(index)
    picture.putpalette(palette)
    small = io.BytesIO()
    picture.save(small, format="PNG", optimize=True)
    return small.getvalue()


def _heat(colours: Sequence[str], cover: float) -> np.ndarray:
    """Return 256 colours that let what lies below show through near 0, and cover that share of it above."""
    from matplotlib.colors import LinearSegmentedColormap

    table = LinearSegmentedColormap.from_list("heat", list(colours))(np.linspace(0, 1, 256))
    table[:, 3] = np.clip((np.linspace(0, 1, 256) - 0.03) / 0.22, 0, 1) * cover
    return np.asarray(table)


def _signed(cover: float = 0.75) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    warm, cold = _heat(HEAT_COLOURS, cover), _heat(COLD_COLOURS[::-1], cover)
    return LinearSegmentedColormap.from_list("signed", np.concatenate([cold[::-1], warm]), N=512)


def _print_plane(axes: Axes, explorer: Explorer, overlay: str, plane: tuple[str, int, int, int]) -> None:
    name, across, right, up = plane
    flat = explorer.heatmap.ndim == 2
    at, spacing = explorer.position, explorer.spacing

    def cut(volume: np.ndarray) -> np.ndarray:
        return np.asarray(volume if flat else volume.take(round(at[across]), axis=across)).T

    axes.set_facecolor("black")
    shown: dict[str, Any] = {"origin": "lower", "aspect": spacing[up] / spacing[right]}
    if explorer.image is not None:
        slab = cut(explorer.image)
        window: dict[str, Any] = {"vmin": float(explorer.image.min()), "vmax": _bright(explorer.image)}
        axes.imshow(slab, cmap="gray", interpolation="bilinear", **window, **shown)
    top = max(float(explorer.heatmap.max()), 1e-12)
    if overlay != "none":
        maps = {"heatmap": explorer.heatmap, "residual": explorer.residual, "label": explorer.label}
        cover = 1.0 if explorer.image is None else 0.75
        axes.imshow(cut(maps[overlay]), cmap=_signed(cover), vmin=-top, vmax=top, interpolation="nearest", **shown)
    normal = 0 if flat else across
    if explorer.answer and explorer.lesions.matching is not None:
        found = explorer.lesions.matching.matched_true
        for row, x, y, rx, ry in _ellipses(explorer.rings(normal, of="truth"), right, up):
            if found[row]:
                axes.plot([x], [y], marker="+", color="white", ms=6)
            else:
                _ring(axes, x, y, rx, ry, VERDICT_COLOURS["fn"], ls="--")
    verdicts = explorer.told
    for row, x, y, rx, ry in _ellipses(explorer.rings(normal), right, up):
        _ring(axes, x, y, rx, ry, VERDICT_COLOURS[verdicts[row]], ls=":" if verdicts[row] == "below" else "-")
    for _, x, y, rx, ry in _ellipses(explorer.rings(normal, of="fit"), right, up):
        _ring(axes, x, y, rx, ry, "white", lw=2)
    axes.axhline(at[up], color="white", lw=0.5, alpha=0.35)
    axes.axvline(at[right], color="white", lw=0.5, alpha=0.35)
    low, high = _tissue(explorer)
    axes.set(xlim=(low[right] - 0.5, high[right] + 0.5), ylim=(low[up] - 0.5, high[up] + 0.5), xticks=[], yticks=[])
    if flat:
        return
    axes.set_title(name, fontsize=9, loc="left")
    if not np.allclose(explorer.affine, np.eye(4)):
        if right == 0:
            axes.invert_xaxis()
        for x, text in ((0.03, "R" if right == 0 else "P"), (0.97, "L" if right == 0 else "A")):
            axes.text(x, 0.5, text, transform=axes.transAxes, color="#f5d063", weight="bold", ha="center", fontsize=9)


def _ellipses(sections: Sections, right: int, up: int) -> Iterator[tuple[int, float, float, float, float]]:
    """Give row, centre and radii of each section with a slice, where the axes of ellipses are those of the slice."""
    for row, centre, semi in zip(sections.rows.tolist(), sections.centres, np.abs(sections.semi_axes), strict=True):
        yield row, float(centre[right]), float(centre[up]), float(semi[:, right].max()), float(semi[:, up].max())


def _ring(axes: Axes, x: float, y: float, rx: float, ry: float, colour: str, *, ls: str = "-", lw: float = 1.6) -> None:
    from matplotlib.patches import Ellipse

    axes.add_patch(Ellipse((x, y), 2 * rx, 2 * ry, fill=False, ec=colour, lw=lw, ls=ls))


def _tissue(explorer: Explorer) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of the tissue, or of the hills of a bare map, and some more around."""
    last = np.array(explorer.heatmap.shape) - 1
    if explorer.image is None:
        where, around = np.nonzero(explorer.heatmap > 0.1 * explorer.heatmap.max()), 6
    else:
        where, around = np.nonzero(explorer.image > 0.05 * _bright(explorer.image)), 4
    if not where[0].size:
        return np.zeros_like(last), last
    low, high = (np.array([f(axis) for axis in where]) for f in (np.min, np.max))
    return np.maximum(low - around, 0), np.minimum(high + around, last)


def _bright(image: np.ndarray) -> float:
    tissue = image[image > image.min()]
    return float(np.percentile(tissue, 99.8)) if tissue.size else float(image.max()) + 1.0


def _print_bars(axes: Axes, explorer: Explorer) -> None:
    from matplotlib.ticker import MaxNLocator

    lesions = explorer.lesions
    colours = [VERDICT_COLOURS[word] for word in explorer.told]
    axes.bar(np.array(lesions.found, dtype=int) + 1, lesions.alpha, color=colours, width=0.85)
    axes.axhline(explorer.threshold, color="#16202c", lw=1, ls="--")
    axes.set(xlim=(0.3, max(len(explorer.steps), 8) + 0.7), xlabel="step", ylabel="alpha")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    quiet(axes)


def quiet(axes: Axes) -> None:
    """Draw less of the frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.grid(axis="y", alpha=0.25)


def _print_lines(axes: Axes, spec: dict[str, Any]) -> None:
    for n, line in enumerate(spec["series"]):
        colour = line.get("colour") or LINES[n % len(LINES)]
        y = [np.nan if v is None else v for v in line["y"]]
        if line.get("points"):
            axes.plot(line["x"], y, "o", color=colour, ms=2 * line["points"], label=line.get("name"), mew=0)
        else:
            style: Any = (0, tuple(line["dash"])) if line.get("dash") else "-"
            axes.plot(line["x"], y, color=colour, ls=style, lw=line.get("width", 2), label=line.get("name"))
            if line.get("fill"):
                axes.fill_between(line["x"], 0, y, color=colour, alpha=0.18)
    for mark in spec.get("marks", ()):
        draw = axes.axvline if "x" in mark else axes.axhline
        draw(mark.get("x", mark.get("y")), color="#16202c", lw=1, ls="--")
        if mark.get("text") and "x" in mark:
            place: Any = {"xycoords": ("data", "axes fraction"), "xytext": (4, -10), "textcoords": "offset points"}
            axes.annotate(mark["text"], (mark["x"], 1), fontsize=8, **place)
    axes.set(xlim=spec["x"], ylim=spec["y"], xlabel=spec.get("xlabel", ""), ylabel=spec.get("ylabel", ""))
    if any(line.get("name") for line in spec["series"]):
        axes.legend(fontsize=8, frameon=False)
    quiet(axes)


def _print_picture(axes: Axes, spec: dict[str, Any]) -> None:
    from matplotlib.patches import Ellipse

    shape: tuple[int, int] = (spec["height"], spec["width"])
    shown: dict[str, Any] = {"origin": "lower", "aspect": spec.get("aspect", 1.0)}
    axes.set_facecolor("#101010")
    if spec["grey"] is not None:
        axes.imshow(np.frombuffer(spec["grey"], np.uint8).reshape(shape), cmap="gray", vmin=0, vmax=255, **shown)
    if spec["warm"] is not None:
        warm: Float[np.ndarray, "h w"] = np.frombuffer(spec["warm"], np.float32).reshape(shape)
        axes.imshow(warm, cmap=_signed(), vmin=-1, vmax=1, interpolation="nearest", **shown)
    for x0, y0, x1, y1, colour in spec["segments"]:
        axes.plot([x0, x1], [y0, y1], color=colour, lw=1.4)
    for x, y, rx, ry, colour, dashed in spec["rings"]:
        axes.add_patch(Ellipse((x, y), 2 * rx, 2 * ry, fill=False, ec=colour, lw=1.6, ls="--" if dashed else "-"))
    for x, y, colour in spec["crosses"]:
        axes.plot([x], [y], marker="+", color=colour, ms=8, mew=1.6)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5), xticks=[], yticks=[])
