"""The pages say what the marts say, in every case, and no name or size breaks them."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import duckdb
import pytest

from timecourse.errors import UserError
from timecourse.reports.blocks import TABLE_ROW_LIMIT, Column, Table
from timecourse.reports.charts import training_axis
from timecourse.reports.page import embed_json
from timecourse.reports.partition import list_partitions, open_partition
from timecourse.reports.site import render_site

from .conftest import HOSTILE, Site, changed

PAGES = ("index", "knowledge", "roles", "stability", "transitions", "components", "causal", "data")
ROLE_ORDER = ["general", "entity", "relation_answer", "fact_answer", "inactive"]


def percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


# Files


def test_one_report_stands_at_the_root(site: Site) -> None:
    assert {path.name for path in site.folder.glob("*.html")} == {f"{slug}.html" for slug in (*PAGES, "dictionary")}
    assert sorted(site.files) == sorted(path for path in site.folder.rglob("*") if path.is_file())
    assert {path.name for path in (site.folder / "assets").iterdir()} == {
        "vega.js",
        "site.css",
        "site.js",
        "components.js",
        "lineage.js",
    }


def test_several_reports_have_folders_with_safe_names_and_an_index(many_site: Site) -> None:
    folders = sorted(path for path in many_site.folder.iterdir() if path.is_dir() and path.name != "assets")
    assert len(folders) == 2
    assert all(re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{8}", folder.name) for folder in folders)
    for folder in folders:
        assert {path.stem for path in folder.glob("*.html")} == set(PAGES)
    index = many_site.page("index")
    links = {element.attributes["href"] for element in index.elements if element.tag == "a"} - {"#content"}
    assert links == {f"{folder.name}/index.html" for folder in folders}
    assert "../../<b>'\"" in index.text
    assert not list(many_site.folder.parent.glob("*.html"))


def test_partitions_do_not_mix(many_site: Site) -> None:
    """The second tau has no history of L0H0: its own pages lack it, and the first tau's do not."""
    ((everything,),) = many_site.query("select count(*) from dim_components")
    totals = []
    for folder in (path for path in many_site.folder.iterdir() if path.is_dir() and path.name != "assets"):
        data = Site(folder, many_site.warehouse).page("components").json("component-data")
        totals.append(len(data["components"]))
    assert sorted(totals) == [everything - 1, everything]


def reports_by_series(site: Site) -> dict[str, Site]:
    """The reports of a site with several, by the first word of their series."""
    folders = [path for path in site.folder.iterdir() if path.is_dir() and path.name != "assets"]
    return {folder.name.split("-")[0]: Site(folder, site.warehouse) for folder in folders}


def test_the_reader_is_told_what_may_be_compared(series_site: Site, site: Site, many_site: Site) -> None:
    """Each overview says it of the other reports, the index of every pair once; the words are the mart's."""
    heading = "What else this release holds, and whether it may be compared"
    told = {
        series: report.page("index").text.split(heading)[1].split("SQL")[0].strip().split("\n")
        for series, report in reports_by_series(series_site).items()
    }
    assert told == {
        "post": ["side, τ = 5xNot to be compared: post & norm <is> not side.", "tiny, τ = 5xMay be compared."],
        "side": [
            "post & norm, τ = 5xNot to be compared: side <is> not post & norm.",
            "tiny, τ = 5xNot to be compared: side <is> not tiny.",
        ],
        "tiny": ["post & norm, τ = 5xMay be compared.", "side, τ = 5xNot to be compared: tiny <is> not side."],
    }
    assert series_site.page("index").text.split("Which reports may be compared")[1].strip().split("\n") == [
        "post & norm, τ = 5x, and side, τ = 5xNot to be compared: post & norm <is> not side.",
        "post & norm, τ = 5x, and tiny, τ = 5xMay be compared.",
        "side, τ = 5x, and tiny, τ = 5xNot to be compared: side <is> not tiny.",
    ]
    assert heading not in site.page("index").text
    assert "tiny, τ = ../../<b>'\", and tiny, τ = 5xMay be compared." in many_site.page("index").text


