"""The explorer, and small views that each teach one thing, in notebooks and browsers: anywidgets without CDN or build.

`explorer` shows a :class:`~lesionkit.explorer.Explorer`, `packing` says what of it the browser needs, `printing` draws
the picture that stands in where no browser script runs; `lesson` is a function of a few sliders that draws panels,
`lessons` are those functions; `page` writes a page that needs no kernel, `dashboard` serves one that has a kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lesionkit.widgets.explorer import ExplorerWidget, compare_sigmas, explore
    from lesionkit.widgets.lesson import Lesson
    from lesionkit.widgets.page import export_page

__all__ = ["ExplorerWidget", "Lesson", "compare_sigmas", "explore", "export_page"]

_HOME = {
    "ExplorerWidget": "explorer",
    "Lesson": "lesson",
    "compare_sigmas": "explorer",
    "explore": "explorer",
    "export_page": "page",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
