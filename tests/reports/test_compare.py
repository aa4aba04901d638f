"""Series stand side by side as the marts say, from either side, and what may not be compared does not."""

import csv
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from timecourse.reports.page import drawn as drawn_as_svg
from timecourse.reports.page import write_assets, write_page
from timecourse.reports.pages import compare
from timecourse.reports.partition import list_partitions, open_partition

from .browser import Window, needs_browser
from .conftest import HOSTILE, PageReader, Site

QUERY = re.compile(r'<pre [^>]*aria-label="SQL of [^>]*><code>(.*?)</code>', re.DOTALL)
PAIR = ("value", "value_low", "value_high", "other_value", "other_low", "other_high")


@pytest.fixture
def pages(staged_release: Path, tmp_path: Path) -> Callable[..., dict[str, PageReader]]:
    """The page of every series of the release with seeds, after statements that change it; none where not needed."""

    def write(*statements: str) -> dict[str, PageReader]:
        warehouse = tmp_path / "warehouse.duckdb"
        warehouse.write_bytes((staged_release / "warehouse.duckdb").read_bytes())
        write_assets(tmp_path / "assets")
        with duckdb.connect(str(warehouse)) as connection:
            for statement in statements:
                connection.execute(statement)
            keys = list_partitions(connection)
        found = {}
        for number, key in enumerate(keys):
            with duckdb.connect(str(warehouse), read_only=True) as connection:
                partition = open_partition(connection, key, "a release")
                if compare.is_needed(partition):
                    folder = tmp_path / str(number)
                    folder.mkdir()
                    write_page(compare.build(partition), partition, folder, "../", [])
                    found[key[0]] = PageReader(folder / "compare.html")
        return found

    return write


def as_text(value: object) -> str:
    return "" if value is None else str(value)


