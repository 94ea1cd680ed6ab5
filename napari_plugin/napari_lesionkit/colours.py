"""Colours of everything that the plugin draws; verdicts look as they do in the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float
    from napari.utils import Colormap

VERDICTS: Final[Mapping[str, str]] = {
    "tp": "#2fbf8f",
    "fp": "#f2725c",
    "fn": "#4aa8ff",
    "kept": "#2fbf8f",
    "below": "#98a2ae",
}
"""Hit, false alarm, missed lesion, detection where no truth is known, candidate below the threshold."""
CURRENT: Final = "#ffd54a"
"""What the current step is about: its maximum, its window, its Gaussian."""
RIVAL: Final = "#c79bff"
"""What the other mode finds."""
TRUTH: Final = "#e8eef5"
"""True points of which nothing is said yet."""

_RESIDUAL: Final = (
    (-1.00, "#e6fbff", 0.95),
    (-0.60, "#3fc1ff", 0.92),
    (-0.25, "#1767c4", 0.80),
    (-0.06, "#0b2e63", 0.35),
    (0.00, "#000000", 0.00),
    (0.06, "#2a0a4a", 0.35),
    (0.20, "#7a1d6d", 0.75),
    (0.40, "#cf4446", 0.90),
    (0.65, "#f8850f", 0.93),
    (0.85, "#fcc94c", 0.95),
    (1.00, "#fffbd0", 0.97),
)


@cache
def rgba(colour: str, alpha: float = 1.0) -> Float[np.ndarray, "4"]:
    """Return a colour like ``#2fbf8f`` as red, green, blue and opacity, 0 to 1; read-only."""
    found = np.array([*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), alpha], dtype=np.float32)
    found.setflags(write=False)
    return found


def residual_colormap(*, see_through: bool) -> Colormap:
    """Return the signed scale of residuals: warm above 0, nothing at 0, blue where too much was subtracted.

    Parameters
    ----------
    see_through : bool
        Let what is below shine through, the more the closer to 0.
    """
    return _colormap("lesionkit residual", [((p + 1) / 2, c, a) for p, c, a in _RESIDUAL], see_through)


def heat_colormap() -> Colormap:
    """Return the upper half of the residual's scale: a heatmap looks like its residual before the first step."""
    return _colormap("lesionkit heat", [entry for entry in _RESIDUAL if entry[0] >= 0], True)


def _colormap(name: str, entries: Sequence[tuple[float, str, float]], see_through: bool) -> Colormap:
    from napari.utils import Colormap

    colours = [rgba(colour, alpha if see_through else 1.0) for _, colour, alpha in entries]
    return Colormap(colours, controls=[place for place, _, _ in entries], name=name + ("" if see_through else " solid"))
