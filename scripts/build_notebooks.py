"""Build the notebooks from `notebooks/source/*.py` (percent format): copies to read, for students, and with solutions.

Run from the repository: `python scripts/build_notebooks.py [NAME ...]`; `--no-run` renews texts only. A
rebuild on the same machine gives the same bytes: cell ids come from place and kind, outputs keep pictures, tables and
text only, none of them says how long something took. `--check` builds again, writes nothing, and says which cells
differ from the copies that are there.

In a source, lines between `# solution` and `# end` in a cell tagged `exercise` are what students are to write.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
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
PICTURES = FOLDER.parent / "docs" / "lessons"
MAIN = {"00_start_here": 0, "01_labels": 1, "02_training": 0, "03_detection": 1, "04_calibration": 3, "05_transfer": 0}
"""Which of a notebook's pictures stands for it in the gallery."""
COLAB = f"""import sys

if "google.colab" in sys.modules:
    %pip install -q "lesionkit[notebooks] @ git+https://github.com/{REPOSITORY}"
"""


def main() -> int:
    """Build what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 03_detection; all by default")
    parser.add_argument(
        "--no-run", action="store_true", help="renew texts only; outputs stay, where no code has changed"
    )
    parser.add_argument("--check", action="store_true", help="compare a new build with the copies, and write nothing")
    wanted = parser.parse_args()
    same = True
    sources = sorted((FOLDER / "source").glob("*.py"))
    for source in sources:
        if wanted.names and source.stem not in wanted.names:
            continue
        if wanted.check:
            differences = compared(source, run=not wanted.no_run)
            print(f"{source.stem}:", "; ".join(differences) or "the same bytes", flush=True)
            same = same and not differences
        else:
            build(source, run=not wanted.no_run)
            print(source.stem, flush=True)
    return 0 if same else 1


def build(source: Path, *, run: bool, folder: Path = FOLDER, pictures: Path = PICTURES) -> None:
    """Write all copies of one notebook, and its main picture."""
    for place, notebook in copies(source, run=run, folder=folder):
        write(folder / place, notebook)
    if run:
        pictures.mkdir(exist_ok=True, parents=True)
        (pictures / f"{source.stem}.png").write_bytes(pictures_of(notebook)[MAIN[source.stem]])


def pictures_of(notebook: Any) -> list[bytes]:
    """Return the pictures of a notebook that was run."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


def copies(source: Path, *, run: bool, folder: Path = FOLDER) -> Iterator[tuple[str, Any]]:
    """Make all copies of one notebook; gives where each belongs."""
    for kind in ("student", "solution"):
        yield f"{kind}/{source.stem}.ipynb", read(source, kind)
    place = f"{source.stem}.ipynb"
    if run:
        yield place, executed(read(source, "reader"))
    elif (folder / place).is_file():
        notebook = read(source, "reader")
        before = nbformat.read(folder / place, 4).cells
        new, old = ([cell.source for cell in cells if cell.cell_type == "code"] for cells in (notebook.cells, before))
        if new != old:
            raise SystemExit(f"{source.name}: its code has changed since it was run; run it again, without --no-run")
        outputs = iter([cell for cell in before if cell.cell_type == "code"])
        for cell in notebook.cells:
            if cell.cell_type == "code":
                ran = next(outputs)
                cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        yield place, notebook


def compared(source: Path, *, run: bool, folder: Path = FOLDER) -> list[str]:
    """Say what differs between a new build and the copies that are there."""
    differences = []
    for place, made in copies(source, run=run, folder=folder):
        path = folder / place
        if path.read_text(encoding="utf-8") == text_of(made):
            continue
        pairs = zip(nbformat.read(path, 4).cells, made.cells, strict=False)
        cells = [str(number) for number, (old, new) in enumerate(pairs) if old != new]
        differences.append(f"{place} differs in cells {', '.join(cells) or 'added or removed'}")
    return differences


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


def executed(notebook: Any, *, timeout: float = 3600) -> Any:
    """Run a notebook, and keep what can be read anywhere and is the same each time.

    It runs where no patients have been fetched: no real one comes into a copy.
    """
    for name in ("LESIONKIT_DATA", "LESIONKIT_FAST"):
        os.environ.pop(name, None)
    os.environ |= {"LESIONKIT_STATIC": "1", "OMP_NUM_THREADS": THREADS, "OMP_WAIT_POLICY": "passive"}
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    metadata = copy.deepcopy(notebook.metadata)
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": empty}},
            record_timing=False, allow_errors=False, coalesce_streams=True,  # else printed lines part by chance
        ).execute()  # fmt: skip
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in map(cleaned, cell.outputs) if output is not None]
    notebook.metadata = metadata  # without the version of Python, and widgets that no kernel has any more
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
    """Write a notebook."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text_of(notebook), encoding="utf-8")


def text_of(notebook: Any) -> str:
    """Return the text of a notebook's file, with a newline at its end."""
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
