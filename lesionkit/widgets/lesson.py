"""Small views that teach one thing each: a few sliders, a function of their values, and the panels that it draws.

In: a function that returns a :class:`Drawing`, and its controls. Out: a widget. The function runs in the kernel; the
browser only draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import anywidget
import numpy as np
import traitlets
from jaxtyping import Float, Real

from lesionkit.widgets.explorer import with_picture
from lesionkit.widgets.packing import static
from lesionkit.widgets.printing import print_panels


@dataclass(frozen=True, kw_only=True)
class Slider:
    """A number to be chosen."""

    label: str
    value: float
    low: float
    high: float
    step: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few words."""

    label: str
    value: str
    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve, or cloud of points, of a chart."""

    x: Real[np.ndarray, " n"] | Sequence[float]
    y: Real[np.ndarray, " n"] | Sequence[float]
    name: str = ""
    colour: str | None = None
    dash: tuple[int, ...] = ()
    points: float = 0.0
    """Radius of dots, in pixels, instead of a line."""
    fill: bool = False
    """Whether the area down to 0 is filled."""
    width: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart or a picture; made by :func:`chart` and :func:`picture`."""

    kind: Literal["lines", "picture"]
    title: str
    width: int
    height: int
    spec: dict[str, Any] = field(repr=False)


class Drawing(NamedTuple):
    """What a lesson draws for some values of its controls."""

    panels: list[Panel]
    note: str
    """One line: the number that matters."""


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    xlabel: str = "",
    ylabel: str = "",
    marks: Sequence[Mapping[str, Any]] = (),
    size: tuple[int, int] = (430, 280),
) -> Panel:
    """Draw lines; `marks` are dashed lines ``{"x" or "y": value, "text": ...}``."""
    series = [
        {
            "x": _plain(line.x),
            "y": _plain(line.y),
            "name": line.name,
            "colour": line.colour,
            "dash": list(line.dash),
            "points": line.points,
            "fill": line.fill,
            "width": line.width,
        }
        for line in lines
    ]
    spec = {"series": series, "x": list(x), "y": list(y), "xlabel": xlabel, "ylabel": ylabel, "marks": list(marks)}
    return Panel(kind="lines", title=title, width=size[0], height=size[1], spec=spec)


def picture(
    title: str,
    *,
    grey: Real[np.ndarray, "right up"] | None = None,
    warm: Float[np.ndarray, "right up"] | None = None,
    rings: Sequence[tuple[float, float, float, float, str, bool]] = (),
    crosses: Sequence[tuple[float, float, str]] = (),
    segments: Sequence[tuple[float, float, float, float, str]] = (),
    spacing: tuple[float, float] = (1.0, 1.0),
    width: int = 300,
) -> Panel:
    """Draw a slice.

    Parameters
    ----------
    title : str
        Above it.
    grey : array, first axis to the right, second axis up
        An image, scaled from its minimum to its 99.8th percentile.
    warm : array of the same shape
        An overlay from -1 to 1: negative values are blue.
    rings : (x, y, radius x, radius y, colour, dashed)
        In voxels.
    crosses : (x, y, colour)
        In voxels.
    segments : (x0, y0, x1, y1, colour)
        In voxels.
    spacing : (float, float)
        Edge lengths of a pixel, for its aspect.
    width : int
        In pixels.
    """
    shape = (grey if grey is not None else warm if warm is not None else np.zeros((64, 64))).shape
    aspect = spacing[1] / spacing[0]
    spec = {
        "width": shape[0],
        "height": shape[1],
        "aspect": aspect,
        "grey": None if grey is None else _levels(grey).T.tobytes(),
        "warm": None if warm is None else np.clip(warm, -1, 1).astype("<f4").T.tobytes(),
        "rings": [list(r) for r in rings],
        "crosses": [list(c) for c in crosses],
        "segments": [list(s) for s in segments],
    }
    return Panel(
        kind="picture", title=title, width=width, height=round(width * shape[1] * aspect / shape[0]), spec=spec
    )


