"""The page on silenced components says what the marts say, whatever was silenced where; and what to do if nothing."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from timecourse.reports.page import write_page
from timecourse.reports.pages import causal
from timecourse.reports.partition import list_partitions, open_partition

from .conftest import HOSTILE, PageReader, Site, changed, silence, tables_with

LABELS = {
    "general": "general",
    "entity": "entity",
    "relation_answer": "relation answer",
    "fact_answer": "fact answer",
}
MEASURES = {"score": "attribution score", "rate": "activity rate", "c_direct": "direct contribution"}
MARTS = ("fct_role_effects", "fct_relation_specificities", "fct_score_effects")


@pytest.fixture
def pages(small_release: Path, tmp_path: Path) -> Callable[..., dict[str, PageReader]]:
    """The page of every series and τ of the ablated release, after statements that change it."""

    def write(*statements: str) -> dict[str, PageReader]:
        with changed(small_release, tmp_path) as connection:
            silence(connection)
            for statement in statements:
                connection.execute(statement)
        found: dict[str, PageReader] = {}
        with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
            keys = list_partitions(connection)
        for key in keys:
            with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
                partition = open_partition(connection, key, "a release")
                folder = tmp_path / f"page-{len(found)}"
                folder.mkdir(exist_ok=True)
                write_page(causal.build(partition), partition, folder, "", [])
            found[f"{key[0]} {key[2]}"] = PageReader(folder / "causal.html")
        return found

    return write


def three(number: float | None) -> str:
    return "n/a" if number is None else f"{number:,.3f}"


def near(values: tuple[Any, ...]) -> list[Any]:
    """Numbers to the charts' five decimals; null is null."""
    return [pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for value in values]


def cells(page: PageReader, figure: str) -> list[tuple[Any, ...]]:
    """What a matrix draws: checkpoint, method, row, column, effect, interval and facts of every cell."""
    return [
        (row["at"], row["method"], *cell)
        for row in page.chart_rows(figure)
        for cell in zip(*(row[name] for name in ("own", "scored", "effect", "low", "high", "facts")), strict=True)
    ]


# Numbers


def test_effects_and_random_sets_are_the_mart(ablated_site: Site) -> None:
    """The whole, not a relation; a checkpoint that was not ablated has no point, missing random sets are null."""
    expected = ablated_site.query(
        """select method, role, checkpoint_index, effect, effect_low, effect_high, random_mean, random_low, random_high,
            random_count
        from fct_role_effects join dim_checkpoints using (checkpoint_id) where scope_kind = 'all' order by all"""
    )
    columns = ("value", "low", "high", "others", "others_low", "others_high", "others_count")
    rows = ablated_site.page("causal").chart_rows("effects")
    drawn = sorted(
        (row["method"], row["role"], row["checkpoint_index"], *(row[column] for column in columns))
        for row in rows
        if row["value"] is not None
    )
    assert [list(row) for row in drawn] == [near(row) for row in expected]
    assert {row[2] for row in drawn} == {0, 2}
    assert {row[1] for row in drawn if row[6] is None} == {"fact_answer"}
    interrupted = [(row["role"], row["checkpoint_index"]) for row in rows if row["value"] is None]
    assert interrupted == [("entity", 0)] * 2, "one for each method"


def test_damage_to_language_is_the_mart(ablated_site: Site) -> None:
    expected = ablated_site.query(
        """select method, role, checkpoint_index, template_effect, random_template_mean
        from fct_role_effects join dim_checkpoints using (checkpoint_id) where scope_kind = 'all' order by all"""
    )
    drawn = sorted(
        (row["method"], row["role"], row["checkpoint_index"], row["value"], row["others"])
        for row in ablated_site.page("causal").chart_rows("language")
        if row["value"] is not None
    )
    assert [list(row) for row in drawn] == [near(row) for row in expected]


def test_each_role_has_a_panel_in_order(ablated_site: Site) -> None:
    page = ablated_site.page("causal")
    for figure in ("effects", "language"):
        panels = {row["panel_index"]: row["panel"] for row in page.chart_rows(figure)}
        assert [panels[number] for number in sorted(panels)] == list(LABELS.values())
        specification = page.specifications()[figure]
        assert specification["resolve"]["scale"]["y"] == "independent"


