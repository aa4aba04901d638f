"""The page on knowledge says what the marts say: accuracy, knowledge against guessing, convergence and every fact."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from timecourse.reports.pages import knowledge

from .browser import Window, needs_browser
from .conftest import PageReader, Site
from .one_page import render_page

# Facts by number, as known (1) or not (0) at the three checkpoints; every other fact is never known.
PATTERNS = ("011", "101", "010", "111")
KNOWN = (
    """create table numbered as
    select fact_id, row_number() over (order by fact_id) - 1 as number from dim_facts""",
    f"""update fct_fact_predictions set is_known_top1 = coalesce((
        select ({list(PATTERNS)})[number + 1][checkpoint_index + 1] = '1' from numbered, dim_checkpoints
        where numbered.fact_id = fct_fact_predictions.fact_id
            and dim_checkpoints.checkpoint_id = fct_fact_predictions.checkpoint_id
    ), false)""",
)


@pytest.fixture
def page(small_release: Path, tmp_path: Path) -> Callable[..., tuple[PageReader, Site]]:
    """The page after statements that change the release, and the warehouse that it was made from."""

    def write(*statements: str) -> tuple[PageReader, Site]:
        return render_page(knowledge, small_release, tmp_path, *statements)

    return write


def datasets(page: PageReader, figure: str, key: str) -> list[dict[str, Any]]:
    """The rows of a chart's data set that have this key."""
    return [
        row
        for rows in page.specifications()[figure]["datasets"].values()
        for row in rows
        if key in row and "checkpoint_index" in row
    ]


# Numbers


LENGTHS = {"1": "1 answer token", "2": "2 answer tokens", "3+": "3 or more answer tokens"}
PARTS = [f"{metric}_{part}" for metric in ("top1", "top10", "all_tokens") for part in ("accuracy", "low", "high")]


def test_accuracy_by_answer_tokens_is_the_mart(page: Callable[..., tuple[PageReader, Site]], site: Site) -> None:
    """In an order of lengths, whatever lengths there are; that of two tokens is recalled best."""
    shown, changed_site = page(
        """create table lengths as select fact_id, ['1', '2', '3+'][1 + row_number() over (order by fact_id) % 3]
        as answer_tokens from dim_facts""",
        "create table counts as select answer_tokens, count(*)::integer as fact_count from lengths group by all",
        "create table one as from fct_answer_length_accuracies limit 1",
        "delete from fct_answer_length_accuracies",
        """insert into fct_answer_length_accuracies
        select one.* replace (
            dim_checkpoints.checkpoint_id as checkpoint_id, counts.answer_tokens as answer_tokens,
            counts.fact_count as fact_count, length(counts.answer_tokens) / 7 as top1_accuracy, 0.1 as top1_low,
            0.9 as top1_high, checkpoint_index / 9 as all_tokens_accuracy, null as all_tokens_low,
            null as all_tokens_high)
        from one, counts, dim_checkpoints""",
    )
    for reader, queried in ((shown, changed_site), (site.page("knowledge"), site)):
        expected = queried.query(
            f"""select answer_tokens, checkpoint_index, fact_count, {", ".join(PARTS)}
            from fct_answer_length_accuracies join dim_checkpoints using (checkpoint_id)
            order by answer_tokens, checkpoint_index"""
        )
        drawn = reader.chart_rows("answer-accuracy")
        assert [
            (row["panel"], row["checkpoint_index"], row["facts"], *(row[part] for part in PARTS)) for row in drawn
        ] == [(LENGTHS[tokens], index, facts, *map(near, numbers)) for tokens, index, facts, *numbers in expected]
        panels = {row["panel_index"]: row["panel"] for row in drawn}
        assert [panels[number] for number in sorted(panels)] == [
            name for tokens, name in LENGTHS.items() if tokens in {row[0] for row in expected}
        ]
    assert len({row["panel"] for row in shown.chart_rows("answer-accuracy")}) == 3
    assert "2 answer tokens: top-1 14.3\u00a0% (95 % interval 10.0\u00a0% to 90.0\u00a0%, n = 2);" in shown.text
    assert "all tokens 22.2\u00a0% (no interval: fewer than 2 facts, n = 2). 3 or more answer tokens:" in shown.text


