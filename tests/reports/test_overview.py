"""The overview: every number on it is in the answer of the SQL beside it, and claims are told as they were judged."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from timecourse.reports import wording
from timecourse.reports.blocks import Cards, Figure, Terms
from timecourse.reports.page import write_page
from timecourse.reports.pages import overview
from timecourse.reports.partition import list_partitions, open_partition

from .conftest import Site, changed

NUMBER = re.compile(r"[−-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
CONSTANTS = ("95 %", "99 %", "top-10", "top-1")


def ask(warehouse: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query on the release, as anyone else opens it."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.execute(query).fetchall()


def written(values: Iterable[Any]) -> set[str]:
    """Every way in which the report writes a number."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            found.add(wording.integer(value))
        elif value is not None and not isinstance(value, (bool, str)):
            number = float(value)
            found |= {f"{100 * number:.1f}", wording.decimal(number), wording.scientific(number), f"{number:g}"}
            found |= {text.replace("-", "−") for text in found}
    return found


def unanswered(text: str, warehouse: Path, queries: Iterable[str], names: Iterable[str]) -> list[str]:
    """The numbers of a text that its queries do not give; names and hashes that they give are no numbers."""
    values = [value for query in queries for row in ask(warehouse, query) for value in row]
    words = [value for value in values if isinstance(value, str)]
    words += [version for word in words if word.startswith("{") for version in json.loads(word).values()]
    for word in sorted({*words, *names, *CONSTANTS}, key=len, reverse=True):
        text = text.replace(word, " ") if word else text
    return [number for number in NUMBER.findall(text) if number not in written(values)]