def test_the_table_of_the_excess_is_the_mart(ablated_site: Site) -> None:
    expected = ablated_site.query(
        """select checkpoint_name, role, member_count, fact_count, effect, random_count, random_mean, excess,
            excess_low, excess_high, p_value, q_value, method
        from fct_role_effects join dim_checkpoints using (checkpoint_id)
        where scope_kind = 'all'
        order by method, list_position(['general', 'entity', 'relation_answer', 'fact_answer'], role),
            checkpoint_index"""
    )
    assert ablated_site.page("causal").body("causal-excess") == [
        [name, LABELS[role], f"{members:.1f}", str(facts), three(effect), str(count), *map(three, numbers), method]
        for name, role, members, facts, effect, count, *numbers, method in expected
    ]


def test_captions_are_the_last_ablated_checkpoint(ablated_site: Site) -> None:
    rows = ablated_site.query(
        """select role, effect, random_mean from fct_role_effects
        where scope_kind = 'all' and method = 'mean' and checkpoint_id like '%main'"""
    )
    text = ablated_site.page("causal").text
    assert "At main, method mean, in nats (as many others like them in brackets): general " in text
    for role, effect, others in rows:
        values = ["n/a" if value is None else f"{value:.2f}".replace("-", "−") for value in (effect, others)]
        assert f"{LABELS[role]} {values[0]} ({values[1]})" in text
    assert "Silenced at step 0 and main." in text


@pytest.mark.parametrize("role", ["relation_answer", "fact_answer"])
def test_the_matrices_are_the_mart(ablated_site: Site, role: str) -> None:
    """Rows and columns stand in one order, so that the diagonal is one; the scale is the method's for both roles."""
    relations = ["capital_of", "leader_of"]
    expected = [
        (index, method, relations.index(own), relations.index(scored), *numbers)
        for index, method, own, scored, *numbers in ablated_site.query(
            f"""select checkpoint_index, method, set_relation_id, scored_relation_id, effect, effect_low, effect_high,
                fact_count
            from fct_relation_specificities join dim_checkpoints using (checkpoint_id)
            where role = '{role}' order by all"""
        )
    ]
    page, figure = ablated_site.page("causal"), f"matrix-{role.replace('_', '-')}"
    drawn = sorted(cells(page, figure))
    assert [list(row) for row in drawn] == [near(row) for row in expected]
    assert len(drawn) == (16 if role == "relation_answer" else 8)
    specification = page.specifications()[figure]
    (limits,) = (one["value"] for one in specification["params"] if one["name"] == "matrix_limits")
    assert limits == pytest.approx(
        dict(ablated_site.query("select method, max(abs(effect)) from fct_relation_specificities group by all"))
    )
    diagonal = [{"filter": "datum.own == datum.scored"} in layer["transform"] for layer in specification["layer"]]
    assert diagonal == [False, True, True, False], "cells, two outlines, numbers"
    assert f"is the own one for {2 if role == 'relation_answer' else 1} of" in page.text


def test_correlations_are_the_mart(ablated_site: Site) -> None:
    expected = ablated_site.query(
        """select method, if(component_kind = 'head', '15 heads', '3 FFNs') as panel, measure, checkpoint_index,
            rank_correlation
        from fct_score_effects join dim_checkpoints using (checkpoint_id)"""
    )
    page = ablated_site.page("causal")
    drawn = {
        (row["method"], row["panel"], row["measure"], row["checkpoint_index"]): row["correlation"]
        for row in page.chart_rows("scores")
    }
    wanted = {(method, panel, MEASURES[measure], index): value for method, panel, measure, index, value in expected}
    assert drawn.keys() == wanted.keys()
    assert {key: value is None for key, value in drawn.items()} == {key: value is None for key, value in wanted.items()}
    assert [drawn[key] or 0 for key in wanted] == pytest.approx([value or 0 for value in wanted.values()], abs=1e-5)
    assert [line[4] for line in page.body("causal-scores")].count("n/a") == 4
    last = [
        "n/a" if value is None else f"{value:.2f}".replace("-", "−")
        for measure in MEASURES
        for method, panel, other, index, value in expected
        if (method, panel, other, index) == ("mean", "15 heads", measure, 2)
    ]
    names = list(MEASURES.values())
    assert (
        f"over 15 heads {names[0]} {last[0]}, {names[1]} {last[1]} and {names[2]} {last[2]}; over 3 FFNs" in page.text
    )


