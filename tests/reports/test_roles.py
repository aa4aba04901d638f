"""The page on roles says what the marts say: intervals, chance, specific roles, both kinds fairly, other thresholds."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from timecourse.reports.pages import roles

from .browser import Window, needs_browser
from .conftest import PageReader, Site
from .one_page import render_page

KINDS = {"head": ("15", "heads"), "ffn": ("3", "FFNs")}


@pytest.fixture
def page(small_release: Path, tmp_path: Path) -> Callable[..., tuple[PageReader, Site]]:
    """The page after statements that change the release, and the warehouse that it was made from."""

    def write(*statements: str) -> tuple[PageReader, Site]:
        return render_page(roles, small_release, tmp_path, *statements)

    return write


def near(values: tuple[Any, ...]) -> list[Any]:
    """Numbers to the charts' five decimals; null is null."""
    return [pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for value in values]


# Numbers


def test_counts_have_the_intervals_of_the_mart(site: Site) -> None:
    for kind in KINDS:
        expected = site.query(
            f"""select checkpoint_index, role, member_count, member_count_low, member_count_high
            from fct_role_stabilities join dim_checkpoints using (checkpoint_id)
            where component_kind = '{kind}' and scope_id = 'all' order by all"""
        )
        drawn = site.page("roles").chart_rows(f"counts-{kind}")
        with_interval = sorted(
            (row["checkpoint_index"], row["series"], row["value"], row["low"], row["high"])
            for row in drawn
            if row["low"] is not None
        )
        assert [list(row) for row in with_interval] == [near(row) for row in expected]
        assert {row["series"] for row in drawn if row["low"] is None} == {"relation_answer", "fact_answer", "inactive"}
        assert {row["interval"] for row in drawn if row["low"] is None} == {"n/a"}


def test_relation_answers_stand_beside_chance(site: Site) -> None:
    expected = site.query(
        """select component_kind, scope_id, checkpoint_index, member_count, member_count_low, member_count_high,
            expected_count, specific_count
        from fct_role_stabilities join dim_checkpoints using (checkpoint_id)
        where role = 'relation_answer' order by all"""
    )
    columns = ("kind", "panel", "checkpoint_index", "members", "low", "high", "reference", "specific")
    drawn = sorted(
        tuple(row[column] for column in columns) for row in site.page("roles").chart_rows("relation-answers")
    )
    assert [list(row) for row in drawn] == [near(row) for row in expected]
    assert any(row[6] for row in expected), "the release cannot show chance"