def test_the_roles_of_a_parallel_block_are_explained_as_such(series_site: Site) -> None:
    said = {
        series: ("In a parallel block" in text, "An FFN is one of two parts" in text)
        for series, report in reports_by_series(series_site).items()
        for text in [report.page("roles").text]
    }
    assert said == {"tiny": (False, True), "post": (False, True), "side": (True, False)}


def test_links_lead_to_files(site: Site, many_site: Site) -> None:
    for root in (site.folder, many_site.folder):
        for path in root.rglob("*.html"):
            page = Site(path.parent, path).page(path.stem)
            targets = [
                value
                for element in page.elements
                for name, value in element.attributes.items()
                if name in ("href", "src") and value and not value.startswith(("#", "data:"))
            ]
            assert targets
            for target in targets:
                file, _, anchor = target.partition("#")
                assert (path.parent / file).is_file(), f"{path.name}: {target}"
                if anchor:
                    assert f'id="{anchor}"' in (path.parent / file).read_text(encoding="utf-8"), target


def test_the_release_is_named_and_its_warehouse_not_touched(small_release: Path, tmp_path: Path, site: Site) -> None:
    assert f"release {small_release.name}" in site.page("roles").text
    shutil.copy(small_release / "warehouse.duckdb", tmp_path / "warehouse.duckdb")
    before = hashlib.sha256((tmp_path / "warehouse.duckdb").read_bytes()).hexdigest()
    render_site(tmp_path / "warehouse.duckdb", tmp_path / "site", "release-7")
    assert hashlib.sha256((tmp_path / "warehouse.duckdb").read_bytes()).hexdigest() == before
    assert {path.name for path in tmp_path.iterdir()} == {"warehouse.duckdb", "site"}
    assert "release release-7" in (tmp_path / "site" / "roles.html").read_text(encoding="utf-8")


def test_a_missing_warehouse_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no warehouse"):
        render_site(tmp_path / "warehouse.duckdb", tmp_path / "site")


def test_an_empty_warehouse_is_the_users_error(small_release: Path, tmp_path: Path) -> None:
    with changed(small_release, tmp_path) as connection:
        connection.execute("delete from dim_settings")
    with pytest.raises(UserError, match="no series"):
        render_site(tmp_path / "warehouse.duckdb", tmp_path / "site")


# Numbers


def test_headline_accuracy_is_the_marts(site: Site) -> None:
    rows = site.query(
        """select top1_accuracy, top1_low, top1_high, fact_count from fct_relation_accuracies
        join dim_checkpoints using (checkpoint_id) where scope_kind = 'all' order by checkpoint_index"""
    )
    text = site.page("index").text
    (first, *_), (last, *_) = rows[0], rows[-1]
    assert f"{percent(first)} → {percent(last)}" in text
    for accuracy, low, high, facts in (rows[0], rows[-1]):
        assert f"{percent(accuracy)} of {facts} facts (95 % interval {percent(low)} to {percent(high)})" in text


@pytest.mark.parametrize("metric", ["top1", "top10", "all_tokens"])
def test_accuracy_chart_is_the_mart(site: Site, metric: str) -> None:
    expected = site.query(
        f"""select checkpoint_index, {metric}_accuracy, {metric}_low, {metric}_high from fct_relation_accuracies
        join dim_checkpoints using (checkpoint_id) where scope_kind = 'all' order by checkpoint_index"""
    )
    drawn = [row for row in site.page("index").chart_rows("accuracy") if row["series"] == metric]
    assert [row["checkpoint_index"] for row in drawn] == [row[0] for row in expected]
    for row, (_, *values) in zip(drawn, expected, strict=True):
        assert [row["value"], row["low"], row["high"]] == pytest.approx(values, abs=1e-5)


def test_accuracy_by_relation_is_the_mart(site: Site) -> None:
    expected = site.query(
        """select scope_id, checkpoint_index, top10_accuracy, top10_high, majority_share from fct_relation_accuracies
        join dim_checkpoints using (checkpoint_id) where scope_kind = 'relation' order by all"""
    )
    drawn = sorted(
        (row["panel"], row["checkpoint_index"], row["top10_accuracy"], row["top10_high"], row["majority_share"])
        for row in site.page("knowledge").chart_rows("relation-accuracy")
    )
    assert [row[:2] for row in drawn] == [row[:2] for row in expected]
    for row, wanted in zip(drawn, expected, strict=True):
        assert row[2:] == pytest.approx(wanted[2:], abs=1e-5)