def test_a_gain_is_the_mart_with_an_interval_over_facts(site: Site) -> None:
    shown = site.page("knowledge")
    expected = site.query(
        """select scope_id, checkpoint_index, mean_log_prob_gain, positive_gain_share
        from fct_relation_accuracies join dim_checkpoints using (checkpoint_id)
        where mean_log_prob_gain is not null order by scope_kind, scope_id, checkpoint_index"""
    )
    drawn = shown.chart_rows("gain")
    assert [
        ("all" if row["panel"] == "all facts" else row["panel"], row["checkpoint_index"], row["gain"], row["positive"])
        for row in drawn
    ] == [(scope, index, *map(near, values)) for scope, index, *values in expected]
    for row in drawn:
        if row["panel"] == "all facts":
            facts = site.query(
                f"""select log_prob_gain, mean_log_prob, mean_mismatched_log_prob
                from fct_fact_predictions join dim_checkpoints using (checkpoint_id)
                where checkpoint_index = {row["checkpoint_index"]} and log_prob_gain is not null"""
            )
            error = 1.959963984540054 * stdev(fact[0] for fact in facts) / len(facts) ** 0.5
            assert row["facts"] == len(facts)
            assert (row["low"], row["high"]) == (near(row["gain"] - error), near(row["gain"] + error))
            assert (row["own"], row["other"]) == (
                near(mean(fact[1] for fact in facts)),
                near(mean(f[2] for f in facts)),
            )
    assert {row["panel"] for row in shown.chart_rows("levels")} == {"all facts", "location", "name"}


def near(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, abs=2e-5)


def test_the_title_says_that_the_model_knows_only_where_the_interval_does(
    page: Callable[..., tuple[PageReader, Site]],
) -> None:
    knows, _ = page(gain(2, 1.5, 2.5))
    assert "At main its own subject makes an answer 2.00\u00a0nats more probable than another does" in knows.text
    assert "The whole interval is above 0 in 2 of 2 relations." in knows.text
    guesses, _ = page(gain(0.1, -0.3, 0.5))
    assert "How much more probable its own subject makes an answer" in guesses.text
    assert "more probable than another does" not in guesses.text
    unknown, _ = page(gain(2, None, None))
    assert "more probable than another does" not in unknown.text and "no interval: fewer than 2 facts" in unknown.text


def gain(value: float, low: float | None, high: float | None) -> str:
    """A statement that sets the gain of every scope."""
    ends = ["null" if end is None else end for end in (low, high)]
    return f"""update fct_relation_accuracies set mean_log_prob_gain = {value}, mean_log_prob_gain_low = {ends[0]},
        mean_log_prob_gain_high = {ends[1]}"""


def converged(relation: str, values: str) -> str:
    """A statement that sets columns of a relation's convergence on top-1."""
    return f"update fct_relation_convergences set {values} where relation_id = '{relation}' and metric = 'top1'"


CHECKPOINT = "(select checkpoint_id from dim_checkpoints where checkpoint_index = {})"
STEP = "(select cumulative_step from dim_checkpoints where checkpoint_index = {})"


def test_convergence_is_drawn_with_its_interval_and_its_censoring(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        converged(
            "capital_of",
            f"""censoring = 'none', previous_checkpoint_id = {CHECKPOINT.format(0)},
            converged_checkpoint_id = {CHECKPOINT.format(1)}, converged_step_low = {STEP.format(0)},
            converged_step_high = null, censored_share = 0.25, is_steady = false""",
        ),
        converged(
            "leader_of",
            f"""censoring = 'right', previous_checkpoint_id = {CHECKPOINT.format(2)}, converged_checkpoint_id = null,
            converged_step_low = null, converged_step_high = null, censored_share = 1, is_steady = true""",
        ),
    )
    marks = {
        row["relation"]: row
        for row in datasets(shown, "convergence", "outcome")
        if (row["metric"], row["subset"]) == ("top-1", "all")
    }
    encoding = shown.specifications()["convergence"]["layer"][0]["encoding"]
    assert encoding["y"]["axis"]["labelExpr"] == '["capital_of", "leader_of"][datum.value]', "what converged first"
    assert [(marks[n]["from_checkpoint_index"], marks[n]["checkpoint_index"]) for n in range(2)] == [(0, 1), (2, 2)]
    assert [marks[number]["open"] for number in range(2)] == [True, False]
    assert marks[1]["outcome"] == "not converged by the last checkpoint"
    (interval,) = (
        row for row in datasets(shown, "convergence", "endless") if (row["metric"], row["subset"]) == ("top-1", "all")
    )
    assert (interval["relation"], interval["from_checkpoint_index"], interval["checkpoint_index"]) == (0, 0, 2)
    assert interval["endless"] is True
    assert "1 of 2 relations has converged (top-1)" in shown.text
    assert "1 converged between two checkpoints, 0 had already converged at the first and 1 had not" in shown.text
    assert "For 1 of 2 relations the last checkpoint makes the difference (open marks)." in shown.text
    assert "For 2 the 95 % interval has no end: 25.0\u00a0% to 100.0\u00a0% of the draws" in shown.text


