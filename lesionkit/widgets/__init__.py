"""The explorer, and small views that each teach one thing, in notebooks and browsers: anywidgets without CDN or build.

`explorer` shows a :class:`~lesionkit.explorer.Explorer`, `packing` says what of it the browser needs, `printing` draws
the picture that stands in where no browser script runs; `lesson` is a function of a few sliders that draws panels,
`lessons` are those functions; `page` writes a page that needs no kernel, `dashboard` serves one that has a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazy_loader import attach

if TYPE_CHECKING:
    from lesionkit.widgets.explorer import ExplorerWidget, compare_sigmas, explore
    from lesionkit.widgets.lesson import Lesson
    from lesionkit.widgets.page import export_page

__all__ = ["ExplorerWidget", "Lesson", "compare_sigmas", "explore", "export_page"]

__getattr__, __dir__, _ = attach(
    __name__,
    submod_attrs={
        "explorer": ["ExplorerWidget", "compare_sigmas", "explore"],
        "lesson": ["Lesson"],
        "page": ["export_page"],
    },
)