@pytest.fixture(params=["small_release", pytest.param("staged_release", marks=pytest.mark.slow), "judged_release"])
def warehouse(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path / "warehouse.duckdb"


@pytest.fixture(scope="module")
def judged_release(small_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release with verdicts and draws by hand: claim 1 supported, 2 contradicted, 3 undecided, 4 not assessable."""
    folder = tmp_path_factory.mktemp("judged")
    with changed(small_release, folder) as connection:
        judge(connection)
    return folder


def judge(connection: duckdb.DuckDBPyConnection) -> None:
    """Fill the marts of claims: every number differs; claim 5 has p, of claim 6 the second statistic has no repeat."""
    connection.execute("delete from fct_claim_draws")
    connection.execute(
        """update fct_claims set delta = claim_number / 40, unit_count = 10 + claim_number,
            draw_count = if(claim_number = 5, 119, 1000), cell_count = if(claim_number = 5, null, 5),
            same_sign_share = if(claim_number = 5, null, 0.8),
            estimate = claim_number / 7 + length(statistic) / 1000,
            p_value = if(claim_number = 5, 0.0123, null),
            estimate_low = if(claim_number = 5, null, estimate - 0.321 * claim_number),
            estimate_high = if(claim_number = 5, null, estimate + 0.123 * claim_number),
            repeated_estimate = if(statistic in ('own_less_other_relation_damage', 'general_early_less_late'),
                -0.0625, null),
            statistic_verdict = ['supported', 'contradicted', 'undecided', 'not_assessable', 'supported', 'undecided'][
                claim_number],
            verdict = ['supported', 'contradicted', 'undecided', 'not_assessable', 'supported', 'undecided'][
                claim_number],
            reason = ['', 'it is <below> δ', 'it holds 0', 'heads are absent', '', 'it holds δ'][claim_number]"""
    )
    connection.execute("update fct_claims set estimate = null, estimate_low = null where claim_number = 4")
    connection.execute(
        """insert into fct_claim_draws by name
        select series_id, setting_id, tau_id, theta::decimal(12, 9) as theta, claim_number, statistic,
            'main' as variant, n as replicate, estimate + sin(n) / 9 as value, unit_count
        from fct_claims join dim_settings using (series_id, setting_id, tau_id), range(101) as draws (n)
        where estimate is not null"""
    )


def test_every_number_is_in_the_answer_of_its_query(warehouse: Path) -> None:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        keys = list_partitions(connection)
    checked = 0
    for key in keys:
        with duckdb.connect(str(warehouse), read_only=True) as connection:
            partition = open_partition(connection, key, "a release")
            page = overview.build(partition)
            names = [*partition.labels.values(), partition.tau_id]
        for block in page.blocks:
            if isinstance(block, Cards):
                for (_, number, text), query in zip(block.items, block.queries, strict=True):
                    assert unanswered(f"{number} {text}", warehouse, [query], names) == []
                    assert len(ask(warehouse, query)) == 1
                    checked += 1
            elif isinstance(block, Terms) and block.queries:
                queries = [query for query in block.queries if query]
                for term, text in block.items:
                    if term != "Release":
                        assert unanswered(text, warehouse, queries, names) == [], term
                        checked += 1
            elif isinstance(block, Figure):
                assert block.query is not None
                queries = [block.query, *(query for _, query in block.other_queries)]
                title = re.sub(r"^\d\. ", "", block.title)
                assert unanswered(f"{title} {block.caption}", warehouse, queries, names) == [], block.figure_id
                checked += 1
    assert checked > 20 * len(keys)


def page_of(release: Path, tmp_path: Path, *statements: str) -> Site:
    """The overview alone, of a copy of the release after statements that change it."""
    with changed(release, tmp_path) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("checkpoint")
    warehouse = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        key = list_partitions(connection)[0]
        partition = open_partition(connection, key, "a release")
        write_page(overview.build(partition), partition, tmp_path, "", [])
    return Site(tmp_path, warehouse)


def test_claims_are_told_with_verdict_effect_and_interval(judged_release: Path, tmp_path: Path) -> None:
    site = page_of(judged_release, tmp_path)
    page = site.page("index")
    for number, verdict in enumerate(
        ("supported", "contradicted", "undecided", "not assessable", "supported", "undecided"), start=1
    ):
        ((claim,),) = site.query(f"select distinct claim from fct_claims where claim_number = {number}")
        assert f"{number}. {claim}: {verdict}" in page.text
    for estimate, low, high in site.query(
        "select estimate, estimate_low, estimate_high from fct_claims where estimate_low is not null"
    ):
        texts = [f"{value:.3f}".replace("-", "−") for value in (estimate, low, high)]
        assert f"{texts[0]} (99 % interval {texts[1]} to {texts[2]} from 1,000 draws;" in page.text
    assert "p = 0.012 over 119 relabellings; 15 relations; δ = 0.125): supported." in page.text
    assert "of the same sign for 4 of 5 pairs of thresholds: contradicted, because it is <below> δ." in page.text
    assert "With the activity cut-off reset per checkpoint: −0.062." in page.text
    assert "Not assessable: heads are absent." in page.text and "claim-4" not in page.specifications()
    assert "2 of 6" in page.text and "1 contradicted, 2 undecided and 1 not assessable; see below." in page.text


def test_charts_of_claims_are_the_marts(judged_release: Path, tmp_path: Path) -> None:
    site = page_of(judged_release, tmp_path)
    for number, specification in (
        (int(name.removeprefix("claim-")), specification)
        for name, specification in site.page("index").specifications().items()
        if name.startswith("claim-")
    ):
        data = list(specification["datasets"].values())
        points = next(rows for rows in data if "estimate" in rows[0])
        assert [(row["estimate"], row["low"], row["high"], row["repeated"], row["delta"]) for row in points] == [
            tuple(None if value is None else pytest.approx(value, abs=1e-5) for value in row)
            for row in site.query(
                f"""select estimate, estimate_low, estimate_high, repeated_estimate, delta from fct_claims
                where claim_number = {number} order by statistic"""
            )
        ]
        columns = next(rows for rows in data if "draws" in rows[0])
        assert sum(row["draws"] for row in columns) == 100 * len(points), "every draw is in one column"
        for row, (low, high) in zip(
            points,
            site.query(
                f"""select min(value), max(value) from fct_claim_draws
                where claim_number = {number} and replicate > 0 group by statistic order by statistic"""
            ),
            strict=True,
        ):
            own = [column for column in columns if abs(column["base"] - row["line"]) < 0.2]
            assert min(column["low"] for column in own) == pytest.approx(low, abs=1e-5)
            assert max(column["high"] for column in own) == pytest.approx(high, abs=1e-5)


def test_the_query_of_a_claim_gives_its_estimate_again(site: Site) -> None:
    """The mart's own query, from the draws, stands beside the claim."""
    page = site.page("index")
    for query, estimate in site.query("select query, estimate from fct_claims"):
        assert query in page.text
        assert ask(site.warehouse, query)[0][0] == (None if estimate is None else pytest.approx(estimate))


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["drop table fct_claims"], "This release judges no claims."),
        (["delete from fct_claims"], "This release judges no claims."),
        (["drop table fct_claim_draws"], "1. General first, specialised later: supported"),
        (["delete from fct_claim_draws"], "1. General first, specialised later: supported"),
        (["update fct_claim_draws set value = 0.25"], "1. General first, specialised later: supported"),
        (["drop table fct_check_results"], "This release holds no check results; the parts sum"),
        (["update fct_claims set statistic = '</script>' || statistic, claim_number = 7, claim = '<b>'"], "7. <b>:"),
        (["delete from fct_relation_accuracies"], "No accuracies in this release."),
        (["delete from fct_component_histories where component_kind = 'ffn'"], "No components of this kind."),
        (["delete from fct_role_counts"], "No counts of roles in this release."),
        (["drop table fct_role_counts"], "No counts of roles in this release."),
        (["update dim_checkpoints set versions = 'not <json>'"], "not <json>"),
    ],
)
def test_what_is_missing_or_strange_is_told(
    judged_release: Path, tmp_path: Path, statements: list[str], says: str
) -> None:
    page = page_of(judged_release, tmp_path, *statements).page("index")
    assert says in page.text
    assert not re.search(r"\b(None|nan|Undefined)\b", page.text)


def test_the_release_is_named_where_it_is_to_be_cited(site: Site, small_release: Path) -> None:
    text = site.page("index").text.split("How to cite")[1]
    ((facts,),) = site.query("select facts_sha256 from dim_settings")
    assert f"release {small_release.name}" in text and facts[:12] in text and "tiny" in text


def test_a_finding_stands_in_the_title_where_the_intervals_lie_apart(judged_release: Path, tmp_path: Path) -> None:
    def titled(folder: str, first: tuple[float, float], last: tuple[float, float]) -> str:
        statements = [
            f"""update fct_relation_accuracies set all_tokens_accuracy = {sum(ends) / 2}, all_tokens_low = {ends[0]},
            all_tokens_high = {ends[1]} where scope_kind = 'all' and checkpoint_id in (
                select checkpoint_id from dim_checkpoints where checkpoint_index = {index})"""
            for ends, index in ((first, 0), (last, 2))
        ]
        return page_of(judged_release, tmp_path / folder, *statements).page("index").text

    assert "Facts are learned in training: from 10.0\u00a0% to 60.0\u00a0%" in titled("a", (0.0, 0.2), (0.5, 0.7))
    assert "Facts are lost in training: from 60.0\u00a0% to 10.0\u00a0%" in titled("b", (0.5, 0.7), (0.0, 0.2))
    assert "no clear change" in titled("c", (0.1, 0.5), (0.4, 0.8))