def test_role_counts_are_the_mart(site: Site) -> None:
    counts = {
        (kind, index, role): number
        for kind, index, role, number in site.query(
            """select component_kind, checkpoint_index, primary_role, count(*) from fct_component_histories
            join dim_checkpoints using (checkpoint_id) group by all"""
        )
    }
    roles = site.page("roles")
    checkpoints = len(site.query("from dim_checkpoints"))
    for kind in ("head", "ffn"):
        drawn = roles.chart_rows(f"counts-{kind}")
        assert len(drawn) == checkpoints * len(ROLE_ORDER)
        assert all(row["value"] == counts.get((kind, row["checkpoint_index"], row["series"]), 0) for row in drawn)
        total = sum(row["value"] for row in drawn if row["checkpoint_index"] == 0)
        shares = roles.chart_rows(f"shares-{kind}")
        assert all(
            row["share"] == pytest.approx(counts.get((kind, row["checkpoint_index"], row["role"]), 0) / total, abs=1e-5)
            for row in shares
        )
    table = site.page("index").body("overview-role-counts")
    indices = [0, (checkpoints - 1) // 2, checkpoints - 1]
    for role, line in zip(ROLE_ORDER, table, strict=True):
        wanted = [counts.get((kind, index, role), 0) for kind in ("head", "ffn") for index in indices]
        assert line == [role.replace("_", " "), *map(str, wanted)]


def test_share_that_changed_role_is_the_mart(site: Site) -> None:
    for kind, noun in (("head", "heads"), ("ffn", "FFNs")):
        ((changed_count, total),) = site.query(
            f"""select count(*) filter (where ever), count(*) from (
                select bool_or(has_changed) as ever from fct_component_histories
                where component_kind = '{kind}' group by component_id)"""
        )
        text = site.page("index").text
        assert f"{changed_count} of {total} {noun} changed their primary role at least once." in text
        assert percent(changed_count / total) in text


def test_lens_chart_is_the_mart(site: Site) -> None:
    expected = site.query(
        """select checkpoint_index, readout, top1_accuracy, median_rank from fct_layer_readouts
        join dim_checkpoints using (checkpoint_id) where relation_id = 'capital_of' order by all"""
    )
    (lists,) = (row for row in site.page("knowledge").chart_rows("lens") if row["relation"] == 0)
    drawn = list(zip(lists["checkpoint_index"], lists["readout"], lists["top1"], lists["rank"], strict=True))
    assert [row[:2] for row in drawn] == [row[:2] for row in expected]
    assert [row[2:] for row in drawn] == [pytest.approx(row[2:], abs=1e-5) for row in expected]


def test_csv_files_hold_every_row_unrounded(site: Site) -> None:
    expected = site.query(
        """select subject, first_token_rank, mean_log_prob from fct_fact_predictions
        join dim_facts using (fact_id) join dim_checkpoints using (checkpoint_id)
        where checkpoint_index = (select max(checkpoint_index) from dim_checkpoints)"""
    )
    with (site.folder / "data" / "knowledge-facts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["subject"], float(row["first_token_rank"]), float(row["mean_log_prob"])) for row in rows) == (
        sorted(expected)
    )


# Stages, siblings, names and seeds


def test_charts_over_training_count_from_the_beginning(staged_site: dict[str, Site]) -> None:
    site = staged_site["staged"]
    specification = site.page("index").specifications()["accuracy"]
    (positions,) = (
        rows for rows in find(specification, "values") if isinstance(rows, list) and rows and "line" in rows[0]
    )
    expected = site.query(
        """select checkpoint_name, cumulative_step from dim_checkpoints
        where series_id = 'staged' order by checkpoint_index"""
    )
    assert [(row["checkpoint"], row["x_step"]) for row in positions if row["checkpoint"] != "main"] == [
        row for row in expected if row[0] != "main"
    ]
    assert [row["line"] for row in positions] == (
        ["stage1-step0"] * 3 + ["stage2-ingredient1-step500"] * 2 + ["stage2-ingredient2-step500"] * 2
        + ["main"] + ["sft/step100"] * 2 + ["dpo/step60"] * 2
    )  # fmt: skip
    assert [row["boundary"] for rows in find(specification, "values") for row in rows if "boundary" in row][:3] == [
        "stage2",
        "sft",
        "dpo",
    ]


def find(node: object, key: str) -> list[list[dict[str, object]]]:
    """Every list of rows in a specification: under `key`, and every dataset."""
    if isinstance(node, list):
        return [rows for child in node for rows in find(child, key)]
    if not isinstance(node, dict):
        return []
    own = [node[key]] if isinstance(node.get(key), list) and node[key] and isinstance(node[key][0], dict) else []
    own += list(node.get("datasets", {}).values())
    return own + [rows for name, child in node.items() if name not in (key, "datasets") for rows in find(child, key)]


def test_tables_say_stage_and_branch_where_there_are_several(staged_site: dict[str, Site]) -> None:
    heading, *lines = staged_site["staged"].page("index").tables["overview-accuracy"]
    assert heading[:4] == ["Checkpoint", "Phase", "Stage", "Branch"]
    assert ["stage2-ingredient2-step1200", "pretraining", "stage2", "ingredient2"] in [line[:4] for line in lines]
    assert staged_site["seed 1"].page("index").tables["overview-accuracy"][0][:2] == ["Checkpoint", "Facts"]


def test_shares_of_siblings_are_bars_in_order(staged_site: dict[str, Site], site: Site) -> None:
    marks = {
        name: [layer["mark"]["type"] for layer in rendered.page("roles").specifications()["shares-head"]["layer"]]
        for name, rendered in (("staged", staged_site["staged"]), ("plain", site))
    }
    assert marks == {"staged": ["bar"], "plain": ["area"]}


# Cases at the edge


def test_one_checkpoint_renders_in_words(small_site: Site) -> None:
    assert "→" not in small_site.page("index").text.split("What was measured")[0]
    assert "1 checkpoint: " in small_site.page("index").text


def test_a_relation_of_one_fact_has_no_interval(small_site: Site) -> None:
    row = next(
        row for row in small_site.page("knowledge").chart_rows("relation-accuracy") if row["panel"] == "leader_of"
    )
    assert row["top1_low"] is None and row["top1_high"] is None and row["facts"] == 1
    line = next(
        line for line in small_site.page("knowledge").body("knowledge-relation-accuracy") if "leader_of" in line
    )
    assert line[4:6] == ["n/a", "n/a"]


def test_no_page_shows_a_python_null(site: Site, small_site: Site, hostile_site: Site) -> None:
    for rendered in (site, small_site, hostile_site):
        for slug in PAGES:
            assert not re.search(r"\b(None|nan|NaN|NULL|Undefined)\b", rendered.page(slug).text), slug


def test_number_and_noun_agree(site: Site, small_site: Site) -> None:
    for rendered in (site, small_site):
        for slug in PAGES:
            text = rendered.page(slug).text
            assert not re.search(
                r"(?<![\d,.–])1 (facts|checkpoints|heads|FFNs|relations|rows|checks|prompts)\b", text
            ), slug


# Safety


def test_hostile_names_are_text(hostile_site: Site, site: Site) -> None:
    for slug in PAGES:
        page, plain = hostile_site.page(slug), site.page(slug)
        assert {element.tag for element in page.elements} <= {element.tag for element in plain.elements} | {"pre"}
        assert not [name for element in page.elements for name in element.attributes if name.startswith("on")]
        sources = [(s.attributes.get("src"), s.attributes.get("id")) for s in page.scripts]
        assert sources == [(s.attributes.get("src"), s.attributes.get("id")) for s in plain.scripts]
        for script in page.scripts:
            if "src" not in script.attributes:
                assert script.attributes["type"] == "application/json"
                assert not set("<>&") & set(script.text)
                json.loads(script.text)
    text = hostile_site.page("knowledge").text
    for name in ("capital_of", "tiny", "main", "France", "Paris"):
        assert HOSTILE[name] in text, name
    panels = {row["panel"] for row in hostile_site.page("knowledge").chart_rows("relation-accuracy")}
    assert panels == {HOSTILE["capital_of"], "leader_of"}
    with (hostile_site.folder / "data" / "knowledge-facts.csv").open(encoding="utf-8", newline="") as file:
        assert HOSTILE["Paris"] in [row["object"] for row in csv.DictReader(file)]


def test_embedded_json_survives_every_character() -> None:
    value = {"a": "</script><!-- & \u2028 \u2029 \" ' \\ é 😀", "b": [None, 1.5, True]}
    assert json.loads(embed_json(value)) == value
    assert not set("<>&\u2028\u2029") & set(embed_json(value))


def test_pages_name_no_remote_host(site: Site, hostile_site: Site, many_site: Site) -> None:
    for rendered in (site, hostile_site, many_site):
        files = [path for path in rendered.folder.rglob("*") if path.suffix in (".html", ".css", ".js")]
        for path in files:
            if path.name != "vega.js":
                assert "//" not in re.sub(r"(^|\s)//\s.*", "", path.read_text(encoding="utf-8"), flags=re.M), path
        for path in rendered.folder.rglob("*.html"):
            page = Site(path.parent, path).page(path.stem)
            (policy,) = (e.attributes["content"] or "" for e in page.elements if "http-equiv" in e.attributes)
            assert policy.startswith("default-src 'none'; script-src 'self' file:;")
            assert "unsafe" not in policy and "http" not in policy
            assert not [e for e in page.elements if "style" in e.attributes or e.tag == "style"]


# Size


def test_pages_and_assets_are_small(site: Site) -> None:
    assert sum(path.stat().st_size for path in (site.folder / "assets").iterdir()) < 1_500_000
    assert max(path.stat().st_size for path in site.folder.glob("*.html")) < 500_000


@pytest.mark.slow
def test_pages_stay_small_for_a_large_model(small_release: Path, tmp_path: Path) -> None:
    """48 layers of 48 heads at 40 checkpoints, with long examples; nothing else in the release, not even its checks."""
    with changed(small_release, tmp_path) as connection:
        connection.execute("create table one as from dim_checkpoints where is_reference")
        connection.execute("create table example as from fct_component_examples limit 1")
        for (table,) in connection.execute(
            """select table_name from duckdb_tables()
            where table_name not in ('one', 'example', 'dim_series', 'dim_settings')"""
        ).fetchall():
            connection.execute(f"delete from {table}")
        connection.execute("drop table fct_check_results")
        connection.execute(
            """insert into dim_checkpoints by name
            select one.* replace (n as checkpoint_index, 'c' || n as checkpoint_id, 'c' || n as checkpoint_name,
                1000 * n as step, n = 39 as is_reference) from one, range(40) as numbers (n)"""
        )
        connection.execute(
            """insert into dim_components by name
            select series_id, 'L' || layer || coalesce('H' || head, 'F') as component_id, layer, head,
                if(head is null, 'ffn', 'head') as component_kind
            from dim_series, range(48) as layers (layer), (select nullif(n, 48) as head from range(49) as heads (n))"""
        )
        connection.execute(
            """insert into fct_component_histories by name
            select series_id, setting_id, tau_id, checkpoint_id, component_id, component_kind, layer, head,
                'general' as primary_role, false as has_changed, checkpoint_id as role_since_checkpoint_id,
                0 as change_count, 0.123 as rate_all, 0.456 as rate_entity, 0.789 as rate_relation_max,
                'a relation' as relation_max_id, 0 as relation_answer_count, 0 as fact_answer_count
            from dim_settings join dim_checkpoints using (series_id, setting_id)
            join dim_components using (series_id)"""
        )
        connection.execute(
            """insert into fct_component_examples by name
            select example.* exclude (component_id, component_kind, example_rank, sentence_before),
                dim_components.component_id, dim_components.component_kind, rank as example_rank,
                repeat('word ', 20) as sentence_before
            from example, dim_components, range(1, 6) as ranks (rank)"""
        )
    render_site(tmp_path / "warehouse.duckdb", tmp_path / "site")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "site").glob("*.html")}
    assert max(sizes.values()) < 3_000_000, sizes
    data = Site(tmp_path / "site", tmp_path / "warehouse.duckdb").page("components").json("component-data")
    assert len(data["components"]) == 48 * 49
    assert {len(component["examples"]) for component in data["components"]} == {data["examplesPerComponent"]}
    knowledge = Site(tmp_path / "site", tmp_path / "warehouse.duckdb").page("knowledge")
    assert not knowledge.specifications()
    assert "No accuracies in this release." in knowledge.text
    assert "no check results" in Site(tmp_path / "site", tmp_path / "warehouse.duckdb").page("data").text