class Lesson(anywidget.AnyWidget):
    """A function of a few sliders, drawn anew when one moves.

    Parameters
    ----------
    draw : function
        Called with the values of the controls by name.
    controls : Slider or Choice
        One an argument of `draw`.
    title : str
        Heading.

    Examples
    --------
    >>> def square(x):
    ...     line = Line(x=[0, 1, 2], y=[0, x, 4 * x])
    ...     return Drawing([chart("square", [line], x=(0, 2), y=(0, 8))], f"steepness {x:g}")
    >>> lesson = Lesson(square, title="A parabola", x=Slider(label="x", value=1.0, low=0.5, high=2.0, step=0.5))
    >>> lesson.change(x=2.0)
    >>> lesson.note
    'steepness 2'
    """

    _esm = static("drawing.js", "lesson.js") + "\nexport default { render: renderLesson };\n"
    _css = static("style.css")

    title = traitlets.Unicode("").tag(sync=True)
    controls: traitlets.List[Any] = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    panels: traitlets.List[Any] = traitlets.List().tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    ack = traitlets.Int(0).tag(sync=True)

    def __init__(self, draw: Callable[..., Drawing], *, title: str = "", **controls: Slider | Choice) -> None:
        self._draw = draw
        self._drawn: Drawing | None = None
        super().__init__(title=title, controls=[_control(name, one) for name, one in controls.items()])
        self._controls = controls
        self.on_msg(self._hear)
        self.change(**{name: one.value for name, one in controls.items()})

    def change(self, **values: float | str) -> None:
        """Set controls, as a person would.

        Raises
        ------
        ValueError
            If there is no such control, or the value is not one of its own.
        """
        for name, value in values.items():
            control = self._controls.get(name)
            if control is None:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(self._controls)}")
            if isinstance(control, Choice) and value not in control.options:
                raise ValueError(f"{name} must be one of {', '.join(control.options)}, got {value!r}")
            if isinstance(control, Slider) and not control.low <= float(value) <= control.high:
                raise ValueError(f"{name} must lie between {control.low:g} and {control.high:g}, got {value!r}")
        chosen = {**self.values, **values}
        drawn = self._draw(**chosen)
        with self.hold_sync():
            self._drawn, self.values, self.note = drawn, chosen, drawn.note
            self.panels = [
                {"kind": p.kind, "title": p.title, "width": p.width, "height": p.height, "spec": p.spec}
                for p in drawn.panels
            ]

    def _hear(self, _: object, message: Any, buffers: object) -> None:
        """Follow the sliders. Whatever goes wrong is shown: nobody sees an exception in a browser."""
        with self.hold_sync():
            try:
                self.change(**message["values"])
                self.error = ""
            except Exception as error:
                self.error = str(error) or type(error).__name__
            self.ack = int(message["ack"])

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Add the picture that stands in where no script runs."""
        assert self._drawn is not None
        return with_picture(super()._repr_mimebundle_(**options), print_panels(*self._drawn))


def _control(name: str, control: Slider | Choice) -> dict[str, Any]:
    if isinstance(control, Choice):
        return {"name": name, "label": control.label, "options": list(control.options)}
    return {"name": name, "label": control.label, "min": control.low, "max": control.high, "step": control.step}


def _plain(values: Real[np.ndarray, " n"] | Sequence[float]) -> list[float | None]:
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float).tolist()]


def _levels(image: Real[np.ndarray, "right up"]) -> np.ndarray:
    data = np.asarray(image, dtype=np.float32)
    low = float(data.min())
    tissue = data[data > low]
    high = float(np.percentile(tissue, 99.8)) if tissue.size else low + 1.0
    return np.asarray(np.clip((data - low) * (255 / max(high - low, 1e-12)), 0, 255), dtype=np.uint8)
