"""Claims: what they say where the truth is known, that their queries give the same again, and exact tests."""

import math
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import duckdb
import numpy as np
import pytest

from simulations import claims, warehouse
from simulations.lakes import component_ids, fill_raw
from tests.warehouse.claim_lake import HEADS, LAYERS, RELATIONS, make_all
from timecourse.resampling import SPLITS

STATISTICS = {
    1: ["general_early_less_late", "specific_late_less_early"],
    2: ["disagreement_across_less_within"],
    3: ["answer_less_other_turnover"],
    4: ["head_less_ffn_matched_turnover", "ffn_less_head_rank_correlation"],
    5: ["log2_step_name_less_location"],
}
"""Of claims 1 to 5; claim 6, which needs ablations, is judged in test_ablations."""
LATE = "fewer than 6 checkpoints from the first one that answers better than always naming the most frequent answer"


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        fill_raw(connection, make_all())
        warehouse.build_from_raw(connection, "fct_claims", "fct_kind_comparisons", replicates=60)
        yield connection


def records(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    relation = connection.sql(sql)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def claims_of(connection: duckdb.DuckDBPyConnection, series_id: str) -> dict[str, dict[str, Any]]:
    """By statistic."""
    claims = records(connection, "from fct_claims where claim_number <= 5")
    rows = {row["statistic"]: row for row in claims if row["series_id"] == series_id}
    assert {name: row["claim_number"] for name, row in rows.items()} == {
        name: number for number, names in STATISTICS.items() for name in names
    }
    return rows


def verdicts(connection: duckdb.DuckDBPyConnection, series_id: str) -> dict[int, tuple[str, str]]:
    """By claim: the verdict, and the reasons of its statistics if they are the same."""
    found = {}
    for row in claims_of(connection, series_id).values():
        if row["verdict"] == "not_assessable":
            assert row["statistic_verdict"] == "not_assessable"
        number = row["claim_number"]
        reason = row["reason"] if found.get(number, ("", row["reason"]))[1] == row["reason"] else ""
        assert found.get(number, (row["verdict"],))[0] == row["verdict"]
        found[number] = (row["verdict"], reason)
    return found


# Verdicts where the truth is known


def test_supported_where_true_by_construction(connection: duckdb.DuckDBPyConnection) -> None:
    rows = claims_of(connection, "supporting, it's")
    for row in rows.values():
        assert (row["statistic_verdict"], row["verdict"], row["reason"]) == ("supported", "supported", ""), row
        assert row["estimate"] >= row["delta"]
    # 20 heads of 24 to 10 of 22 are general, 4 of 24 to 12 of 22 answer; the windows leave out the first checkpoints.
    assert 0.1 < rows["general_early_less_late"]["estimate"] < 20 / 24 - 10 / 22
    assert 0.1 < rows["specific_late_less_early"]["estimate"] < 12 / 22 - 4 / 24
    assert rows["log2_step_name_less_location"]["estimate"] == pytest.approx(
        3
    )  # from the third checkpoint to the sixth
    assert rows["log2_step_name_less_location"]["p_value"] == pytest.approx(1 / 120)


def test_contradicted_where_nothing_changes(connection: duckdb.DuckDBPyConnection) -> None:
    """Claim 2 is undecided: with 3 holders per relation, chance moves its interval's upper end above δ."""
    found = {number: verdict for number, (verdict, _) in verdicts(connection, "still").items()}
    assert found == {1: "contradicted", 2: "undecided", 3: "contradicted", 4: "contradicted", 5: "contradicted"}
    for row in claims_of(connection, "still").values():
        if row["statistic"] != "head_less_ffn_matched_turnover":  # heads' roles are the noisier ones
            assert abs(row["estimate"]) < row["delta"]


def test_contradicted_where_the_opposite_is_true(connection: duckdb.DuckDBPyConnection) -> None:
    rows = claims_of(connection, "opposite")
    for row in rows.values():
        if row["claim_number"] != 2:  # whose components do not answer any more at the end
            assert row["verdict"] == "contradicted"
            assert row["estimate"] < 0
            assert row["statistic_verdict"] == "contradicted" or row["statistic"] == "head_less_ffn_matched_turnover"
            assert ("below δ" in row["reason"]) == (row["statistic_verdict"] == "contradicted")


def test_not_assessable_and_why(connection: duckdb.DuckDBPyConnection) -> None:
    unknown = "the model never answers better than always naming the most frequent answer"
    absent = "no relation converged between the checkpoints, or one of the groups `location` and `name` is absent"
    never = "no relation converged before the last checkpoint, or nothing answered for it when it did"
    quiet = "active at less than 5 % or more than 95 % of positions"
    expected = {
        "short": {1: f"{LATE} (4)", 2: "fewer than 6 checkpoints (5)", 3: f"{LATE} (4)", 4: f"{LATE} (4)",
                  5: "fewer than 6 checkpoints (5)"},
        "late": {1: f"{LATE} (5)", 3: f"{LATE} (5)", 4: f"{LATE} (5)"},
        "ignorant": {1: unknown, 2: never, 3: unknown, 4: unknown,
                     5: absent},
        "places only": {5: absent},
        "always knowing": {5: absent},
        "quiet": {1: f"heads are saturated: {quiet}", 3: f"heads are saturated: {quiet}",
                  4: f"saturated at matched rates, {quiet}: head, ffn"},
    }  # fmt: skip
    for series_id, reasons in expected.items():
        found = verdicts(connection, series_id)
        assert {n: reason for n, (verdict, reason) in found.items() if verdict == "not_assessable"} == reasons, (
            series_id
        )


def test_fading_is_not_specialising(connection: duckdb.DuckDBPyConnection) -> None:
    """Under the fixed τ both statistics speak for claim 1; with a cut-off that moves along, hardly anything is left."""
    rows = claims_of(connection, "fading")
    for statistic in STATISTICS[1]:
        row = rows[statistic]
        assert row["estimate_low"] > 0 and row["estimate"] > row["delta"] and row["same_sign_share"] >= 0.8
        assert row["repeated_estimate"] < 0.7 * row["estimate"]
        assert row["verdict"] == "undecided"
    assert any(rows[statistic]["reason"].endswith("repeated as the rule demands") for statistic in STATISTICS[1])


# The rows behind the verdicts


def test_queries_give_the_same_again(connection: duckdb.DuckDBPyConnection) -> None:
    """Run with nothing but the marts, as in a release; a series' name has a quote."""
    rows = records(connection, "from fct_claims")
    with duckdb.connect() as release:
        release.register("fct_claim_draws", connection.sql("from fct_claim_draws").to_arrow_table())
        assessed = 0
        for row in rows:
            columns = (
                ("estimate", "p_value") if row["claim_number"] == 5 else ("estimate", "estimate_low", "estimate_high")
            )
            (again,) = records(release, row["query"])
            assert tuple(again) == columns
            for column in columns:
                assert again[column] == pytest.approx(row[column], abs=1e-9), row
                assessed += row[column] is not None
    assert assessed > 3 * len(make_all()) * 5


def test_intervals_and_signs(connection: duckdb.DuckDBPyConnection) -> None:
    """A second time in plain Python, from the rows of fct_claim_draws."""
    draws = records(connection, "from fct_claim_draws")
    for row in records(connection, "from fct_claims where claim_number <> 5"):
        own = [draw for draw in draws if all(draw[name] == row[name] for name in ("series_id", "statistic"))]
        main = [draw for draw in own if draw["variant"] == "main"]
        values = {draw["replicate"]: draw["value"] for draw in main if float(draw["theta"]) == 0.1}
        assert row["estimate"] == values.get(0)
        if row["estimate"] is None:
            continue
        drawn = [value for replicate, value in values.items() if replicate > 0]
        assert row["draw_count"] == len(drawn)
        error = 2.5758293035489004 * stdev(drawn)
        assert (row["estimate_low"], row["estimate_high"]) == pytest.approx(
            (row["estimate"] - error, row["estimate"] + error), abs=1e-8
        )
        cells = [np.sign(draw["value"]) == np.sign(row["estimate"]) for draw in main if draw["replicate"] == 0]
        assert (row["cell_count"], row["same_sign_share"]) == (len(cells), pytest.approx(fmean(cells)))
        repeated = [
            d["value"] for d in own if d["variant"] != "main" and not d["replicate"] and float(d["theta"]) == 0.1
        ]
        assert [row["repeated_estimate"]] == (repeated or [None])
        assert bool(repeated) == (row["claim_number"] == 1)


def test_statistics_from_sets(connection: duckdb.DuckDBPyConnection) -> None:
    """Claims 1 to 4 of the series that supports them, in plain Python from role sets: observed, and under two draws.

    It knows locations from its third checkpoint on, names from the sixth; the last is the eighth.
    """
    sets = Sets(connection, "supporting, it's")
    early, late, after = (2, 3), (6, 7), range(3, 8)
    converged = {relation: 2 if group == "location" else 5 for relation, group in RELATIONS.items()}
    found = {
        (row["statistic"], row["replicate"]): row["value"]
        for row in records(connection, "from fct_claim_draws where variant = 'main' and theta = 0.1")
        if row["series_id"] == sets.series_id
    }
    for replicate in range(3):
        draw = ("bootstrap" if replicate else "observed", replicate, "")
        halves = [("bootstrap_half", replicate)] if replicate else [("half", number) for number in range(1, SPLITS + 1)]
        shares = {number: sets.shares(number, draw) for number in (*early, *late)}
        general, specific = ({number: share[at] for number, share in shares.items()} for at in (0, 1))
        turnovers = {
            roles: [sets.noise_corrected_turnover(number, halves, roles) for number in after]
            for roles in (("relation_answer", "fact_answer"), ("general", "entity"))
        }
        disagreements = [
            [value for half in halves for value in sets.disagreements(relation, number, half)]
            for relation, number in converged.items()
        ]
        expected = {
            "general_early_less_late": fmean(general[n] for n in early) - fmean(general[n] for n in late),
            "specific_late_less_early": fmean(specific[n] for n in late) - fmean(specific[n] for n in early),
            "disagreement_across_less_within": fmean(fmean(values) for values in disagreements if values),
            "answer_less_other_turnover": fmean(
                answer - other for answer, other in zip(*turnovers.values(), strict=True)
            ),
        }
        assert {name: found[name, replicate] for name in expected} == pytest.approx(expected, abs=3e-8)
    for statistic, comparison in zip(STATISTICS[4], ("matched_rate", "threshold_free"), strict=True):
        differences = [
            row["difference"]
            for row in records(connection, f"from fct_kind_comparisons where comparison = '{comparison}'")
            if row["to_checkpoint_id"] in [f"{sets.series_id}/step{1000 * 2**number}" for number in after]
        ]
        assert len(differences) == len(after)
        assert found[statistic, 0] == pytest.approx(fmean(differences), abs=3e-8)


class Sets:
    """The role sets of one series: by checkpoint, draw, role and relation."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, series_id: str) -> None:
        self.series_id = series_id
        ids = component_ids(LAYERS, HEADS)
        self.members: dict[tuple[int, tuple[str, int, str], str, str], frozenset[str]] = {}
        kinds = "resample_kind in ('observed', 'half') or resample <= 2"
        for row in records(
            connection,
            "select sets.*, members::varchar as bits from int_resampled_role_sets as sets "
            f"where theta = 0.1 and ({kinds}) and extraction_id like 'supporting%'",
        ):
            number = int(row["extraction_id"].removeprefix(f"{series_id}/"))
            members = frozenset(name for name, bit in zip(ids, row["bits"], strict=True) if bit == "1")
            draw = (row["resample_kind"], row["resample"], row["half"])
            self.members[number, draw, row["role"], row["relation_id"]] = members
        self.specific = {
            (int(math.log2(int(row["checkpoint_id"].split("step")[1]) / 1000)), row["relation_id"], row["component_id"])
            for row in records(connection, "from fct_role_specificities where is_specific and role = 'relation_answer'")
            if row["series_id"] == series_id
        }

    def shares(self, number: int, draw: tuple[str, int, str]) -> tuple[float, float]:
        """Of the active heads, those that are general, and those that hold a specific answer role."""
        roles = ("general", "entity", "relation_answer", "fact_answer")
        active = {name for role in roles for name in self.members[number, draw, role, ""] if "H" in name}
        specific = {
            name
            for relation in RELATIONS
            for name in self.members[number, draw, "relation_answer", relation]
            if "H" in name and (number, relation, name) in self.specific
        }
        general = [name for name in self.members[number, draw, "general", ""] if "H" in name]
        return len(general) / len(active), len(specific) / len(active)

    def united(self, number: int, draw: tuple[str, int, str], roles: Sequence[str], relation: str) -> frozenset[str]:
        return frozenset().union(*(self.members[number, draw, role, relation] for role in roles))

    def disagreements(self, relation: str, number: int, half: tuple[str, int]) -> list[float]:
        """Between halves at convergence and the last checkpoint, less between halves of either."""
        answering = {
            (at, part): self.united(at, (*half, part), ("relation_answer", "fact_answer"), relation)
            for at in (number, 7)
            for part in "AB"
        }
        if not all(answering.values()):
            return []

        def missing(*places: tuple[int, str]) -> float:
            here, there = (answering[place] for place in places)
            return len(here - there) / len(here)

        across = missing((number, "A"), (7, "B")) + missing((number, "B"), (7, "A"))
        within = sum(missing((at, one), (at, other)) for at in (number, 7) for one, other in ("AB", "BA"))
        return [across / 2 - within / 4]

    def noise_corrected_turnover(self, number: int, halves: Sequence[tuple[str, int]], roles: Sequence[str]) -> float:
        """Of heads, from the checkpoint before."""

        def overlap(one: int, other: int) -> float:
            overlaps = []
            for half in halves:
                for parts in ("AB", "BA"):
                    here, there = (
                        {name for name in self.united(at, (*half, part), roles, "") if "H" in name}
                        for at, part in zip((one, other), parts, strict=True)
                    )
                    overlaps.append(len(here & there) / len(here | there))
            return fmean(overlaps)

        before = number - 1
        return 1 - overlap(number, before) / math.sqrt(overlap(number, number) * overlap(before, before))


# Claim 5, exactly


def claim_5(steps: dict[str, dict[str, tuple[str, float | None]]], *models: str) -> duckdb.DuckDBPyConnection:
    """The claim's own SQL on relations, per series: group, and convergence step or None."""
    rows = [
        (series_id, relation, group, step)
        for series_id, relations in steps.items()
        for relation, (group, step) in relations.items()
    ]
    series_id, relation, group, step = (list(column) for column in zip(*rows, strict=True))
    keys = {"series_id": series_id, "setting_id": "x"}
    connection = duckdb.connect()
    warehouse.fill(
        connection,
        "fct_relation_convergences",
        {**keys, "relation_id": relation, "metric": "top1", "fact_subset": "all", "converged_step": step,
         "censoring": ["right" if each is None else "none" if each else "left" for each in step]},
    )  # fmt: skip
    warehouse.fill(connection, "dim_relations", {**keys, "relation_id": relation, "relation_group": group})
    warehouse.fill(
        connection,
        "int_checkpoints",
        {
            "series_id": list(steps),
            "setting_id": "x",
            "is_main_line": True,
            "cumulative_step": 1000,
            "checkpoint_index": 9,
        },
    )
    warehouse.fill(connection, "dim_settings", {"series_id": list(steps), "setting_id": "x", "tau_id": "t"})
    warehouse.build(connection, "int_claim_5_draws", "int_claim_5_shifts", theta="0.1")
    return connection


def random_steps(chance: np.random.Generator, locations: int, names: int) -> dict[str, tuple[str, float | None]]:
    """Many are equal, some have not converged; other groups do not count."""
    steps = [None if step > 8 else float(2**step) for step in chance.integers(0, 10, locations + names)]
    groups = ["location"] * locations + ["name"] * names
    relations: dict[str, tuple[str, float | None]] = {
        f"it's {number}": row for number, row in enumerate(zip(groups, steps, strict=True))
    }
    return {**relations, "other": ("other", 1.0)}


def exact_p_values(relations: dict[str, tuple[str, float | None]]) -> tuple[float, float, float]:
    """Estimate, p and the p of a difference of δ, over every order of the labels."""
    rows = [(group, np.log2(1000 if step is None else step)) for group, step in relations.values() if group != "other"]
    groups, steps = [group for group, _ in rows], np.array([step for _, step in rows])
    moved = steps - 0.5 * np.array([group == "name" for group in groups])

    def difference(values: np.ndarray[Any, Any], labels: Sequence[str]) -> float:
        is_name = np.array(labels) == "name"
        return float(values[is_name].mean() - values[~is_name].mean())

    orders = list(permutations(groups))
    estimate, shifted = difference(steps, groups), difference(moved, groups)
    return (
        estimate,
        fmean(difference(steps, labels) >= estimate - 1e-9 for labels in orders),
        fmean(difference(moved, labels) <= shifted + 1e-9 for labels in orders),
    )


def test_claim_5_is_exact() -> None:
    chance = np.random.default_rng(0)
    cases = {
        f"series {n}": random_steps(chance, *counts)
        for n, counts in enumerate([(4, 3), (5, 2), (3, 3), (1, 1), (6, 1)] * 3)
    }
    cases["one group"] = random_steps(chance, 4, 0)
    cases["none converged"] = {"a": ("location", None), "b": ("name", None)}
    cases["all had converged"] = {"a": ("location", 0.0), "b": ("name", 0.0)}
    connection = claim_5(cases)
    found = {
        row["series_id"]: row
        for row in records(
            connection,
            """select series_id, estimate, avg((value >= estimate - 1e-9)::integer) as p_value, shifted_p_value,
                count(*) as labels
            from int_claim_5_draws
            join (select series_id, value as estimate from int_claim_5_draws where replicate = 0) using (series_id)
            join int_claim_5_shifts using (series_id) group by all""",
        )
    }
    assert set(found) == {name for name in cases if name.startswith("series")}
    p_values = set()
    for series_id, row in found.items():
        expected = exact_p_values(cases[series_id])
        assert (row["estimate"], row["p_value"], row["shifted_p_value"]) == pytest.approx(expected, abs=1e-8)
        p_values |= set(expected[1:])
    assert len(p_values) > 12


def test_claim_5_draws_labels_of_many_relations() -> None:
    """Of 16 relations every assignment, of more 10,000 drawn ones, whose p is near the exact one."""
    chance = np.random.default_rng(1)
    cases = {"16": random_steps(chance, 11, 5), "18": random_steps(chance, 12, 6)}
    connection = claim_5(cases)
    counts = dict(connection.execute("select series_id, count(*) from int_claim_5_draws group by all").fetchall())
    assert counts == {"16": 4368, "18": 10001}
    labels = connection.execute(
        "select distinct count_if(is_name) over (partition by replicate) from int_claim_5_labels where series_id = '18'"
    ).fetchall()
    assert labels == [(6,)]
    values = connection.execute(
        "select value from int_claim_5_draws where series_id = '18' order by replicate"
    ).fetchnumpy()["value"]
    rows = [
        (group, np.log2(1000 if step is None else step)) for group, step in cases["18"].values() if group != "other"
    ]
    steps = np.array([step for _, step in rows])
    names = np.array([group == "name" for group, _ in rows])
    assert values[0] == pytest.approx(steps[names].mean() - steps[~names].mean(), abs=1e-8)
    drawn = np.array([steps[chance.permutation(18)] for _ in range(40_000)])
    truth = np.mean(drawn[:, :6].mean(axis=1) - drawn[:, 6:].mean(axis=1) >= values[0] - 1e-9)
    assert np.mean(values >= values[0] - 1e-9) == pytest.approx(truth, abs=0.02)
    assert 0 < truth < 1
    assert len(RELATIONS) <= 16


# The simulation, short


def test_simulated_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all kinds of roles change alike, and relations converge in any order, only the second claim is true."""
    monkeypatch.setattr(warehouse, "OUT", tmp_path)
    rows = claims.main(draws=2, scenarios=("restless",), replicates=40)
    assert len(rows) == 7
    for row in rows:
        assert 0 <= row["claim supported"] + row["claim contradicted"] <= 1
        assert row["claim supported"] == (row["claim"] == 2) or row["claim"] == 3
    assert (tmp_path / "claims.md").is_file()
