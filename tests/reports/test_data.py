"""The page Data: every check, table and file is on it, and the picture of where tables come from says what is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from timecourse.dictionary import read_lineage
from timecourse.reports.pages.data.lineage import build_lineage
from timecourse.reports.site import render_site

from .browser import Window, needs_browser
from .conftest import Site


def test_every_check_is_listed(site: Site, hostile_site: Site) -> None:
    """With how often it ran and passed; what did not pass stands with its rows."""
    expected = site.query(
        """select check_id, count(*), count(*) filter (where result = 'pass'), sum(failing_row_count)
        from fct_check_results group by check_id"""
    )
    lines = {line[-1]: (int(line[1]), int(line[2]), int(line[5])) for line in site.page("data").body("data-checks")}
    assert lines == {check: tuple(counts) for check, *counts in expected}
    assert max(runs for runs, _, _ in lines.values()) > 1
    ((missed,),) = site.query("select count(*) from fct_check_results where result <> 'pass'")
    assert ("Every check passed." in site.page("data").text) == (missed == 0)
    hostile = hostile_site.page("data")
    failed = next(line for line in hostile.body("data-not-passed") if line[0] == "fail")
    assert failed[1] == "a rule </td></table>"
    assert failed[2] == "n/a"
    assert "window.pwned = 6" in failed[4]
    assert "1 failure;" in hostile_site.page("index").text


def test_what_was_not_used_is_listed_with_its_reason(staged_site: dict[str, Site]) -> None:
    page = staged_site["staged"].page("data")
    found = {line[0]: line[1:5] for line in page.body("data-names")}
    assert found == {
        "stage1-step1500": ["duplicate", "stage1-step2000", "has the weights of step 2000", "yes"],
        "stage2-ingredient2-step500": ["left out", "n/a", "n/a", "yes"],
        "sft/main": ["alias", "sft/step200", "another name", "yes"],
        "dpo/step50": ["failed", "n/a", "<b>the parts</b> miss the stream", "no"],
        "dpo/step60": ["no longer offered", "n/a", "n/a", "yes"],
        "dpo/step70": ["left out", "n/a", "not selected", "no"],
        "dpo/torn": ["unusable", "n/a", "no safetensors", "no"],
    }
    assert "7 of 17 names." in page.text
    assert (
        "16 names, of which 10 are used; 2 left out, 1 alias, 1 duplicate, 1 unusable, 1 failed and 1 no longer offered"
        in staged_site["staged"].page("index").text
    )
    names = [line[:3] for line in page.body("data-checkpoints")]
    assert ["stage1-step2000", "n/a", "stage1-step1500"] in names and ["sft/step200", "sft/main", "n/a"] in names


def test_every_table_of_the_release_is_counted(site: Site, many_site: Site) -> None:
    """Of several reports, each counts its own rows."""
    expected = {
        table: site.query(f"select count(*) from {table}")[0][0]
        for (table,) in site.query("select table_name from duckdb_tables()")
    }
    counted = {name: int(count.replace(",", "")) for name, count in site.page("data").body("data-tables")}
    assert counted == expected
    for folder in (path for path in many_site.folder.iterdir() if path.is_dir() and path.name != "assets"):
        lines = Site(folder, many_site.warehouse).page("data").body("data-tables")
        assert dict(lines)["fct_turnovers"] == f"{expected['fct_turnovers']:,}"


@pytest.mark.parametrize("kind", ["site", "hostile_site", "small_site"])
def test_every_file_of_the_report_can_be_got_from_one_list(kind: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(kind)
    page = site.page("data")
    links = [e.attributes["href"] or "" for e in page.elements if e.tag == "a" and "download" in e.attributes]
    beside = {f"data/{path.name}" for path in (site.folder / "data").iterdir()}
    assert set(links) == beside
    listed = {line[3] for line in page.body("data-downloads")}
    assert len(listed) == len(page.body("data-downloads")) == len(beside) / 2
    rows = {line[1]: line[2] for line in page.body("data-downloads") if line[0] == "Data"}
    assert rows["All checks"] == f"{site.query('select count(distinct check_id) from fct_check_results')[0][0]:,}"


def behind(entries: dict[str, dict[str, Any]], name: str) -> set[str]:
    """The raw tables that a table is made from."""
    if entries[name]["layer"] == "raw":
        return {name}
    return {raw for source in entries[name]["reads"] for raw in behind(entries, source)}


def test_the_picture_holds_every_table_and_what_it_reads() -> None:
    """Staging models are left out: what reads one of them reads its raw table."""
    entries = {entry["name"]: entry for entry in read_lineage()}
    lineage = build_lineage(list(entries.values()))
    staging = {name for name, entry in entries.items() if entry["layer"] == "staging"}
    assert {node.name for node in lineage.nodes} == set(entries) - staging
    drawn = {(lineage.nodes[source].name, lineage.nodes[target].name) for source, target, _ in lineage.edges}
    expected = {
        (raw, name)
        for name, entry in entries.items()
        if name not in staging
        for source in entry["reads"]
        for raw in (entries[source]["reads"] if source in staging else [source])
    }
    assert drawn == expected
    assert [node.number for node in lineage.nodes] == list(range(len(lineage.nodes)))

    for node in lineage.nodes:
        assert set(node.raw_tables) == (set() if node.layer == "raw" else behind(entries, node.name))
        assert 0 < node.x < lineage.width and 0 < node.y < lineage.height


def test_the_page_says_the_picture_in_words(site: Site) -> None:
    lines = {line[0]: line for line in site.page("data").body("lineage-reads")}
    entries = {entry["name"]: entry for entry in read_lineage()}
    for name in ("fct_turnovers", "fct_claims", "dim_facts"):
        assert lines[name][3] == ", ".join(sorted(behind(entries, name)))
    assert lines["attributions"][1:] == ["raw", "nothing", "n/a"]
    assert lines["dim_facts"][2] == "int_facts"


def test_a_release_without_lineage_says_so(small_release: Path, tmp_path: Path) -> None:
    """One that an earlier version made, and one that nothing describes."""
    said = "This release does not say what its tables were made from."
    for name, described in (("old", True), ("bare", False)):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(small_release / "warehouse.duckdb", folder)
        if described:
            tables = json.loads((small_release / "dictionary.json").read_text(encoding="utf-8"))["tables"]
            (folder / "dictionary.json").write_text(json.dumps({"tables": tables}), encoding="utf-8")
        render_site(folder / "warehouse.duckdb", folder / "site")
        page = Site(folder / "site", folder / "warehouse.duckdb").page("data")
        assert said in page.text
        assert ("data dictionary" in page.text) == described


def test_an_unknown_input_is_left_out_of_the_picture() -> None:
    lineage = build_lineage(
        [
            {"name": "raw_one", "layer": "raw", "reads": []},
            {"name": "dim_one", "layer": "marts", "reads": ["raw_one", "gone"]},
        ]
    )
    assert [(source, target) for source, target, _ in lineage.edges] == [(0, 1)]
    assert lineage.selected == 1


@needs_browser
@pytest.mark.parametrize("width", [1280, 360])
def test_the_lines_of_a_table_are_followed(window: Window, site: Site, width: int) -> None:
    window.page.set_viewport_size({"width": width, "height": 900})
    page = window.open(site.folder / "data.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lines = {line[0]: line for line in site.page("data").body("lineage-reads")}

    def marked(css: str) -> set[str]:
        return set(page.locator(f"#lineage text.{css}").all_text_contents())

    assert marked("own") == {"fct_component_histories"}
    page.locator("#lineage-table").select_option(label="dim_relations")
    assert marked("own") == {"dim_relations"}
    raw = {name for name, line in lines.items() if line[1] == "raw"}
    assert marked("on") & raw == set(lines["dim_relations"][3].split(", "))
    words = page.locator("#lineage-words").inner_text()
    assert words.startswith(f"Made from {len(marked('on') & raw)} raw tables")
    assert page.locator("#lineage path.before").count() and page.locator("#lineage path.after").count()
    page.locator("#lineage text", has_text="dim_settings").click()
    assert marked("own") == {"dim_settings"}
    assert page.locator("#lineage-table option:checked").inner_text() == "dim_settings"
    page.locator("#lineage-table").select_option("")
    assert not marked("own") and not marked("on") and page.locator("#lineage-words").inner_text() == ""