@pytest.mark.parametrize(
    ("table", "mart", "columns"),
    [
        ("effects", "fct_role_effects where scope_kind = 'all'", ("effect", "effect_low", "random_high")),
        ("language", "fct_role_effects where scope_kind = 'all'", ("template_effect", "random_template_mean")),
        ("excess", "fct_role_effects where scope_kind = 'all'", ("excess", "q_value", "random_mean_rank_change")),
        ("matrix-relation-answer", "fct_relation_specificities where role = 'relation_answer'", ("effect", "effect")),
        ("matrix-fact-answer", "fct_relation_specificities where role = 'fact_answer'", ("effect_high", "effect")),
        ("scores", "fct_score_effects where true", ("rank_correlation", "component_count")),
    ],
)
def test_csv_files_hold_every_row_unrounded(
    ablated_site: Site, table: str, mart: str, columns: tuple[str, ...]
) -> None:
    expected = sorted(
        ["" if value is None else str(value) for value in row]
        for row in ablated_site.query(f"select {', '.join(columns)} from {mart}")
    )
    with (ablated_site.folder / "data" / f"causal-{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted([row[column] for column in columns] for row in csv.DictReader(file))
    assert rows == expected


# Cases at the edge


def test_where_nothing_is_silenced_one_sentence_says_what_to_do(site: Site, hostile_site: Site) -> None:
    for rendered, series in ((site, "tiny"), (hostile_site, HOSTILE["tiny"])):
        page = rendered.page("causal")
        assert f"Nothing of {series} has been silenced yet: timecourse ablate, with" in page.text
        assert not page.specifications() and not page.tables
        controls = [element for element in page.elements if element.tag in ("select", "figure")]
        assert [element.attributes["id"] for element in controls] == ["theme"]


def test_one_series_is_ablated_and_another_not(
    pages: Callable[..., dict[str, PageReader]], small_release: Path
) -> None:
    with duckdb.connect(str(small_release / "warehouse.duckdb"), read_only=True) as connection:
        tables = [table for table in tables_with(connection, "series_id") if table not in MARTS]
    copies = [f"insert into {table} select * replace ('side' as series_id) from {table}" for table in tables]
    found = pages(*copies)
    assert "Nothing of side has been silenced yet" in found["side 5x"].text
    assert "has been silenced yet" not in found["tiny 5x"].text
    assert found["tiny 5x"].specifications().keys() == {
        "effects", "language", "matrix-relation-answer", "matrix-fact-answer", "scores"
    }  # fmt: skip


def test_one_ablated_checkpoint_is_enough(pages: Callable[..., dict[str, PageReader]]) -> None:
    page = pages(*(f"delete from {mart} where checkpoint_id not like '%main'" for mart in MARTS))["tiny 5x"]
    assert "Silenced at main." in page.text
    assert {row["checkpoint_index"] for row in page.chart_rows("effects")} == {2}
    assert {cell[0] for cell in cells(page, "matrix-relation-answer")} == {2}


def test_roles_are_those_of_one_tau_and_correlations_of_every(
    pages: Callable[..., dict[str, PageReader]], small_release: Path
) -> None:
    with duckdb.connect(str(small_release / "warehouse.duckdb"), read_only=True) as connection:
        tables = [table for table in tables_with(connection, "tau_id") if table not in MARTS[:2]]
    found = pages(*(f"insert into {table} select * replace ('0.1' as tau_id) from {table}" for table in tables))
    assert found["tiny 0.1"].specifications().keys() == {"scores"}
    assert "No role of this τ was silenced" in found["tiny 0.1"].text
    assert "No role of this τ was silenced" not in found["tiny 5x"].text
    assert "effects" in found["tiny 5x"].specifications()


def test_methods_are_said_in_words_and_in_order(pages: Callable[..., dict[str, PageReader]]) -> None:
    page = pages(
        *(
            statement.format(mart)
            for mart in MARTS
            for statement in (
                "update {} set method = 'mean_live_norm' where method = 'mean'",
                "insert into {0} select * replace ('zero' as method) from {0} where method = 'resample'",
                "insert into {0} select * replace ('a new one' as method) from {0} where method = 'zero'",
            )
        )
    )["tiny 5x"]
    options = [element.attributes for element in page.elements if element.tag == "option"]
    values = [option["value"] for option in options]
    assert values[values.index("mean_live_norm") :][:4] == ["mean_live_norm", "resample", "zero", "a new one"]
    assert "selected" in options[values.index("mean_live_norm")] and "selected" not in options[values.index("zero")]
    assert "mean_live_norm: its mean over the prompts, and the norm behind it computed anew" in page.text
    assert "resample: its value in another fact's prompt" in page.text
    assert "zero: nothing" in page.text
    assert "At main, method mean_live_norm, in nats" in page.text


def test_single_components_may_be_silenced_by_one_method_alone(pages: Callable[..., dict[str, PageReader]]) -> None:
    """They are most of the work: their chart has a switch of its own, and is never empty."""
    page = pages("delete from fct_score_effects where method = 'mean'")["tiny 5x"]
    parameters = {one["name"]: one["value"] for one in page.specifications()["scores"]["params"]}
    assert parameters == {"single_method": "resample"}
    assert "At main, method resample: over 15 heads" in page.text
    without = pages("delete from fct_score_effects")["tiny 5x"]
    assert "scores" not in without.specifications() and "effects" in without.specifications()


def test_checkpoints_may_be_ablated_by_different_methods(pages: Callable[..., dict[str, PageReader]]) -> None:
    """The matrices begin where the chosen method was used."""
    changes = [f"delete from {mart} where (method = 'mean') <> (checkpoint_id like '%step0')" for mart in MARTS]
    page = pages(*changes)["tiny 5x"]
    for role in ("relation-answer", "fact-answer"):
        parameters = {one["name"]: one["value"] for one in page.specifications()[f"matrix-{role}"]["params"]}
        assert (parameters["method"], parameters["matrix_checkpoint"]) == ("mean", "0")
    assert "At step 0, method mean: the relation harmed most" in page.text


def test_a_role_without_a_set_is_named(pages: Callable[..., dict[str, PageReader]]) -> None:
    page = pages(
        "delete from fct_role_effects where role in ('entity', 'fact_answer')",
        "delete from fct_relation_specificities where role = 'fact_answer'",
    )["tiny 5x"]
    assert "Not silenced, for want of components or by choice: entity and fact answer." in page.text
    assert "matrix-fact-answer" not in page.specifications()
    assert "No fact answer components of one relation were silenced." in page.text


def test_no_set_of_a_relation_leaves_the_matrices_out(pages: Callable[..., dict[str, PageReader]]) -> None:
    page = pages("delete from fct_relation_specificities")["tiny 5x"]
    assert page.specifications().keys() == {"effects", "language", "scores"}
    assert "matrix_checkpoint" not in [element.attributes.get("id") for element in page.elements]


def test_prompts_without_template_tokens_have_no_damage_to_language(
    pages: Callable[..., dict[str, PageReader]],
) -> None:
    page = pages("update fct_role_effects set template_effect = null, random_template_mean = null")["tiny 5x"]
    assert "language" not in page.specifications()
    assert "No template token of these prompts is predicted" in page.text


def test_undefined_correlations_are_said_in_words(pages: Callable[..., dict[str, PageReader]]) -> None:
    page = pages("update fct_score_effects set rank_correlation = null")["tiny 5x"]
    assert "scores" not in page.specifications()
    assert "No correlation is defined" in page.text


def test_the_theta_of_the_silenced_roles_is_said(
    pages: Callable[..., dict[str, PageReader]], ablated_site: Site
) -> None:
    """After a build with another θ the pages differ in it; the ablation is still that of the θ before."""
    assert "Another θ" not in ablated_site.page("causal").text
    page = pages("update fct_role_effects set theta = 0.25 where checkpoint_id like '%main'")["tiny 5x"]
    assert "were found at θ = 0.1 and 0.25, those on the other pages at θ = 0.1." in page.text
    assert "θ = 0.1 and 0.25 · release a release" in page.text


@pytest.mark.slow
def test_many_relations_and_checkpoints_stay_small(pages: Callable[..., dict[str, PageReader]]) -> None:
    """40 relations at 40 ablated checkpoints by two methods: the last one is drawn, the CSV file holds all."""
    page = pages(
        "create table one as from dim_checkpoints where checkpoint_name = 'main'",
        "create table cell as from fct_relation_specificities where checkpoint_id like '%main' limit 1",
        "delete from dim_checkpoints",
        *(f"delete from {mart}" for mart in MARTS[1:]),
        """insert into dim_checkpoints
        select one.* replace (n as checkpoint_index, 'c' || n as checkpoint_id, 'c' || n as checkpoint_name,
            1000 * n as step, n = 39 as is_reference)
        from one, range(40) as numbers (n)""",
        """insert into fct_relation_specificities
        select cell.* replace (dim_checkpoints.checkpoint_id as checkpoint_id, m as method, r as role,
            'relation ' || a as set_relation_id, 'relation ' || b as scored_relation_id, -a / (b + 1) as effect)
        from cell, dim_checkpoints, (values ('mean'), ('resample')) as methods (m), range(40) as own (a),
            (values ('relation_answer'), ('fact_answer')) as roles (r), range(40) as others (b)""",
        "update fct_role_effects set checkpoint_id = if(checkpoint_id like '%main', 'c39', 'c0')",
    )["tiny 5x"]
    assert page.path.stat().st_size < 3_000_000
    drawn = {cell[0] for cell in cells(page, "matrix-relation-answer")}
    assert max(drawn) == 39 and len(drawn) < 40
    assert "one ablated checkpoint in" in page.text
    assert len((page.path.parent / "data" / "causal-matrix-fact-answer.csv").read_text().splitlines()) == 128_001


def test_numbers_and_missing_values_are_words(ablated_site: Site, pages: Callable[..., dict[str, PageReader]]) -> None:
    small = pages(
        "delete from fct_relation_specificities where set_relation_id = 'leader_of'",
        "update fct_score_effects set component_count = 1, rank_correlation = null where component_kind = 'ffn'",
    )["tiny 5x"]
    for page in (ablated_site.page("causal"), small):
        assert not re.search(r"\b(None|nan|NaN|NULL|Undefined)\b", page.text)
        assert not re.search(r"(?<![\d,.–])1 (silenced sets|FFNs|heads|facts|rows)\b", page.text)
        assert not re.search("[-−]0\\.00[^0-9]", page.text.split("Data table")[0])
    assert "for 1 of 1 silenced set." in small.text
    assert {row["panel"] for row in small.chart_rows("scores")} == {"15 heads"}, "no empty panel"
    assert "over 1 FFN attribution score n/a, activity rate n/a and direct contribution n/a." in small.text


def test_hostile_names_are_text(hostile_ablated_site: Site, ablated_site: Site) -> None:
    page, plain = hostile_ablated_site.page("causal"), ablated_site.page("causal")
    assert {element.tag for element in page.elements} <= {element.tag for element in plain.elements}
    assert not [name for element in page.elements for name in element.attributes if name.startswith("on")]
    for script in page.scripts:
        assert "src" in script.attributes or not set("<>&") & set(script.text)
    for name in ("capital_of", "tiny", "main"):
        assert HOSTILE[name] in page.text, name
    values = [element.attributes["value"] for element in page.elements if element.tag == "option"]
    assert HOSTILE["tiny"] + "'\\" in values
