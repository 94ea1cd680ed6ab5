"""Run the benchmarks, target beside measured: `python -m benchmarks [--quick] [labels|detection|metrics|training ...]`.

`python -m benchmarks plugin` and `widgets` measure the views; they need napari and a screen, or Chromium, and run only
if named; so does `geodesic`, which compares libraries.
`python -m benchmarks resolution -o DIR` writes the resolution study of the detector instead.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from rich.console import Console
from rich.table import Table

MODULES = ("labels", "detection", "metrics", "explorer", "training")
ON_DEMAND = ("geodesic", "plugin", "widgets")
"""Run only if named."""


def main() -> None:
    """Print one table of all the modules asked for."""
    if sys.argv[1:2] == ["resolution"]:
        import_module("benchmarks.resolution").main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - {*MODULES, *ON_DEMAND}
    if unknown:
        parser.error(f"no such module: {', '.join(sorted(unknown))}; wanted {', '.join(MODULES)}")
    table = Table("what", "target", "measured", "")
    for name in arguments.modules or MODULES:
        for row in import_module(f"benchmarks.{name}").rows(quick=arguments.quick):
            mark = {True: "yes", False: "NO", None: ""}[row.reached]
            table.add_row(row.what, row.target, row.measured, mark)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