def test_long_tables_show_their_beginning_and_keep_the_rest(tmp_path: Path) -> None:
    table = Table("numbers", [Column("number", "Number", "count")], [{"number": number} for number in range(1000)])
    assert len(table.shown) == TABLE_ROW_LIMIT
    table.write(tmp_path)
    assert len((tmp_path / "numbers.csv").read_text(encoding="utf-8").splitlines()) == 1001


# The axis


def checkpoints(steps: list[int | None], tokens: list[int | None] | None = None) -> list[dict[str, object]]:
    return [
        {"checkpoint_index": index, "checkpoint_name": f"step{step}" if step is not None else f"name {index}",
         "checkpoint_id": str(index), "previous_checkpoint_id": str(index - 1) if index else None,
         "label": str(step) if step is not None else f"name {index}", "step": step, "cumulative_step": step,
         "tokens": tokens[index] if tokens else None, "phase": "pretraining", "stage": None, "branch": "main",
         "stage_number": 1 if step is not None else 2}
        for index, step in enumerate(steps)
    ]  # fmt: skip


def places(*rows: tuple[str, str | None, str, int | None, int | None]) -> list[dict[str, object]]:
    """Checkpoints by phase, stage, branch, step from the beginning, and the number of the one before."""
    stages = list(dict.fromkeys((phase, stage, stage is None and step is None) for phase, stage, _, step, _ in rows))
    return [
        {"checkpoint_index": index, "checkpoint_name": f"c{index}", "checkpoint_id": str(index), "label": f"c{index}",
         "previous_checkpoint_id": None if before is None else str(before), "step": step, "cumulative_step": step,
         "tokens": None, "phase": phase, "stage": stage, "branch": branch,
         "stage_number": 1 + stages.index((phase, stage, stage is None and step is None))}
        for index, (phase, stage, branch, step, before) in enumerate(rows)
    ]  # fmt: skip


