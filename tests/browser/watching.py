"""A page under watch, and notebooks to open in it."""

from __future__ import annotations

import json

from playwright.sync_api import ConsoleMessage, Page

PATIENCE = 120_000
"""Milliseconds: a busy machine is slow, not wrong."""


class Watched:
    """A page, and all that it must not do."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)
        page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def check(self) -> None:
        """Fail if anything was logged as an error, or asked of another machine."""
        assert self.complaints == []
        assert [url for url in self.requests if url.startswith("http") and "//127.0.0.1:" not in url] == []

    # ------------------------------------------------------------------ the explorer on the page
    def wait_drawn(self, root: str = ".lk") -> None:
        self.page.wait_for_selector(f"{root}[data-drawn]", state="attached")
        self.page.wait_for_function("r => document.querySelector(r + ' canvas').width > 50", arg=root)

    def read(self, name: str, root: str = ".lk") -> str:
        return str(self.page.evaluate("([r, n]) => document.querySelector(r).dataset[n]", [root, name]))

    def wait_for(self, name: str, value: str, root: str = ".lk") -> None:
        self.page.wait_for_function(
            "([r, n, v]) => document.querySelector(r).dataset[n] === v", arg=[root, name, value]
        )

    def pixels(self, selector: str) -> str:
        """What a canvas shows, once two frames in a row are the same."""
        return str(
            self.page.evaluate(
                """async s => {
                    const shown = () => document.querySelector(s).toDataURL();
                    for (let before = "", now = shown(); before !== now;) {
                        before = now;
                        await new Promise(done => setTimeout(done, 150));
                        now = shown();
                    }
                    return shown();
                }""",
                selector,
            )
        )


def notebook_of(*sources: str) -> str:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell{n}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        for n, source in enumerate(sources)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells})