def test_what_stays_known_is_counted_from_its_last_lapse(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, site = page(*KNOWN)
    total = len(site.query("from dim_facts"))
    drawn = [(row["known"], row["lasting"], row["facts"]) for row in shown.chart_rows("learning")]
    assert drawn == [(2, 1, total), (3, 2, total), (3, 3, total)]
    heading, *lines = shown.tables["knowledge-learning"]
    assert heading[-2:] == ["Newly known", "Forgotten"]
    assert [line[-2:] for line in lines] == [["0", "0"], ["2", "1"], ["1", "1"]]
    assert f"3 of {total} facts are known at main" in shown.text
    assert "a fact was forgotten 2 times in all" in shown.text


def test_each_fact_says_since_when_it_is_known(page: Callable[..., tuple[PageReader, Site]]) -> None:
    _, site = page(*KNOWN)
    names = [name for (name,) in site.query("select checkpoint_name from dim_checkpoints order by checkpoint_index")]
    with (site.folder / "data" / "knowledge-facts.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["fact_id"]: row for row in csv.DictReader(file)}
    for fact, number in site.query("select fact_id, number from numbered"):
        pattern = PATTERNS[number] if number < len(PATTERNS) else "000"
        since = len(pattern.rstrip("1"))
        row = rows[fact]
        assert row["known_since_checkpoint"] == (names[since] if pattern.endswith("1") else "")
        assert row["first_known_checkpoint"] == (names[pattern.index("1")] if "1" in pattern else "")
        assert row["known_count"] == str(pattern.count("1"))


# Cases at the edge


def test_empty_marts_are_said_in_words(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        *(
            f"delete from {mart}"
            for mart in (
                "fct_relation_accuracies",
                "fct_answer_length_accuracies",
                "fct_fact_predictions",
                "fct_relation_convergences",
                "fct_layer_readouts",
                "dim_facts",
            )
        )
    )
    assert not shown.specifications() and not shown.tables
    for words in ("No accuracies", "No predictions", "No convergence", "No logit-lens readouts", "No facts"):
        assert words in shown.text
    assert "No fact of this release has another subject to compare with." in shown.text
    assert "No accuracies by the length of answers" in shown.text


def test_without_other_subjects_there_is_no_gain(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        """update fct_relation_accuracies set gain_fact_count = 0, mean_own_log_prob = null,
        mean_mismatched_log_prob = null, mean_log_prob_gain = null, mean_log_prob_gain_low = null,
        mean_log_prob_gain_high = null, positive_gain_share = null"""
    )
    assert not {"gain", "levels"} & shown.specifications().keys()
    assert shown.text.count("No fact of this release has another subject to compare with.") == 2


def test_nothing_learned_and_one_relation(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        "update fct_fact_predictions set is_known_top1 = false",
        "update fct_relation_accuracies set top1_accuracy = 0",
        "update fct_relation_convergences set censoring = 'right', converged_checkpoint_id = null, is_steady = true",
        *(
            f"delete from {mart} where relation_id = 'leader_of'"
            for mart in ("fct_fact_predictions", "dim_facts", "fct_relation_convergences", "fct_layer_readouts")
        ),
        "delete from fct_relation_accuracies where scope_id in ('leader_of', 'name')",
    )
    assert "0 of 4 facts are known at main" in shown.text
    assert "0 of 1 relation has converged (top-1)" in shown.text
    assert "n/a" in {line[3] for line in shown.body("knowledge-facts")}
    assert not re.search(r"\b(None|nan|NaN|NULL|Undefined)\b", shown.text)


def test_one_checkpoint_has_no_halfway(small_site: Site) -> None:
    shown = small_site.page("knowledge")
    assert "learning" in shown.specifications()
    assert "Halfway" not in shown.text
    assert {row["checkpoint_index"] for row in shown.chart_rows("gain")} == {0}


def test_steps_that_are_not_stated_leave_the_interval_out(page: Callable[..., tuple[PageReader, Site]]) -> None:
    shown, _ = page(
        "update dim_checkpoints set step = null, cumulative_step = null",
        """update fct_relation_convergences set converged_step = null, previous_step = null, converged_step_low = null,
        converged_step_high = null""",
    )
    assert "convergence" in shown.specifications()
    assert not datasets(shown, "convergence", "endless")


# In the browser


@needs_browser
def test_the_switch_of_facts_chooses_rows_and_marks(
    window: Window, page: Callable[..., tuple[PageReader, Site]], site: Site, tmp_path: Path
) -> None:
    """Of a subset, one relation is drawn on both measures; its rows alone are shown."""
    shown, changed_site = page(
        "delete from fct_relation_convergences where fact_subset <> 'all'",
        """insert into fct_relation_convergences select * replace ('single_token_unshared' as fact_subset)
        from fct_relation_convergences where relation_id = 'capital_of'""",
    )
    (changed_site.folder / "assets").symlink_to(site.folder / "assets")
    browser_page = window.open(shown.path)
    marks = browser_page.locator("#convergence .mark-symbol [aria-label*='last fitted accuracy']")
    rows = browser_page.locator("#knowledge-convergence tbody tr:not([hidden])")
    assert (marks.count(), rows.count()) == (4, 4)
    browser_page.select_option("#convergence_facts", "single_token_unshared")
    browser_page.wait_for_function(
        """() => document.querySelectorAll("#convergence .mark-symbol [aria-label*='last fitted']").length === 2"""
    )
    assert rows.count() == 2
    assert all("capital_of" in text for text in rows.all_text_contents())