SIBLINGS = places(
    ("pretraining", "stage1", "main", 0, None),
    ("pretraining", "stage1", "main", 100, 0),
    ("pretraining", "stage2", "a", 120, 1),
    ("pretraining", "stage2", "a", 140, 2),
    ("pretraining", "stage2", "b", 110, 1),
    ("pretraining", None, "main", None, None),
    ("sft", None, "main", 160, 5),
    ("sft", None, "main", None, 6),
)


def test_siblings_are_lines_of_their_own() -> None:
    axis = training_axis(SIBLINGS)
    assert [row["line"] for row in axis.rows] == ["c0", "c0", "c2", "c2", "c4", "c5", "c6", "c6"]
    assert not axis.has_one_line
    only_child = places(
        ("pretraining", "stage1", "main", 0, None),
        ("pretraining", "stage2", "a", 10, 0),
        ("pretraining", "stage3", "main", 20, 1),
    )
    assert training_axis(only_child).has_one_line
    kept = places(
        ("pretraining", "stage1", "main", 0, None),
        ("pretraining", "stage2", "main", 10, 0),
        ("pretraining", "stage2", "mix", 10, 0),
    )
    assert [row["line"] for row in training_axis(kept).rows] == ["c0", "c0", "c2"]


def test_a_sibling_that_ended_early_is_not_the_end() -> None:
    early = places(
        ("p", "1", "main", 0, None), ("p", "1", "main", 1, 0), ("p", "2", "a", 100, 1), ("p", "2", "b", 5, 1)
    )
    axis = training_axis(early)
    assert axis.default == "step_log" and axis.modes["step"]["encoding"]["scale"]["domain"] == [0, 100]


