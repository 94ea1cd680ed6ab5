"""The documentation site: `make docs` builds it offline, and any warning is an error."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import lesionkit  # noqa: E402 (found by the path above)

# The notebooks to read are pages too; they lie elsewhere, so that the repository has one of each.
pages = HERE / "notebooks"
shutil.rmtree(pages, ignore_errors=True)
pages.mkdir()
for path in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    shutil.copyfile(path, pages / path.name)

project = "lesionkit"
author = copyright = "The lesionkit developers"
release = version = lesionkit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]  # the second: where myst-nb puts pictures
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# links to files of the repository that are no pages; attributes of several classes that share a name
suppress_warnings = ["myst.xref_missing", "ref.python"]

autodoc_typehints = "none"  # the docstrings say types, shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"
nitpicky = False

html_theme = "furo"
html_title = "lesionkit"
html_static_path: list[str] = []
