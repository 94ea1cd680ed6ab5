"""napari plugin of lesionkit: watch a predicted heatmap being taken apart into lesions, and tune how it is done.

`session` ties the state (`lesionkit.explorer`) to a viewer; `layers` is what it shows there, made of `marks` and of
`rings` on the slice that `slices` finds; `placement` and `reader` say how volumes lie in napari. `widget` is the dock,
made of `panels`, `charts` and `controls`; `network` runs a checkpoint in a `process`, `export` writes what was found.
Importing the package loads neither napari nor Qt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesionkit import __version__

if TYPE_CHECKING:
    from napari_lesionkit.widget import LesionkitWidget

__all__ = ["LesionkitWidget", "__version__"]


def __getattr__(name: str) -> object:
    if name == "LesionkitWidget":
        from napari_lesionkit.widget import LesionkitWidget

        return LesionkitWidget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