def test_stages_and_phases_begin_at_their_first_checkpoint() -> None:
    axis = training_axis(SIBLINGS)
    assert [(row["boundary"], row["x_step"], row["x_order"]) for row in axis.boundaries] == [
        ("stage2", 110, 2),
        ("sft", 160, 6),
    ]
    assert "vertical line" in axis.note and "from the beginning" in axis.note
    assert training_axis(checkpoints([0, 1, None])).boundaries == []
    instruct = places(("pretraining", None, "main", 5, None), ("instruct", None, "main", None, 0))
    assert [row["boundary"] for row in training_axis(instruct).boundaries] == ["instruct"]


@pytest.mark.parametrize(("mode", "between"), [("step", 150), ("step_log", 149.666)])
def test_a_name_without_a_step_stands_between_its_neighbours(mode: str, between: float) -> None:
    axis = training_axis(SIBLINGS)
    assert [row[f"x_{mode}"] for row in axis.rows] == [0, 100, 120, 140, 110, between, 160, 192]
    ticks = axis.modes[mode]["encoding"]["axis"]
    assert '"c5"' in ticks["labelExpr"] and '"c7"' in ticks["labelExpr"]
    assert set(ticks["values"][-2:]) == {between, axis.rows[-1][f"x_{mode}"]}


