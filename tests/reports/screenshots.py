"""Pictures of a report's pages for the docs: `python -m tests.reports.screenshots SITE FOLDER`, or `make screenshots`.

Writes <page>-<theme>.png of the top of every page of the report, light and dark.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from .browser import CHROMIUM, FLAGS

SIZE = {"width": 1100, "height": 1040}
"""Pixels of a picture."""


def main() -> None:
    """See the module."""
    site, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=theme)  # type: ignore[arg-type]
            for file in sorted(site.glob("*.html")):
                page.goto(file.as_uri())
                if page.locator("[data-chart]").count():
                    page.wait_for_selector("html[data-charts=drawn]", state="attached")
                name = "overview" if file.stem == "index" else file.stem
                page.screenshot(path=folder / f"{name}-{theme}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
