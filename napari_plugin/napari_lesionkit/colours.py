"""Colours of everything that the plugin draws; verdicts look as they do in the reports."""

from __future__ import annotations

from collections.abc import Mapping
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
    (-1.00, "#d9f6ff"),
    (-0.60, "#35b6ff"),
    (-0.25, "#0d4f9e"),
    (0.00, "#000000"),
    (0.15, "#4a0f5c"),
    (0.35, "#a52c60"),
    (0.60, "#e8602d"),
    (0.80, "#fbb61a"),
    (1.00, "#fcffc9"),
)


def rgba(colour: str, alpha: float = 1.0) -> Float[np.ndarray, "4"]:
    """Return a colour like ``#2fbf8f`` as red, green, blue and opacity, 0 to 1."""
    return np.array([*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), alpha], dtype=np.float32)


def residual_colormap() -> Colormap:
    """Return the signed scale of residuals: warm above 0, black at 0, blue where too much was subtracted."""
    from napari.utils import Colormap

    controls = [(place + 1.0) / 2.0 for place, _ in _RESIDUAL]
    return Colormap([rgba(colour) for _, colour in _RESIDUAL], controls=controls, name="lesionkit residual")


def heat_colormap() -> Colormap:
    """Return the upper half of the residual's scale: a heatmap looks like its residual before the first step."""
    from napari.utils import Colormap

    upper = [(place, colour) for place, colour in _RESIDUAL if place >= 0]
    return Colormap([rgba(colour) for _, colour in upper], controls=[p for p, _ in upper], name="lesionkit heat")
