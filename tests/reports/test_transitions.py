"""The page on transitions says what the marts say: flows, matrices, durations, changes and repurposings."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from timecourse.reports.page import drawn
from timecourse.reports.pages import stability, transitions
from timecourse.reports.partition import list_partitions, open_partition

from .browser import Window, needs_browser
from .conftest import HOSTILE, Site, changed
from .one_page import render_page

ROLES = ["general", "entity", "relation_answer", "fact_answer", "inactive"]
KINDS = ("head", "ffn")


def text(value: object) -> str:
    return "n/a" if value is None else str(value)


def test_matrices_are_the_mart_for_each_transition_and_over_all(site: Site) -> None:
    page = site.page("transitions")
    for kind in KINDS:
        expected = site.query(
            f"""select checkpoint_index, from_role, to_role, component_count, share from fct_role_transitions
            join dim_checkpoints on checkpoint_id = to_checkpoint_id where component_kind = '{kind}'"""
        )
        found = {(row["pair"], row["from"], row["to"]): row for row in page.chart_rows(f"matrix-{kind}")}
        assert len(found) == len(expected) + 25
        for pair, before, after, count, share in expected:
            row = found[pair, before, after]
            assert row["components"] == count
            assert row["share"] == (None if share is None else pytest.approx(share, abs=1e-5))
        for before in ROLES:
            total = sum(row[3] for row in expected if row[1] == before)
            for after in ROLES:
                count = sum(row[3] for row in expected if row[1:3] == (before, after))
                row = found[-1, before, after]
                assert row["components"] == count
                assert row["share"] == (pytest.approx(count / total, abs=1e-5) if total else None)


def test_switches_are_the_mart_for_each_transition_and_over_all(site: Site) -> None:
    columns = "left_count, entered_count, switched_to_general_count"
    for kind in KINDS:
        pooled = site.query(
            f"""select {", ".join(f"sum({column})::integer" for column in columns.split(", "))} from fct_role_switches
            where component_kind = '{kind}' group by role order by list_position({ROLES}, role)"""
        )
        single = site.query(
            f"""select {columns} from fct_role_switches join dim_checkpoints on checkpoint_id = to_checkpoint_id
            where component_kind = '{kind}' order by checkpoint_index, list_position({ROLES}, role)"""
        )
        lines = site.page("transitions").body(f"transitions-switches-{kind}")
        assert [(line[5], line[6], line[9]) for line in lines] == [tuple(map(text, row)) for row in [*pooled, *single]]


def histories(site: Site, kind: str) -> dict[str, dict[int, str]]:
    """Component -> checkpoint -> primary role."""
    found: dict[str, dict[int, str]] = {}
    for component, index, role in site.query(
        f"""select component_id, checkpoint_index, primary_role from fct_component_histories
        join dim_checkpoints using (checkpoint_id) where component_kind = '{kind}'"""
    ):
        found.setdefault(component, {})[index] = role
    return found


def test_flow_is_counted_from_the_histories(site: Site) -> None:
    page = site.page("transitions")
    for kind in KINDS:
        roles = histories(site, kind)
        expected = Counter(
            (place, ROLES.index(line[place]), ROLES.index(line[place + 1]))
            for line in roles.values()
            for place in (0, 1)
        )
        rows = page.chart_rows(f"flow-{kind}")
        assert {(row["place"], row["from"], row["to"]): row["components"] for row in rows} == expected
        assert sum(row["components"] for row in rows if row["place"] == 1) == len(roles)
        last = Counter(line[2] for line in roles.values())
        assert all(f"{count} {role.replace('_', ' ')}" in page.text for role, count in last.items())


def test_flow_follows_the_line_to_the_reference(staged_site: dict[str, Site]) -> None:
    site = staged_site["staged"]
    parents = dict(
        site.query(
            """select later.checkpoint_name, earlier.checkpoint_name from fct_role_transitions as transitions
            join dim_checkpoints as later on (later.series_id, later.checkpoint_id)
                = (transitions.series_id, to_checkpoint_id)
            join dim_checkpoints as earlier on (earlier.series_id, earlier.checkpoint_id)
                = (transitions.series_id, from_checkpoint_id)
            where transitions.series_id = 'staged'"""
        )
    )
    pairs = list(dict.fromkeys(tuple(line[:2]) for line in site.page("transitions").body("transitions-flow-head")))
    ((reference,),) = site.query(
        """select arg_max(checkpoint_name, checkpoint_index) from dim_checkpoints
        where series_id = 'staged' and is_reference"""
    )
    assert pairs[-1][1] == reference and 1 < len(pairs) < 8
    assert all(earlier[1] == later[0] for earlier, later in pairwise(pairs))
    for start, end in pairs:
        while end != start:  # perhaps over checkpoints that are not shown
            end = parents[end]


def test_durations_are_the_mart(small_release: Path, tmp_path: Path) -> None:
    """Roles in their order, each from a share of 1 on; a band where there is an interval."""
    page, durations_site = render_page(
        transitions,
        small_release,
        tmp_path,
        "delete from fct_role_durations where component_kind = 'head'",
        """insert into fct_role_durations by name
        select series_id, setting_id, tau_id, 'head' as component_kind, role, duration, 20 - duration as at_risk_count,
            4 as ended_count, 1 as censored_count, 1 - duration / 6 as lasting_share,
            if(duration = 6, null, lasting_share * 0.8) as lasting_share_low,
            if(duration = 6, null, lasting_share * 1.1) as lasting_share_high, 30 as spell_count,
            10 as left_censored_count, 3 as right_censored_count
        from dim_settings, (values ('inactive'), ('entity')) as roles (role), range(2, 7, 2) as durations (duration)""",
    )
    columns = "duration, lasting_share, lasting_share_low, lasting_share_high, at_risk_count"
    for kind in KINDS:
        expected = durations_site.query(
            f"""select role, {columns} from fct_role_durations where component_kind = '{kind}'
            order by list_position({ROLES}, role), duration"""
        )
        rows = page.chart_rows(f"durations-{kind}") if expected else []
        assert [
            (row["role"], row["duration"], row["share"], row["low"], row["high"], row["seen"])
            for row in rows
            if row["duration"]
        ] == [
            (role, duration, *(None if share is None else pytest.approx(share, abs=1e-5) for share in shares), seen)
            for role, duration, *shares, seen in expected
        ]
        starts = [row for row in rows if not row["duration"]]
        assert all((row["share"], row["low"], row["interval"]) == (1, None, None) for row in starts)
        assert [row["role"] for row in starts] == list(dict.fromkeys(row[0] for row in expected))
    intervals = [row["interval"] for row in page.chart_rows("durations-head") if row["duration"]]
    assert intervals[:3] == ["53.3\u00a0% to 73.3\u00a0%", "26.7\u00a0% to 36.7\u00a0%", "n/a"]
    assert "entity 4 checkpoints (20 spells) and inactive 4 checkpoints (20 spells)" in page.text
    assert "Of 60 spells in these roles, 33.3\u00a0% begin at the first checkpoint" in page.text


def test_caption_says_how_many_spells_are_censored(site: Site) -> None:
    shown = """role in (select role from fct_role_spells where component_kind = 'head' and not is_left_censored)"""
    ((count, left, right),) = site.query(
        f"""select count(*), avg(is_left_censored::integer), avg(is_right_censored::integer) from fct_role_spells
        where component_kind = 'head' and {shown}"""
    )
    text = site.page("transitions").text
    assert f"Of {count} spells in these roles, {100 * left:.1f}\u00a0% begin at the first checkpoint" in text
    assert f"and {100 * right:.1f}\u00a0% still last at the last" in text


def test_changes_are_those_of_the_histories(site: Site) -> None:
    for kind in KINDS:
        expected = {
            component: sum(line[index] != line[index + 1] for index in (0, 1))
            for component, line in histories(site, kind).items()
        }
        page = site.page("transitions")
        if any(expected.values()):
            assert {row["name"]: row["changes"] for row in page.chart_rows(f"changes-{kind}")} == expected
        else:
            assert f"changes-{kind}" not in page.specifications()


def test_repurposings_are_the_mart(small_release: Path, tmp_path: Path) -> None:
    """Heads that answered two relations, one with a hostile name; FFNs answered none."""
    page, repurposed_site = render_page(
        transitions,
        small_release,
        tmp_path,
        "delete from fct_repurposings",
        """insert into fct_repurposings by name
        select series_id, settings.setting_id, tau_id, relations.relation_id, component_id, component_kind,
            converged.checkpoint_id, lasts.checkpoint_id as last_checkpoint_id,
            'fact_answer' as role_at_convergence, 'fact_answer' as primary_role_at_convergence,
            'general' as primary_role_at_last, (layer + head + place) % 3 = 0 as is_answer_related_at_last,
            (layer + head + place) % 3 = 1 as is_repurposed, (layer + head + place) % 3 = 2 as is_dropped
        from dim_settings as settings
        join dim_components using (series_id)
        join dim_checkpoints as converged using (series_id)
        join dim_checkpoints as lasts using (series_id),
            (select relation_id, row_number() over (order by relation_id) - 1 as place from dim_relations limit 2)
                as relations
        where component_kind = 'head' and converged.checkpoint_index = 1 and lasts.is_reference""",
        "update fct_repurposings set relation_id = '" + HOSTILE["tiny"].replace("'", "''") + "'"
        " where relation_id = (select min(relation_id) from dim_relations)",
    )
    expected = repurposed_site.query(
        """select relation_id, count(*), count_if(is_answer_related_at_last), count_if(is_repurposed),
            count_if(is_dropped) from fct_repurposings group by relation_id order by relation_id"""
    )
    assert [(line[0], *map(int, line[3:7])) for line in page.body("transitions-repurposings-head")] == expected
    assert expected[0][0] == HOSTILE["tiny"]
    rows = page.chart_rows("repurposings-head")
    assert {(row["relation"], row["outcome"]): row["components"] for row in rows} == {
        (relation, outcome): count
        for relation, row in enumerate(expected)
        for outcome, count in zip(("kept", "repurposed", "dropped"), row[2:], strict=True)
        if count
    }
    kept, total = sum(row[2] for row in expected), sum(row[1] for row in expected)
    assert f"answered each relation: {100 * kept / total:.1f}\u00a0% still do" in page.text
    assert "No relation converged with FFNs that answered it." in page.text


# Cases at the edge


def test_one_checkpoint_has_no_transition(small_site: Site) -> None:
    page = small_site.page("transitions")
    assert "no transition to show" in page.text and page.specifications() == {}


def test_a_release_without_ffns_and_without_these_marts_renders(small_release: Path, tmp_path: Path) -> None:
    with changed(small_release, tmp_path) as connection:
        for table in ("fct_role_durations", "fct_role_spells", "fct_repurposings"):
            connection.execute(f"drop table {table}")
        for table in ("fct_component_histories", "fct_role_transitions", "fct_role_switches"):
            connection.execute(f"delete from {table} where component_kind = 'ffn'")
    warehouse = tmp_path / "warehouse.duckdb"
    page = build(warehouse, transitions)
    assert [figure.figure_id for figure in page.figures] == [
        "flow-head", "flow-ffn", "matrix-head", "matrix-ffn", "switches-head", "switches-ffn",
    ]  # fmt: skip
    empty = {figure.figure_id: figure.empty for figure in page.figures if figure.specification is None}
    assert "holds no FFNs" in (empty["flow-ffn"] or "") and "holds no FFNs" in (empty["matrix-ffn"] or "")


def test_nothing_learned_is_said_in_words(small_release: Path, tmp_path: Path) -> None:
    with changed(small_release, tmp_path) as connection:
        connection.execute("update fct_component_histories set primary_role = 'inactive'")
        connection.execute(
            """delete from fct_role_spells where from_checkpoint_id
            <> (select checkpoint_id from dim_checkpoints where checkpoint_index = 0)"""
        )
        connection.execute("update fct_role_spells set role = 'inactive', is_left_censored = true")
        connection.execute("delete from fct_role_durations")
        connection.execute("delete from fct_repurposings")
    figures = {figure.figure_id: figure for figure in build(tmp_path / "warehouse.duckdb", transitions).figures}
    assert "inactive" in figures["flow-head"].caption and "general" not in figures["flow-head"].caption
    assert "No head begins a spell in a role after the first checkpoint." in (figures["durations-head"].empty or "")
    assert "changed its primary role over" in (figures["changes-head"].empty or "")
    assert figures["repurposings-head"].specification is None


def build(warehouse: Path, page: Any) -> Any:
    """One page of the only report of a release."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return page.build(open_partition(connection, list_partitions(connection)[0], "edge"))


