"""Renew docs/reproduction.md and its figures: `python scripts/reproduction_page.py FOLDER COHORT`.

FOLDER is that of `lesionkit reproduce --preset cpu --cohort COHORT -o FOLDER`, finished or not. What stands above the
report in the page is kept; needs kaleido.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import plotly.graph_objects as go

from lesionkit.experiments import read_metrics
from lesionkit.io import read_cohort
from lesionkit.reproduce import ReproduceConfig, report_sections, reproduce

PAGE = Path(__file__).parents[1] / "docs" / "reproduction.md"
PICTURES = {
    "Tables 1 and 3": ("rates", "sizes"),
    "Tables 2 and 4": ("transfer",),
    "Figure 2a": ("calibration_paper", "calibration_joint"),
    "Figure 2b": ("uncertainty",),
}
"""Beginning of a section's title -> names of its figures."""
START = "Cohort of kind "
"""With this the report begins, below its title."""


def main() -> None:
    """Write the report, draw its figures, put both into the page."""
    folder, cohort = Path(sys.argv[1]), read_cohort(sys.argv[2])
    config = ReproduceConfig.preset("cpu")
    _, report = reproduce(folder, config, cohort=cohort, only_report=True)
    body = report.read_text(encoding="utf-8")
    (PAGE.parent / "reproduction").mkdir(exist_ok=True)
    shutil.copy(folder / "runs.tsv", PAGE.parent / "reproduction" / "runs.tsv")
    sections = report_sections(read_metrics(config.runs(), folder / "runs"), cohort, folder / "runs", config)
    for section in sections:
        names = next((names for title, names in PICTURES.items() if section.title.startswith(title)), ())
        links = [_draw(figure, name, section.title) for figure, name in zip(section.figures, names, strict=False)]
        body = body.replace(f"## {section.title}\n\n", f"## {section.title}\n\n{''.join(links)}")
    kept = PAGE.read_text(encoding="utf-8").partition(START)[0]
    PAGE.write_text(kept + START + body.partition(START)[2], encoding="utf-8")


def _draw(figure: go.Figure, name: str, title: str) -> str:
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")  # of the report's they take the page's colour
    figure.write_image(PAGE.parent / "reproduction" / f"{name}.webp", width=900, scale=1.5)
    return f"![{title}: {name.replace('_', ', ')}](reproduction/{name}.webp)\n\n"


if __name__ == "__main__":
    main()