def csv_rows(page: PageReader, table: str) -> list[dict[str, str]]:
    with (page.path.parent / "data" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(page: PageReader, figure: str, names: tuple[str, ...]) -> dict[tuple[Any, ...], list[Any]]:
    """What a chart of lists draws: pair, statistic, panel and checkpoint -> the values of these names."""
    return {
        (row["pair"], row["statistic"], row["panel"], index): list(values)
        for row in page.chart_rows(figure)
        for index, *values in zip(row["checkpoint_index"], *(row[name] for name in names), strict=True)
    }


def near(values: tuple[Any, ...]) -> list[Any]:
    return [None if value is None else pytest.approx(value, abs=1e-5) for value in values]


# Numbers


@pytest.mark.parametrize(("series", "other", "columns"), [
    ("seed 1", "seed 2", PAIR), ("seed 2", "seed 1", PAIR[3:] + PAIR[:3]),
])  # fmt: skip
def test_either_side_of_a_pair_sees_it(
    staged_site: dict[str, Site], series: str, other: str, columns: tuple[str, ...]
) -> None:
    own = "checkpoint_id" if series == "seed 1" else "other_checkpoint_id"
    sign = 1 if series == "seed 1" else -1
    site = staged_site[series]
    expected = site.query(
        f"""select statistic, component_kind, checkpoint_index, {", ".join(columns)}, difference
        from fct_series_comparisons as pairs
        join dim_checkpoints as own on own.checkpoint_id = pairs.{own} and own.setting_id = pairs.setting_id
        where pairs.series_id = 'seed 1' and pairs.other_series_id = 'seed 2'"""
    )
    page = site.page("compare")
    panels = {"all": "the whole model", "head": "heads", "ffn": "FFNs"}
    values = drawn(page, "side-by-side", ("value", "low", "high", "other", "other_low", "other_high"))
    differences = drawn(page, "differences", ("value",))
    compared = [key for key in values if key[0] == 0 and key[2] in panels.values()]
    assert len(expected) > 30 and len(compared) == len(expected)
    for statistic, kind, index, *numbers, difference in expected:
        key = (0, statistic, panels[kind], index)  # seeds stand first
        assert values[key] == near(tuple(numbers))
        assert differences[key] == [pytest.approx(sign * difference, abs=1e-5)]
    assert f"{other} (another seed of its recipe)" in page.text


def test_two_recipes_stand_beside_two_seeds(staged_site: dict[str, Site]) -> None:
    """From the side that the mart names second; the seeds' distance is in the chart and bounds the differences."""
    site = staged_site["staged"]
    expected = site.query(
        """select series_id, statistic, component_kind, distance, seed_distance, ratio from fct_series_distances
        where other_series_id = 'staged' order by all"""
    )
    page = site.page("compare")
    rows = csv_rows(page, "compare-distances")
    assert sorted(
        (row["other_series_id"], row["statistic"], row["component_kind"], row["distance"], row["seed_distance"],
         row["ratio"]) for row in rows
    ) == sorted(tuple(as_text(value) for value in row) for row in expected)  # fmt: skip
    beside = [row for row in expected if row[4] is not None]
    further = sum(row[3] > row[4] for row in beside)
    assert f"Other recipes are further apart than seeds in {further} of {len(beside)} comparisons" in page.text
    seeds = {(row[1], row[2]): row[4] for row in expected if row[0] == "seed 1"}
    for row in csv_rows(page, "compare-differences"):
        if row["other_series_id"] == "seed 1":
            assert row["seed_distance"] == as_text(seeds[row["statistic"], row["component_kind"]])
    layers = {layer["mark"]["type"] for layer in page.specifications()["distances"]["layer"]}
    assert layers == {"tick", "point"}
    alone = staged_site["seed 3"].page("compare")
    assert "Whether two seeds have" not in alone.text and "Whether two seeds have" not in page.text


def test_overlaps_of_seeds_are_the_mart(staged_site: dict[str, Site]) -> None:
    site = staged_site["seed 1"]
    expected = site.query(
        """select checkpoint_index, component_kind, role, iou from fct_recipe_overlaps
        join dim_checkpoints using (series_id, setting_id, checkpoint_id) where series_id = 'seed 1' order by all"""
    )
    panels = {"heads": "head", "FFNs": "ffn"}
    shown = sorted(
        (row["checkpoint_index"], panels[row["panel"]], row["role"], row["iou"])
        for row in site.page("compare").chart_rows("seed-overlaps")
    )
    assert [row[:3] for row in shown] == [row[:3] for row in expected]
    assert [row[3:] for row in shown] == [tuple(near(row[3:])) for row in expected]
    assert any(row[3] is None for row in expected), "the release cannot show an overlap that is n/a"


def test_every_query_gives_its_table(staged_site: dict[str, Site]) -> None:
    checked = 0
    for site in staged_site.values():
        text = (site.folder / "compare.html").read_text(encoding="utf-8")
        tables = re.findall(r'href="data/([^"]+)\.csv"', text)
        queries = [html.unescape(query) for query in QUERY.findall(text)]
        for table, query in zip(tables, queries, strict=True):
            with (site.folder / "data" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            with duckdb.connect(str(site.warehouse), read_only=True) as connection:
                cursor = connection.execute(query)
                names = [column[0] for column in cursor.description or []]
                expected = [[as_text(value) for value in row] for row in cursor.fetchall()]
            assert header[: len(names)] == names and [row[: len(names)] for row in rows] == expected, table
            checked += len(rows)
    assert checked > 300


def test_series_are_listed_with_what_they_are(staged_site: dict[str, Site]) -> None:
    page = staged_site["seed 1"].page("compare")
    assert [line[:4] for line in page.body("compare-what")] == [
        ["seed 1", "this series", "n/a", "n/a"],
        ["seed 2", "another seed of its recipe", "3", "end, step"],
        ["seed 3", "another recipe", "1", "end"],
        ["staged", "another recipe", "1", "end"],
    ]
    assert "3 of 3 stand beside it." in page.text and "(the last of both)" in page.text


# Cases at the edge


def test_no_page_where_nothing_stands_beside(site: Site, many_site: Site) -> None:
    for rendered in (site, many_site):
        assert not list(rendered.folder.rglob("compare.html"))
    assert "compare.html" not in [element.attributes.get("href") for element in site.page("roles").elements]


def test_it_stands_in_the_navigation(staged_site: dict[str, Site]) -> None:
    links = [e.attributes["href"] for e in staged_site["seed 3"].page("roles").elements if e.tag == "a"]
    assert links.index("compare.html") == links.index("causal.html") + 1


def test_what_may_not_be_compared_is_said_and_not_drawn(pages: Callable[..., dict[str, PageReader]]) -> None:
    """`staged` made parallel, as the marts would have it: no rows of it, and the reason in words."""
    mine = "'staged' in (series_id, other_series_id)"
    found = pages(
        "update dim_series set block = 'parallel' where series_id = 'staged'",
        f"update dim_series_pairs set is_comparable = false, reason = 'blocks <differ>' where {mine}",
        *(f"delete from {mart} where {mine}" for mart in ("fct_series_comparisons", "fct_series_distances")),
    )
    assert set(found) == {"seed 1", "seed 2", "seed 3"}
    page = found["seed 1"]
    line = page.body("compare-what")[-1]
    assert line[:2] == ["staged", "not compared"] and line[-1] == "blocks <differ>"
    assert "2 of 3 stand beside it; 1 may not be compared." in page.text
    assert {row["pair"] for row in page.chart_rows("side-by-side")} == {0, 1}
    assert "staged" not in {row["other"] for row in page.chart_rows("distances")}


def test_a_series_at_two_taus_stands_beside_itself(pages: Callable[..., dict[str, PageReader]]) -> None:
    found = pages(
        "delete from dim_settings where series_id <> 'seed 3'",
        "delete from fct_series_distances where not (series_id = 'seed 3' and other_series_id = 'staged')",
        "delete from fct_series_comparisons where not (series_id = 'seed 3' and other_series_id = 'staged')",
        """update dim_series_pairs set other_series_id = 'seed 3', other_tau_id = '0.1', is_comparable = false,
            reason = 'other tau' where series_id = 'seed 3' and other_series_id = 'staged'""",
        "delete from dim_series_pairs where reason is null",
        *(
            f"""update {mart} set other_series_id = 'seed 3', other_tau_id = '0.1', pair_kind = 'same_series',
            differs_in = 'tau', {names}"""
            for mart, names in (
                ("fct_series_comparisons", "other_checkpoint_id = checkpoint_id, matched_by = 'checkpoint'"),
                ("fct_series_distances", "seed_pair_count = null, seed_distance = null, ratio = null"),
            )
        ),
        "drop table fct_recipe_overlaps",
    )
    page = found["seed 3"]
    assert "seed 3, τ = 0.1 (this series, measured otherwise)" in page.text
    assert page.body("compare-what")[1][1:4] == ["this series, measured otherwise", "1", "checkpoint"]
    assert "No other recipe stands beside it." in page.text


def test_figures_for_a_manuscript_are_drawn(staged_release: Path) -> None:
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        partition = open_partition(connection, list_partitions(connection)[0], "a release")
        figures = {figure.figure_id: figure.specification for figure in compare.build(partition).figures}
    assert list(figures) == ["series", "side-by-side", "differences", "distances", "seed-overlaps"]
    assert all("mark-symbol" in drawn_as_svg(chart) for chart in figures.values() if chart is not None)


# In the browser


@needs_browser
@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.slow)])
def test_every_choice_is_drawn(
    window: Window, pages: Callable[..., dict[str, PageReader]], width: int, staged_release: Path
) -> None:
    """With hostile names; the window fails the test for any warning of an empty scale."""
    hostile = {"seed 2": HOSTILE["tiny"], "staged": HOSTILE["main"]}
    with duckdb.connect(str(staged_release / "warehouse.duckdb"), read_only=True) as connection:
        columns = connection.execute(
            "select table_name, column_name from duckdb_columns() where column_name in ('series_id', 'other_series_id')"
        ).fetchall()
    found = pages(
        *(
            f"""update {table} set {column} = '{other.replace("'", "''")}' where {column} = '{name}'"""
            for table, column in columns
            for name, other in hostile.items()
        )
    )
    page = found["seed 1"]
    window.page.set_viewport_size({"width": width, "height": 900})
    opened = window.open(page.path)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    names = opened.locator("#compared_series option").all_inner_texts()
    assert {name.rsplit(" (", 1)[0] for name in names} >= set(hostile.values())
    values = drawn(page, "side-by-side", ("value", "other"))
    pairs, statistics = (
        opened.locator(f"#{control} option").evaluate_all("options => options.map(option => option.value)")
        for control in ("compared_series", "compared_statistic")
    )
    for pair in pairs:
        opened.select_option("#compared_series", pair)
        for statistic in statistics:
            opened.select_option("#compared_statistic", statistic)
            points = [key for key in values if key[:2] == (int(pair), statistic)]
            headings = {panel for _, _, panel, _ in points}
            for figure, marks in (("side-by-side", 2), ("differences", 1)):
                opened.wait_for_function(
                    """([figure, count]) => document.querySelectorAll(
                        `#${figure} .mark-symbol path[aria-label]`).length === count""",
                    arg=[figure, marks * len(points)],
                )
                assert headings <= set(opened.locator(f"#{figure} svg text").all_text_contents())
                opened.wait_for_function(
                    """figure => {
                        const edge = document.querySelector(`#${figure} .chart svg`).getBoundingClientRect().bottom;
                        return [...document.querySelectorAll(`#${figure} .chart svg text`)]
                            .every(text => text.getBoundingClientRect().bottom <= edge + 1);
                    }""",
                    arg=figure,
                )
            heading = "not compared in this statistic"
            is_missing = opened.locator("#differences .mark-symbol path[opacity='0']").count() > 0
            assert is_missing == (headings == {heading})
    assert opened.evaluate("window.pwned") is None
