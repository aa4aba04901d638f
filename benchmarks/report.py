"""What a report costs: rendering it, its size, and how soon each page can be used in headless Chromium.

1. Write a raw lake of OLMo-7B's shape (raw_lakes.py), build its warehouse and publish a release; or take the current
release of `--lake`. 2. Render its report, some times over. 3. Open every page from its file, some times over, and wait
until all of its charts are drawn, which is when its controls work.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from playwright.sync_api import sync_playwright

from benchmarks.raw_lakes import write_lake
from timecourse.build import build_warehouse
from timecourse.lake import Lake
from timecourse.release import publish
from timecourse.reports.site import render_site

ROUNDS = 3
OUT = Path(__file__).parent / "out"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def main() -> None:
    """Measure, write `out/report.json` and `out/report.md`, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=40)
    parser.add_argument("--lake", type=Path, help="a lake with a release; none is made then")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        release = _released(Path(folder) / "lake", options.checkpoints) if options.lake is None else options.lake
        result = _measure((release / "current" / "warehouse.duckdb").resolve(), Path(folder) / "site")
    OUT.mkdir(exist_ok=True)
    (OUT / "report.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (OUT / "report.md").write_text(_tables(result), encoding="utf-8")
    sys.stdout.write(_tables(result))


def _released(root: Path, count: int) -> Path:
    """A lake of so many checkpoints of OLMo-7B's shape, with a release."""
    write_lake(root, count)
    lake = Lake(root)
    contents = lake.contents()
    derivation = {"theta": "0.1", "replicates": 1000, "seed": 0}
    built = build_warehouse(root, complete_series=contents.complete_series, contents=contents, **derivation)
    publish(lake, contents, derivation, built.checks)
    return root


def _measure(warehouse: Path, site: Path) -> dict[str, Any]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        counts = connection.execute(
            "select (select count(*) from dim_checkpoints), (select count(*) from dim_components)"
        ).fetchall()[0]
    rendering = []
    for _ in range(ROUNDS):
        shutil.rmtree(site, ignore_errors=True)
        start = time.perf_counter()
        render_site(warehouse, site)
        rendering.append(time.perf_counter() - start)
    files = [file for file in site.rglob("*") if file.is_file()]
    return {
        "checkpoints": counts[0],
        "components": counts[1],
        "render_seconds": rendering,
        "bytes": sum(file.stat().st_size for file in files),
        "page_bytes": {file.name: file.stat().st_size for file in files if file.suffix == ".html"},
        "usable_seconds": _usable_seconds(site),
    }


def _usable_seconds(site: Path) -> dict[str, list[float]]:
    """Seconds from the start of loading a page to its last chart, by page; each time in a new browser context."""
    spent: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for file in sorted(site.glob("*.html")) * ROUNDS:
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(file.as_uri())
            if page.locator("[data-chart]").count():
                page.wait_for_selector("html[data-charts=drawn]", state="attached")
            spent.setdefault(file.name, []).append(time.perf_counter() - start)
            page.close()
        browser.close()
    return spent


def _tables(result: dict[str, Any]) -> str:
    lines = [
        "| checkpoints | components | rendering, seconds (median) | all files, MB |",
        "|---|---|---|---|",
        f"| {result['checkpoints']} | {result['components']} | {statistics.median(result['render_seconds']):.1f} | "
        f"{result['bytes'] / 1e6:.1f} |",
        "",
        "| page | MB | usable after, seconds (median) |",
        "|---|---|---|",
    ]
    lines += [
        f"| {page} | {result['page_bytes'][page] / 1e6:.2f} | {statistics.median(seconds):.2f} |"
        for page, seconds in result["usable_seconds"].items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