def test_fact_answers_are_the_mart(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, site = page(
        """update fct_role_stabilities set member_count = 7, rarefied_count = 3.25, specific_count = 2
        where role = 'fact_answer' and scope_id = 'capital_of' and component_kind = 'head'"""
    )
    expected = site.query(
        """select component_kind, scope_id, checkpoint_index, member_count, rarefied_count, specific_count
        from fct_role_stabilities join dim_checkpoints using (checkpoint_id)
        where role = 'fact_answer' order by component_kind, scope_id, checkpoint_index"""
    )
    columns = ("kind", "panel", "checkpoint_index", "members", "reference", "specific")
    drawn = sorted(
        (tuple(row[column] for column in columns) for row in shown.chart_rows("fact-answers")), key=lambda row: row[:3]
    )
    assert [list(row) for row in drawn] == [near(row) for row in expected]
    assert "Squares: those specific to one of its facts." in shown.text


def test_specific_roles_are_named_with_their_q(page: Callable[..., tuple[PageReader, Site]]) -> None:
    """Those of the last checkpoint, whether the role is held or not, and at how many checkpoints they are."""
    shown, site = page(
        "update fct_role_specificities set is_specific = component_id in ('L0H1', 'L1H0', 'L2F'), q_value = 0.0123",
    )
    expected = site.query(
        """select component_id, relation_id, active_count, other_active_count,
            (component_id, role, scope_id) in (
                select (component_id, role, scope_id) from fct_role_memberships
                where checkpoint_id = (select max_by(checkpoint_id, checkpoint_index) from dim_checkpoints)
            ),
            (select count(*) from fct_role_specificities as every where every.is_specific
                and (every.component_id, every.scope_id) = (tests.component_id, tests.scope_id))
        from fct_role_specificities as tests join dim_checkpoints using (checkpoint_id)
        where is_specific and checkpoint_index = 2 order by component_id, relation_id"""
    )
    assert expected, "the release cannot show any"
    body = sorted(shown.body("roles-specific"))
    assert [(line[0], line[3], line[5], line[7], line[-2], line[-1]) for line in body] == [
        (name, relation, str(active), str(other), "yes" if held else "no", str(times))
        for name, relation, active, other, held, times in expected
    ]
    assert {line[4] for line in body} == {"1.2e-02"}


def test_other_thetas_are_the_mart(site: Site) -> None:
    expected = site.query(
        """select component_kind, theta::double, checkpoint_index, role, component_count
        from fct_role_sensitivities join dim_checkpoints using (checkpoint_id)
        order by component_kind, theta, checkpoint_index, role"""
    )
    rows = site.page("roles").chart_rows("thetas")
    titles = {theta: f"θ = {theta:g}" + " (this report)" * (theta == 0.1) for _, theta, *_ in expected}
    columns = ("kind", "panel", "checkpoint_index", "series", "value")
    assert {tuple(row[column] for column in columns) for row in rows} == {
        (kind, titles[theta], *others) for kind, theta, *others in expected
    }
    assert len(rows) == len(expected) and len(titles) == 5
    assert [title for _, title in sorted({(row["panel_index"], row["panel"]) for row in rows})] == list(titles.values())


def test_robustness_is_counted_by_role(site: Site) -> None:
    expected = site.query(
        """select component_kind, checkpoint_index, replace(primary_role, '_', ' '), robustness, count(*),
            (select avg(confidence) from fct_component_histories as others
            where (others.checkpoint_id, others.component_kind, others.primary_role)
                = (histories.checkpoint_id, histories.component_kind, histories.primary_role))
        from fct_component_histories as histories join dim_checkpoints using (checkpoint_id)
        group by histories.checkpoint_id, component_kind, checkpoint_index, primary_role, robustness order by all"""
    )
    columns = ("kind", "checkpoint_index", "panel", "robustness", "value", "confidence")
    rows = site.page("roles").chart_rows("robustness")
    drawn = sorted(tuple(row[column] for column in columns) for row in rows)
    assert [list(row) for row in drawn] == [near(row) for row in expected]


def test_kinds_are_compared_as_in_the_mart(site: Site) -> None:
    names = {
        "common_tau": "one τ for both",
        "matched_rate": "FFNs at a matched τ",
        "threshold_free": "without a threshold",
    }
    page = site.page("roles")
    rates = site.query(
        """select comparison, checkpoint_index, head_rate, ffn_rate from fct_kind_comparisons
        join dim_checkpoints on checkpoint_id = to_checkpoint_id where tau_ffn is not null order by all"""
    )
    drawn = [
        (row["panel"].split(":")[0], row["checkpoint_index"], row["head"], row["ffn"])
        for row in page.chart_rows("rates")
    ]
    assert drawn == [(names[comparison], index, *near(tuple(values))) for comparison, index, *values in rates]
    differences = site.query(
        """select comparison, checkpoint_index, difference, difference_low, difference_high from fct_kind_comparisons
        join dim_checkpoints on checkpoint_id = to_checkpoint_id where difference is not null order by all"""
    )
    drawn = [
        (row["panel"], row["checkpoint_index"], row["difference"], row["low"], row["high"])
        for row in page.chart_rows("kind-differences")
    ]
    assert drawn == [(names[comparison], index, *near(tuple(values))) for comparison, index, *values in differences]


def test_the_caution_says_what_chance_gives(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        """update fct_role_stabilities set member_count = 5, expected_count = 1.75, specific_count = 2
        where role = 'relation_answer' and component_kind = 'head'"""
    )
    assert (
        "At main, heads hold relation answer 10 times over all relations, 3.5 times would be expected if relations"
        " meant nothing, and 4 are specific" in shown.text
    )
    assert "The counts here are not compared with chance" not in shown.text


# Cases at the edge


def test_without_ffns_the_page_says_so(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        *(
            f"delete from {mart} where component_kind = 'ffn'"
            for mart in (
                "fct_component_histories",
                "fct_role_counts",
                "fct_role_stabilities",
                "fct_role_sensitivities",
                "fct_role_specificities",
            )
        ),
        "delete from fct_kind_comparisons",
    )
    assert shown.text.count("This release holds no counts of roles of FFNs.") == 2
    assert [element.attributes["value"] for element in shown.elements if element.tag == "option"][-1] == "head"
    assert "counts-ffn" not in shown.specifications() and "thetas" in shown.specifications()
    assert "No differences to show." in shown.text


def test_a_release_without_the_marts_says_so(page: Callable[..., tuple[PageReader, Site]]) -> None:
    marts = ("fct_kind_comparisons", "fct_role_counts", "fct_role_sensitivities", "fct_role_specificities")
    shown, _ = page(*(f"drop table {mart}" for mart in marts))
    for words in (
        "This release has no comparison of heads with FFNs.",
        "No counts at other θ in this release.",
        "This release has no test of specific roles.",
        "This release holds no counts of roles of heads.",
        "No robustness in this release.",
    ):
        assert words in shown.text
    assert "relation-answers" in shown.specifications()


def test_empty_marts_are_said_in_words(page: Callable[..., tuple[PageReader, Site]]) -> None:
    marts = ("fct_component_histories", "fct_role_counts", "fct_role_stabilities")
    shown, _ = page(*(f"delete from {mart}" for mart in marts))
    for noun in ("heads", "FFNs"):
        assert f"This release holds no counts of roles of {noun}." in shown.text
    assert "role_kind" not in [element.attributes.get("id") for element in shown.elements]


def test_nothing_specific_is_a_sentence(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page("update fct_role_specificities set is_specific = false")
    assert "No component is specific to a relation or fact at main." in shown.text
    assert "roles-specific" not in shown.tables


def test_one_checkpoint_has_no_transition_to_compare(page: Callable[..., tuple[PageReader, Site]]) -> None:
    keep = "(select max(checkpoint_id) from dim_checkpoints where is_reference)"
    tables = (
        "fct_component_histories",
        "fct_role_counts",
        "fct_role_stabilities",
        "fct_role_sensitivities",
        "fct_role_specificities",
    )
    shown, _ = page(
        *(f"delete from {table} where checkpoint_id <> {keep}" for table in tables),
        "delete from fct_kind_comparisons",
        "delete from dim_checkpoints where not is_reference",
        "update dim_checkpoints set checkpoint_index = 0, previous_checkpoint_id = null",
    )
    assert "Kinds are compared from one checkpoint to the next, and there is one only." in shown.text
    assert {row["checkpoint_index"] for row in shown.chart_rows("relation-answers")} == {0}
    assert not re.search(r"\b(None|nan|NaN|NULL|Undefined)\b", shown.text)


def test_other_taus_are_named(page: Callable[..., tuple[PageReader, Site]], site: Site, many_site: Site) -> None:
    assert "This release holds the same measurements at" not in site.page("roles").text
    folders = sorted(path for path in many_site.folder.iterdir() if path.is_dir() and path.name != "assets")
    texts = [Site(folder, many_site.warehouse).page("roles").text for folder in folders]
    assert sum("This release holds the same measurements at τ = 5x too." in text for text in texts) == 1
    assert sum("This release holds the same measurements at τ = ../../<b>'\" too." in text for text in texts) == 1


# In the browser


@needs_browser
def test_the_switch_of_kinds_moves_every_chart_and_table_below(window: Window, site: Site) -> None:
    browser_page = window.open(site.folder / "roles.html")
    for kind in ("ffn", "head"):
        browser_page.select_option("#role_kind", kind)
        expected = site.query(
            f"""select member_count from fct_role_stabilities
            where role = 'relation_answer' and component_kind = '{kind}'"""
        )
        browser_page.wait_for_function(
            """expected => JSON.stringify([...document.querySelectorAll(
                "#relation-answers .mark-symbol [aria-label*='hold the role: ']")]
                .map(mark => mark.getAttribute('aria-label').match(/hold the role: (\\d+)/)[1]).sort())
                === JSON.stringify(expected)""",
            arg=sorted([str(count) for (count,) in expected] * 2),  # of the holders and of the specific ones
        )
        for table in ("relation-answers", "fact-answers", "robustness", "thetas"):
            rows = browser_page.locator(f"#roles-{table} tbody tr:not([hidden])").all_text_contents()
            assert rows and all(("FFN" if kind == "ffn" else "head") in row for row in rows), table
