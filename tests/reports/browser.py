"""A real browser for the pages, from files, without a network; it records what a page should not do."""

import os
import shutil
from pathlib import Path

import pytest
from playwright import sync_api

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no Chromium and no Chrome on the path"
)
"""Where the project is judged (CI), a missing browser is a failure."""


class Window:
    """A browser page that records what it should not do: messages on the console, errors, requests beyond files."""

    def __init__(self, page: "sync_api.Page") -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._check(request.url))

    def _check(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.problems.append(f"request: {url}")

    def open(self, path: Path) -> "sync_api.Page":
        """Open a page and wait until its charts are drawn."""
        self.page.goto(path.as_uri())
        self.wait()
        return self.page

    def wait(self) -> None:
        """Wait until all charts of the page are drawn."""
        if self.page.locator("[data-chart]").count():
            self.page.wait_for_selector("html[data-charts=drawn]", state="attached")
