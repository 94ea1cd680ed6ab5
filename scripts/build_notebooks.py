"""Build the notebooks from `notebooks/source/*.py` (percent format): copies to read, for students, and with solutions.

Run from the repository: `python scripts/build_notebooks.py [NAME ...]`; `--no-run` leaves the copies to read alone. A
rebuild gives the same bytes: cell ids come from place and kind, outputs keep pictures, tables and text only.

In a source, lines between `# solution` and `# end` in a cell tagged `exercise` are what students are to write.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

REPOSITORY = "lesionkit/lesionkit"
"""On GitHub: where Binder and Colab find the notebooks."""
FOLDER = Path(__file__).parents[1] / "notebooks"
SOLUTION = re.compile(r"^([ ]*)# solution\n(.*?)^[ ]*# end\n?", flags=re.DOTALL | re.MULTILINE)
THREADS = "2"
"""Of the kernel: sums of floats depend on their order, and so on the number of threads."""
KEPT = ("image/png", "text/html", "text/plain")
"""What outputs of the copies to read may hold."""
COLAB = f"""import sys

if "google.colab" in sys.modules:
    %pip install -q "lesionkit[notebooks] @ git+https://github.com/{REPOSITORY}"
"""


def main() -> int:
    """Build what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 03_detection; all by default")
    parser.add_argument("--no-run", action="store_true", help="build the students' copies and solutions only")
    wanted = parser.parse_args()
    sources = sorted((FOLDER / "source").glob("*.py"))
    for source in sources:
        if wanted.names and source.stem not in wanted.names:
            continue
        build(source, run=not wanted.no_run)
        print(source.stem)
    return 0


def build(source: Path, *, run: bool, folder: Path = FOLDER) -> None:
    """Write all copies of one notebook."""
    name = source.stem
    for kind in ("student", "solution"):
        write(folder / kind / f"{name}.ipynb", read(source, kind))
    if run:
        path = folder / f"{name}.ipynb"
        write(path, executed(read(source, "reader")))


def read(source: Path, kind: str) -> Any:
    """Return a copy without outputs."""
    notebook = jupytext.read(source)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    cells = notebook.cells
    where = f"{kind}/{source.stem}" if kind != "reader" else source.stem
    cells[0].source += "\n\n" + badges(where)
    cells.insert(1, nbformat.v4.new_code_cell(COLAB.strip(), metadata={"tags": ["colab"]}))
    for number, cell in enumerate(cells):
        cell.id = hashlib.sha1(f"{source.stem}/{number}/{cell.cell_type}".encode()).hexdigest()[:8]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "exercise" in cell.metadata.get("tags", []):
            inside = r"\1...  # your turn\n" if kind == "student" else r"\2"
            cell.source = SOLUTION.sub(inside, cell.source + "\n").strip()
    return notebook


def badges(where: str) -> str:
    """Links that open a copy elsewhere."""
    colab = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{where}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{REPOSITORY}/main?labpath=notebooks%2F{where.replace('/', '%2F')}.ipynb"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def executed(notebook: Any, *, folder: Path = FOLDER, timeout: float = 3600) -> Any:
    """Run a notebook, and keep what can be read anywhere and is the same each time."""
    os.environ |= {"LESIONKIT_STATIC": "1", "OMP_NUM_THREADS": THREADS, "OMP_WAIT_POLICY": "passive"}
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
        record_timing=False, allow_errors=False,
    ).execute()  # fmt: skip
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in map(cleaned, cell.outputs) if output is not None]
    notebook.metadata.pop("widgets", None)
    return notebook


def cleaned(output: Any) -> Any:
    """Drop what changes from run to run or needs a script; None if nothing is left."""
    if output.output_type == "stream":
        return None if output.name == "stderr" else output
    if output.output_type not in ("display_data", "execute_result"):
        return output
    data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
    if "image/png" in data:  # with a word for those who cannot see it, which must not name an address in memory
        data = {"image/png": data["image/png"], "text/plain": "(a picture)"}
    if re.search(r" at 0x[0-9a-f]+", str(data.get("text/plain", ""))) or not data:
        return None
    output.data, output.metadata = nbformat.from_dict(data), nbformat.from_dict({})
    return output


def write(path: Path, notebook: Any) -> None:
    """Write a notebook, with a newline at its end."""
    path.parent.mkdir(exist_ok=True, parents=True)
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
