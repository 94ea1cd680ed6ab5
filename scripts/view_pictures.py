"""Take the pictures of the views again: docs/explorer*.png, docs/dashboard.png, docs/report.png.

`python scripts/view_pictures.py`, from the repository; needs Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from lesionkit.widgets.cases import SAMPLES, sample_case
from lesionkit.widgets.dashboard import served
from lesionkit.widgets.page import export_page

DOCS = Path(__file__).parents[1] / "docs"
FLAGS = ["--no-sandbox", "--disable-gpu"]
PATIENCE = 240_000
"""Milliseconds."""


def main() -> int:
    """Take all of them."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        print("Chromium is needed: apt-get install chromium", file=sys.stderr)
        return 2
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        case = sample_case("gad")
        explorer = case.explorer()
        explorer.go_to_step(2, 1)
        page = export_page(explorer, Path(folder) / "page.html", title=case.title)
        for name, scheme, overlay, phase in (
            ("explorer", "light", "heatmap", 1),
            ("explorer_dark", "dark", "residual", 2),
        ):
            view = opened(browser, page.as_uri(), scheme=scheme, height=930)
            view.locator("select[data-name=overlay]").select_option(overlay)
            view.locator("input[data-name=answer]").check()
            view.locator("input[data-name=cursor]").fill(str(3 * 2 + phase))
            taken(view, name)
        with served(patience_s=PATIENCE / 1000) as server:
            view = opened(browser, server.url, scheme="light", height=1180)
            view.get_by_role("combobox").first.select_option(f"sample: {SAMPLES['gad']}")
            view.wait_for_function(f"document.querySelector('.lk-head strong')?.innerText === {SAMPLES['gad']!r}")
            view.get_by_role("button", name="compare two sigmas").click()
            view.wait_for_function("document.querySelectorAll('.lk-compact[data-drawn]').length === 2")
            taken(view, "dashboard")
        subprocess.run([sys.executable, "-m", "lesionkit.cli", "demo", "-o", folder], check=True, capture_output=True)
        report = Path(folder) / "sample_flair_report.html"
        view = opened(browser, report.as_uri(), scheme="light", height=950)
        taken(view, "report")
    return 0


def opened(browser: Browser, url: str, *, scheme: str, height: int) -> Page:
    """Open a page that has an explorer, and wait until it is drawn."""
    page = browser.new_page(viewport={"width": 1400, "height": height}, color_scheme=scheme, bypass_csp=True)
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_selector(".lk[data-drawn]")
    return page


def taken(page: Page, name: str) -> None:
    """Take the picture, once nothing moves any more."""
    page.wait_for_timeout(1500)
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement?.blur()")
    page.screenshot(path=DOCS / f"{name}.png")
    page.close()
    print(f"docs/{name}.png")


if __name__ == "__main__":
    sys.exit(main())
