"""The SQL beside a figure gives the very rows of its table, on the release as anyone else opens it."""

import csv
import html
import re
from pathlib import Path

import duckdb
import pytest

from .conftest import Site
from .test_browser import PAGES

FIGURE = re.compile(r"<figure .*?</figure>", re.DOTALL)
QUERY = re.compile(r'<details class="query">.*?<pre[^>]*><code>(.*?)</code>', re.DOTALL)
DATA = re.compile(r'href="data/([^"]+)\.csv"')


def figures(page: Path) -> list[tuple[str, str | None]]:
    """The table and the SQL of every figure with a table."""
    found = []
    for figure in FIGURE.findall(page.read_text(encoding="utf-8")):
        if table := DATA.search(figure):
            query = QUERY.search(figure)
            found.append((table[1], html.unescape(query[1]) if query else None))
    return found


def as_text(value: object) -> str:
    return "" if value is None else str(value)


@pytest.mark.parametrize("slug", PAGES)
@pytest.mark.parametrize("kind", ["site", "hostile_site", "ablated_site"])
def test_every_query_gives_the_rows_of_its_table(kind: str, slug: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(kind)
    path = site.folder / f"{slug}.html"
    for table, query in figures(path):
        assert query is not None, f"{table} has no query"
        with (site.folder / "data" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        with duckdb.connect(str(site.warehouse), read_only=True) as connection:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or []]
            expected = [[as_text(value) for value in row] for row in cursor.fetchall()]
        assert header[: len(names)] == names, table
        assert [row[: len(names)] for row in rows] == expected, table


def test_every_chart_has_a_query(site: Site) -> None:
    for slug in PAGES:
        for figure in FIGURE.findall((site.folder / f"{slug}.html").read_text(encoding="utf-8")):
            assert "data-chart" not in figure or QUERY.search(figure), f"{slug}: {figure[:120]}"
