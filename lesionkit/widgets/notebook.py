"""What every notebook begins with: how long it may take, and how its figures are shown."""

from __future__ import annotations

import os


def begin() -> bool:
    """Set plotly up for this notebook; True if it is to be quick (``LESIONKIT_FAST=1``).

    With ``LESIONKIT_STATIC=1``, figures are pictures only: for copies to read, on GitHub say, where no script runs.
    Otherwise JupyterLab draws them with its own plotly, instead of each notebook carrying one.
    """
    import plotly.io

    if os.environ.get("LESIONKIT_STATIC") == "1":
        import kaleido

        kaleido.start_sync_server(silence_warnings=True)  # one browser for all figures, instead of one each
        plotly.io.renderers.default = "png"
        picture = plotly.io.renderers["png"]
        picture.width, picture.height, picture.scale = 1100, 420, 1.0
        plotly.io.templates.default = "plotly_white"
    elif "notebook" in str(plotly.io.renderers.default):
        plotly.io.renderers.default = "plotly_mimetype"
    return os.environ.get("LESIONKIT_FAST") == "1"
