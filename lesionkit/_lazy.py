"""Public names of a package that load their module on first use: importing the package costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def load_on_use(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562).

    Parameters
    ----------
    package : str
        Its `__name__`.
    home : mapping
        Public name -> the module of the package that defines it.
    """
    here = vars(sys.modules[package])

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        here[name] = value = getattr(import_module(f"{package}.{home[name]}"), name)
        return value

    def names() -> list[str]:
        return sorted({*here, *home})

    return get, names