@pytest.mark.slow
def test_three_hundred_checkpoints_stay_small_and_flow_in_eight_columns(small_release: Path, tmp_path: Path) -> None:
    with changed(small_release, tmp_path) as connection:
        last = "(select max_by(checkpoint_id, checkpoint_index) from dim_checkpoints where checkpoint_index < 3)"
        connection.execute(f"create temp table last as select {last} as checkpoint_id")
        connection.execute(
            """insert into dim_checkpoints
            select dim_checkpoints.* replace (checkpoint_id || '-' || n as checkpoint_id, 2 + n as checkpoint_index,
                'more' || n as checkpoint_name, 10000 + n as step, 10000 + n as cumulative_step,
                if(n = 1, checkpoint_id, checkpoint_id || '-' || (n - 1)) as previous_checkpoint_id,
                n = 297 as is_reference)
            from dim_checkpoints, range(1, 298) as numbers (n) where checkpoint_id = (from last)"""
        )
        connection.execute("update dim_checkpoints set is_reference = checkpoint_index = 299")
        for table in ("fct_component_histories", "fct_role_stabilities"):
            connection.execute(
                f"""insert into {table} select {table}.* replace (checkpoint_id || '-' || n as checkpoint_id)
                from {table}, range(1, 298) as numbers (n) where checkpoint_id = (from last)"""
            )
        for table in ("fct_role_transitions", "fct_role_switches", "fct_turnovers"):
            connection.execute(
                f"""insert into {table} select {table}.* replace (to_checkpoint_id || '-' || n as to_checkpoint_id,
                    if(n = 1, to_checkpoint_id, to_checkpoint_id || '-' || (n - 1)) as from_checkpoint_id)
                from {table}, range(1, 298) as numbers (n) where to_checkpoint_id = (from last)"""
            )
        connection.execute("drop table last")
    page = build(tmp_path / "warehouse.duckdb", transitions)
    flow = next(figure for figure in page.figures if figure.figure_id == "flow-head")
    columns = [row["from_checkpoint"] for row in flow.table.rows] + [flow.table.rows[-1]["to_checkpoint"]]
    assert len(set(columns)) == 8 and columns[-1] == "more297"
    assert "8 of the 300 checkpoints" in flow.definition
    assert "<svg" in drawn(flow.specification)
    overlaps = build(tmp_path / "warehouse.duckdb", stability).figures
    assert len(next(figure for figure in overlaps if figure.figure_id == "iou-reference-head").table.rows) == 600


