"""What every page has, in a real browser: both themes, narrow and wide, accessible, with its downloads."""

import csv
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

from timecourse.reports.charts import DARK_COLOURS

from .browser import Window, needs_browser
from .conftest import Site
from .test_browser import PAGES

pytestmark = needs_browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
EVERY_PAGE = (*PAGES, "dictionary")


LIKE_THOSE_ABOVE = "tbody tr:nth-child(n + 6):not(:last-child), svg g > *:nth-child(n + 40)"
"""Rows and marks that are like the first ones; axe-core takes a while for each."""


def serious_violations(window: Window, left_out: str | None, *rules: str) -> list[str]:
    """What axe-core finds that keeps people out, by all its rules or these: rule and the first element."""
    window.page.evaluate(AXE)
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": list(rules)} if rules else {})
    where = {"exclude": [[left_out]]} if left_out else {"include": [["html"]]}
    found = window.page.evaluate("([where, options]) => axe.run(where, options)", [where, options])
    return [
        f"{violation['id']}: {violation['nodes'][0]['html'][:200]} ({len(violation['nodes'])} times)"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(
    ("slug", "left_out"),
    [(slug, LIKE_THOSE_ABOVE) for slug in ("index", "transitions", "components", "causal")]
    + [pytest.param(slug, None, marks=pytest.mark.slow) for slug in EVERY_PAGE],
)
def test_no_page_keeps_anyone_out(window: Window, site: Site, slug: str, left_out: str | None) -> None:
    page = window.open(site.folder / f"{slug}.html")
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert serious_violations(window, left_out) == []
    page.select_option("#theme", "dark")
    window.wait()
    assert serious_violations(window, left_out, "color-contrast") == []


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("slug", EVERY_PAGE)
def test_no_page_is_wider_than_the_window(window: Window, site: Site, slug: str, width: int) -> None:
    window.page.set_viewport_size({"width": width, "height": 900})
    page = window.open(site.folder / f"{slug}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_chosen_theme_is_kept_and_redraws_the_charts(window: Window, site: Site) -> None:
    page = window.open(site.folder / "index.html")
    axis = "[data-chart] svg .role-axis-title text"
    background = "getComputedStyle(document.body).backgroundColor"
    light = (page.evaluate(background), page.locator(axis).first.get_attribute("fill"))
    page.select_option("#theme", "dark")
    window.wait()
    dark = (page.evaluate(background), page.locator(axis).first.get_attribute("fill"))
    assert light == ("rgb(255, 255, 255)", "#454c52")
    assert dark == ("rgb(21, 25, 28)", DARK_COLOURS["#454c52"])
    window.open(site.folder / "roles.html")
    assert page.locator("#theme").input_value() == "dark"
    assert page.evaluate(background) == dark[0]
    page.emulate_media(color_scheme="dark")
    page.select_option("#theme", "light")
    assert page.evaluate(background) == light[0]


def test_without_a_choice_the_system_decides(window: Window, site: Site) -> None:
    page = window.open(site.folder / "index.html")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-drawn=dark]")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 28)"
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-drawn=light]")


def test_a_dark_page_does_not_change_names(window: Window, hostile_site: Site) -> None:
    page = window.open(hostile_site.folder / "knowledge.html")
    titles = "#relation-accuracy svg .role-title-text, #relation-accuracy svg .role-column-title text"
    light = page.locator(titles).all_text_contents()
    page.select_option("#theme", "dark")
    window.wait()
    assert page.locator(titles).all_text_contents() == light
    assert page.evaluate("window.pwned") is None


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_charts_can_be_saved(window: Window, site: Site, tmp_path: Path, kind: str) -> None:
    page = window.open(site.folder / "index.html")
    with page.expect_download() as waiting:
        page.locator(f"#accuracy button[data-save={kind}]").click()
    assert waiting.value.suggested_filename == f"accuracy.{kind}"
    saved = tmp_path / f"chart.{kind}"
    waiting.value.save_as(saved)
    content = saved.read_bytes()
    assert content.startswith(b"<svg" if kind == "svg" else b"\x89PNG") and len(content) > 3000


def test_every_figures_files_hold_the_same_rows(site: Site) -> None:
    checked = 0
    for path in sorted(site.folder.glob("data/*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        with duckdb.connect() as connection:
            cursor = connection.execute("from read_parquet(?)", [str(path.with_suffix(".parquet"))])
            assert [column[0] for column in cursor.description or []] == header
            same = [["" if value is None else str(value) for value in row] for row in cursor.fetchall()]
        assert same == rows, path.name
        checked += len(rows)
    assert checked > 500