def test_axis_is_logarithmic_where_steps_are_uneven() -> None:
    assert training_axis(checkpoints([0, 1, 2, 4, 8, 512, 143_000])).default == "step_log"
    assert training_axis(checkpoints([0, 1000, 2000, 3000])).default == "step"


def test_ticks_are_whole_steps() -> None:
    for steps in ([0, 1, 2], [0, 3], [0, 1, 2, 4, 8, 512], [0, 1000, 2000, 3000]):
        for mode in ("step", "step_log"):
            ticks = training_axis(checkpoints(steps)).modes[mode]["encoding"]["axis"]["values"]
            assert ticks and all(tick == int(tick) for tick in ticks), (steps, mode, ticks)


def test_checkpoints_without_a_step_follow_under_their_name() -> None:
    axis = training_axis(checkpoints([0, 100, 200, None, None]))
    assert [row["x_step"] for row in axis.rows] == [0, 100, 200, 300, 400]
    assert axis.modes["step"]["encoding"]["scale"]["domain"] == [0, 400]
    ticks = axis.modes["step"]["encoding"]["axis"]
    assert ticks["values"][-2:] == [300, 400] and 200 in ticks["values"]
    assert '"name 3"' in ticks["labelExpr"] and '"name 4"' in ticks["labelExpr"]
    positions = [row["x_step_log"] for row in axis.rows]
    assert positions == sorted(positions) and len(set(positions)) == 5


def test_axis_by_tokens_needs_tokens() -> None:
    assert "tokens" in training_axis(checkpoints([0, 1, 2], [0, 10, 20])).modes
    axis = training_axis(checkpoints([0, 1, 2], [None, 10, 20]))
    assert "tokens" not in axis.modes and "training tokens" in axis.note
    assert training_axis(checkpoints([0, 1, 2], [0, 10, 20])).note == ""


def test_steps_that_start_again_leave_the_order_only() -> None:
    axis = training_axis(checkpoints([0, 1000, 50, 100]))
    assert list(axis.modes) == ["order"] and axis.default == "order"
    assert "does not grow" in axis.note


def test_checkpoints_are_called_by_name_where_steps_start_again(small_release: Path, tmp_path: Path) -> None:
    def labels() -> list[str]:
        with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
            (key,) = list_partitions(connection)
            return list(open_partition(connection, key, "release").labels.values())

    with changed(small_release, tmp_path):
        pass
    assert labels() == ["step 0", "step 100", "main"]
    with changed(small_release, tmp_path) as connection:
        connection.execute("update dim_checkpoints set step = 50 where checkpoint_index = 2")
    assert labels() == ["step0", "step100-tokens1B", "main"]


@pytest.mark.parametrize("steps", [[None], [0], [7]])
def test_one_checkpoint_has_an_axis(steps: list[int | None]) -> None:
    for mode in training_axis(checkpoints(steps)).modes.values():
        low, high = mode["encoding"]["scale"]["domain"]
        assert low < high