@needs_browser
def test_all_transitions_come_first_and_each_can_be_chosen(window: Window, site: Site) -> None:
    page = window.open(site.folder / "transitions.html")
    assert page.locator("#pair option").all_inner_texts()[0] == "all transitions"
    assert page.locator("#pair").input_value() == "-1"
    rows = site.page("transitions").chart_rows("matrix-head")
    for pair in ("-1", "2"):
        page.select_option("#pair", pair)
        expected = sorted(f"{row['components']:,}" for row in rows if row["pair"] == int(pair))
        page.wait_for_function(
            """expected => JSON.stringify([...document.querySelectorAll('#matrix-head .mark-text.role-mark text')]
            .map(text => text.textContent).sort()) === JSON.stringify(expected)""",
            arg=expected,
        )
        assert page.locator("#transitions-switches-head tbody tr:visible").count() == 4


@needs_browser
def test_every_ribbon_is_drawn_as_wide_as_it_is(window: Window, site: Site) -> None:
    """The first ribbon of a checkpoint starts at its role's bar, and its height there is its number of components."""
    page = window.open(site.folder / "transitions.html")
    rows = site.page("transitions").chart_rows("flow-head")
    ribbons = page.locator("#flow-head .mark-area path")
    assert ribbons.count() == len(rows)
    bars = page.locator("#flow-head .mark-rect path")
    assert bars.count() == len({(row["place"], row["from"]) for row in rows}) + len(
        {row["to"] for row in rows if row["place"] == 1}
    )
    heights = bars.evaluate_all("bars => bars.map(bar => bar.getBBox().height)")
    total = sum(row["components"] for row in rows if row["place"] == 0)
    assert sum(heights) == pytest.approx(3 * total * 330 / (total * 1.22), rel=0.02)
