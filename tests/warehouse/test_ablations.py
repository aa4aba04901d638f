"""Ablations in the warehouse: every mart a second time in plain Python, and claim 6 where the truth is known."""

import hashlib
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from simulations import ablations, warehouse
from tests.warehouse.ablation_lake import (
    COMPONENTS,
    COURSES,
    RANDOM,
    RELATIONS,
    TAU_IDS,
    UNTOUCHED,
    asked,
    commit_ablation,
    commit_ablation_lake,
    random_ablation,
)
from timecourse.build import BuildResult, build_warehouse
from timecourse.lake import Lake

Row = dict[str, Any]
Key = tuple[Any, ...]

STATISTICS = ("own_less_other_relation_damage", "role_less_random_set_damage")
REPLICATES = 100


@dataclass(frozen=True)
class Built:
    """A lake after a build: its marts, and what its raw files say, as the tests compute it."""

    lake: Path
    result: BuildResult

    def rows(self, sql: str) -> list[Row]:
        with duckdb.connect(str(self.result.database), read_only=True) as connection:
            relation = connection.sql(sql)
            return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    lake = tmp_path_factory.mktemp("ablated")
    Lake(lake).create()
    commit_ablation_lake(lake)
    return Built(lake, build_warehouse(lake, theta="0.1", complete_series=[], replicates=REPLICATES))


# The twin: from raw rows to marts


@dataclass
class Twin:
    """One ablated checkpoint's raw rows, and what follows from them."""

    checkpoint_id: str
    sets: dict[int, Row]
    facts: dict[str, str]
    """Fact -> its relation."""
    effects: dict[tuple[str, int], dict[str, tuple[float, float | None, float]]]
    """Method and set -> fact -> effect, effect on the template, change of rank."""

    def scored(self, method: str, number: int, relation: str | None) -> dict[str, tuple[float, float | None, float]]:
        """What a set does to the facts it was scored on, of one relation where there is one."""
        effects = self.effects.get((method, number), {})
        return {fact: values for fact, values in effects.items() if relation in (None, self.facts[fact])}

    def numbers(self, kind: str, tau_id: str, role: str) -> list[int]:
        return [
            n for n, one in self.sets.items() if (one["set_kind"], one["tau_id"], one["role"]) == (kind, tau_id, role)
        ]

    def by_index(self, method: str, tau_id: str, role: str) -> dict[int, dict[str, tuple[float, float | None, float]]]:
        """The role's own set (-1) and its random ones: fact -> effects, of both halves and all relations together."""
        found: dict[int, dict[str, tuple[float, float | None, float]]] = defaultdict(dict)
        for kind in ("role", "random"):
            for number in self.numbers(kind, tau_id, role):
                one = self.sets[number]
                scored = self.scored(method, number, one["relation_id"])
                assert not set(scored) & set(found[-1 if kind == "role" else one["random_index"]])
                found[-1 if kind == "role" else one["random_index"]].update(scored)
        return found

    def member_count(self, tau_id: str, role: str, relation: str | None) -> float:
        """Mean of two halves; over the relations that have a set where none is named."""
        sizes: dict[str | None, int] = defaultdict(int)
        for number in self.numbers("role", tau_id, role):
            sizes[self.sets[number]["relation_id"]] += len(self.sets[number]["components"])
        return sizes[relation] / 2 if relation in sizes else fmean(size / 2 for size in sizes.values())


def twins(lake: Path) -> list[Twin]:
    found = []
    for ablation in Lake(lake).ablations():
        folder = lake / ablation.content["directory"]
        sets: dict[int, Row] = {}
        for row in pq.read_table(folder / "ablation_sets.parquet").to_pylist():
            sets.setdefault(row["set_id"], {**row, "components": []})["components"].append(row["component_id"])
        prompts = {one.prompt_id: one for one in asked(lake, ablation.checkpoint_id)}
        by_prompt: dict[tuple[str, int], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in pq.read_table(folder / "ablations.parquet").to_pylist():
            by_prompt[row["method"], row["set_id"]][row["prompt_id"]].append(row)
        effects = {}
        for key, scored in by_prompt.items():
            by_fact: dict[str, list[tuple[float, float | None, float]]] = defaultdict(list)
            for prompt_id, tokens in scored.items():
                total = math.fsum(token["delta_log_prob"] for token in tokens)
                first = next(token for token in tokens if token["answer_token_index"] == 0)
                by_fact[prompts[prompt_id].fact_id].append(
                    (total, first["delta_template_log_prob"], first["delta_rank"])
                )
            effects[key] = {fact: mean_of(values) for fact, values in by_fact.items()}
        facts = {one.fact_id: one.relation_id for one in prompts.values()}
        found.append(Twin(ablation.checkpoint_id, sets, facts, effects))
    return found


def mean_of(values: Iterable[tuple[float, float | None, float]]) -> tuple[float, float | None, float]:
    """Mean of each of three, of the second where it is known."""
    one, two, three = zip(*values, strict=True)
    known = [value for value in two if value is not None]
    return fmean(one), fmean(known) if known else None, fmean(three)


def expected_role_effects(twin: Twin) -> dict[Key, Row]:
    """Rows of fct_role_effects by τ, method, role and scope, without q."""
    found: dict[Key, Row] = {}
    methods = sorted({method for method, _ in twin.effects})
    roles = sorted({(one["tau_id"], one["role"]) for one in twin.sets.values() if one["set_kind"] == "role"})
    for method in methods:
        for tau_id, role in roles:
            for relation in (None, *sorted(set(twin.facts.values()))):
                by_index = {
                    index: {fact: value for fact, value in scored.items() if relation in (None, twin.facts[fact])}
                    for index, scored in twin.by_index(method, tau_id, role).items()
                }
                own = by_index.pop(-1, {})
                if not own:
                    continue
                complete = [scored for scored in by_index.values() if set(scored) == set(own)]
                effect, template, rank = mean_of(own.values())
                beside = [mean_of(scored.values()) for scored in complete]
                error = spread([one for one, _, _ in own.values()])
                row: Row = {
                    "member_count": twin.member_count(tau_id, role, relation),
                    "fact_count": len(own),
                    "effect": effect,
                    "effect_low": None if error is None else effect - 1.959963984540054 * error,
                    "effect_high": None if error is None else effect + 1.959963984540054 * error,
                    "random_count": len(beside),
                    "template_effect": template,
                    "mean_rank_change": rank,
                }
                names = ("random_mean", "random_low", "random_high", "excess", "excess_low", "excess_high", "p_value",
                         "random_template_mean", "random_mean_rank_change")  # fmt: skip
                row |= dict.fromkeys(names)
                if beside:
                    drawn = [one for one, _, _ in beside]
                    random_mean, template_mean, rank_mean = mean_of(beside)
                    excess = effect - random_mean
                    excesses = [own[fact][0] - fmean(scored[fact][0] for scored in complete) for fact in own]
                    errors = (spread(excesses), spread(drawn))
                    whole = None if None in errors else 1.959963984540054 * math.hypot(*errors)
                    row |= {
                        "random_mean": random_mean,
                        "random_low": min(drawn),
                        "random_high": max(drawn),
                        "excess": excess,
                        "excess_low": None if whole is None else excess - whole,
                        "excess_high": None if whole is None else excess + whole,
                        "p_value": (1 + sum(one <= effect + 1e-9 for one in drawn)) / (1 + len(drawn)),
                        "random_template_mean": template_mean,
                        "random_mean_rank_change": rank_mean,
                    }
                scope = ("all", "all") if relation is None else ("relation", relation)
                found[tau_id, method, role, *scope] = row
    return found


def spread(values: Sequence[float]) -> float | None:
    """Standard error of a mean."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def expected_specificities(twin: Twin) -> dict[Key, tuple[float, int, float]]:
    """By τ, method, role, silenced and scored relation: effect, facts, members."""
    by_key: dict[Key, list[float]] = defaultdict(list)
    for (method, number), _ in twin.effects.items():
        one = twin.sets[number]
        if one["set_kind"] == "role" and one["relation_id"] is not None:
            for fact, values in twin.scored(method, number, None).items():
                key = (one["tau_id"], method, one["role"], one["relation_id"], twin.facts[fact])
                by_key[key].append(values[0])
    return {
        key: (fmean(values), len(values), twin.member_count(key[0], key[2], key[3])) for key, values in by_key.items()
    }


def check_marts(built: Built) -> None:
    """That the marts say what the raw files of the lake's ablations do, no more and no less."""
    expected = twins(built.lake)
    effects = built.rows("from fct_role_effects")
    by_key = {
        (row["checkpoint_id"], *(row[n] for n in ("tau_id", "method", "role", "scope_kind", "scope_id"))): row
        for row in effects
    }
    wanted = {(twin.checkpoint_id, *key): row for twin in expected for key, row in expected_role_effects(twin).items()}
    assert set(by_key) == set(wanted) and len(effects) == len(by_key)
    for key, row in wanted.items():
        assert {name: by_key[key][name] for name in row} == pytest.approx(row, abs=2e-8), key
        assert by_key[key]["relation_id"] == (by_key[key]["scope_id"] if key[4] == "relation" else None)
        assert float(by_key[key]["theta"]) == 0.1
    for q_value, row in zip(adjusted(effects), effects, strict=True):
        assert row["q_value"] == (None if q_value is None else pytest.approx(q_value, abs=1e-9))

    names = ("checkpoint_id", "tau_id", "method", "role", "set_relation_id", "scored_relation_id")
    specificities = {
        tuple(row[name] for name in names): (row["effect"], row["fact_count"], row["member_count"])
        for row in built.rows("from fct_relation_specificities")
    }
    wanted_specificities = {
        (twin.checkpoint_id, *key): values for twin in expected for key, values in expected_specificities(twin).items()
    }
    assert set(specificities) == set(wanted_specificities)
    for key, values in wanted_specificities.items():
        assert specificities[key] == pytest.approx(values, abs=1e-8)


def adjusted(rows: Sequence[Row]) -> list[float | None]:
    """Benjamini and Hochberg's q within checkpoint, τ, method and kind of scope, by its definition."""
    families: dict[Key, list[float]] = defaultdict(list)
    keys = [tuple(row[name] for name in ("checkpoint_id", "tau_id", "method", "scope_kind")) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        if row["p_value"] is not None:
            families[key].append(row["p_value"])
    levels = {
        key: [(p, p * len(values) / rank) for rank, p in enumerate(sorted(values), 1)]
        for key, values in families.items()
    }
    return [
        None if row["p_value"] is None else min(1, *(level for p, level in levels[key] if p >= row["p_value"] - 1e-12))
        for key, row in zip(keys, rows, strict=True)
    ]


# The marts


def test_marts_say_what_the_raw_rows_do(built: Built) -> None:
    assert [check for check in built.result.checks if check.result != "pass"] == []
    check_marts(built)
    counts = built.rows(
        "select count_if(random_count = 0) as without, count_if(random_count > 0) as with_some, "
        "count_if(fact_count = 3) as half, count(distinct method) as methods from fct_role_effects"
    )
    assert min(counts[0].values()) > 2  # the lake has all of these


@pytest.mark.slow
def test_another_ablation_replaces_the_first(built: Built, tmp_path: Path) -> None:
    """An extraction stays what it is while its ablation is made anew, or goes."""
    lake = shutil.copytree(built.lake, tmp_path / "lake")
    replaced = f"{RANDOM}/step1"
    commit_ablation(lake, replaced, *random_ablation(lake, replaced, 7, TAU_IDS[:1]), "another")
    (gone,) = [one for one in Lake(lake).ablations() if one.checkpoint_id == f"{RANDOM}/step2"]
    gone.path.unlink()
    result = build_warehouse(lake, theta="0.1", complete_series=[], replicates=REPLICATES)
    again = Built(lake, result)
    assert not result.is_full_refresh and result.added_extractions == ()
    check_marts(again)
    ablated = {row["checkpoint_id"] for row in again.rows("from fct_role_effects")}
    assert replaced in ablated and gone.checkpoint_id not in ablated
    assert again.rows("from fct_score_effects") == []
    # claim 6 is judged at the last checkpoint that is left
    before, after = (
        {row["tau_id"]: row["estimate"] for row in one.rows(claim_6(RANDOM)) if row["statistic"] == STATISTICS[0]}
        for one in (built, again)
    )
    assert before["0.05"] != after["0.05"] and before["5x"] is not None and after["5x"] is None


def test_halves_are_one_split(built: Built) -> None:
    """What fct_half_roles says follows from the facts that fct_fact_halves puts in the half, and from no others."""
    halves = {
        row["fact_id"]: row["half"] for row in built.rows(f"from fct_fact_halves where series_id = '{UNTOUCHED}'")
    }
    assert halves == {one.fact_id: one.half for one in asked(built.lake, f"{UNTOUCHED}/main")}
    assert sorted(halves.values()).count("A") == len(halves) / 2
    (extraction,) = [one for one in Lake(built.lake).commits() if one.checkpoint_id == f"{UNTOUCHED}/main"]
    folder = built.lake / extraction.content["directory"]
    tables = {
        name: pq.read_table(folder / f"{name}.parquet").to_pylist()
        for name in ("prompts", "prompt_tokens", "attributions")
    }
    held = {
        (row["half"], row["role"], row["relation_id"], row["component_id"])
        for row in built.rows(f"from fct_half_roles where series_id = '{UNTOUCHED}' and tau_id = '5x'")
    }
    assert held == roles_of_halves(halves, tables, "5x")
    assert {(half, role) for half, role, _, _ in held} >= {("A", "general"), ("B", "general"), ("A", "relation_answer")}


def roles_of_halves(
    halves: Mapping[str, str], tables: Mapping[str, list[Row]], tau_id: str
) -> set[tuple[str, str, str, str]]:
    """Half, role, relation and component: the definition of roles (docs/method.md), over the facts of one half."""
    prompts = {row["prompt_id"]: row for row in tables["prompts"]}
    active = {
        (row["component_id"], row["prompt_id"], row["position"])
        for row in tables["attributions"]
        if row["tau_id"] == tau_id
    }
    found = set()
    for half in "AB":
        own = [row for row in tables["prompt_tokens"] if halves[prompts[row["prompt_id"]]["fact_id"]] == half]
        answers = [row for row in own if row["is_answer_predicting"]]
        entity = [row for row in own if row["span_role"] == "subject"] + answers
        for component in COMPONENTS:

            def rate(rows: Sequence[Row], component: str = component) -> float:
                return fmean((component, row["prompt_id"], row["position"]) in active for row in rows)

            by_prompt = [[row for row in own if row["prompt_id"] == n] for n in {row["prompt_id"] for row in own}]
            if round(fmean(rate(rows) for rows in by_prompt), 9) > 0.1:
                found.add((half, "general", "", component))
                continue
            if rate(entity) > 0.1:
                found.add((half, "entity", "", component))
                continue
            for relation in RELATIONS:
                here = [row for row in answers if prompts[row["prompt_id"]]["relation_id"] == relation]
                facts = {prompts[row["prompt_id"]]["fact_id"] for row in here}
                if rate(here) > 0.1:
                    found.add((half, "relation_answer", relation, component))
                elif any(
                    rate([row for row in here if prompts[row["prompt_id"]]["fact_id"] == fact]) > 0.1 for fact in facts
                ):
                    found.add((half, "fact_answer", relation, component))
    return found


def test_scores_against_single_components(built: Built) -> None:
    """Spearman's correlation, from the raw rows of attributions, contributions and single components."""
    (twin,) = [one for one in twins(built.lake) if one.checkpoint_id == f"{RANDOM}/step1"]
    singles = {
        twin.sets[number]["components"][0]: fmean(values[0] for values in facts.values())
        for (_, number), facts in twin.effects.items()
        if twin.sets[number]["set_kind"] == "single"
    }
    assert sorted(singles) == sorted(COMPONENTS)
    (extraction,) = [one for one in Lake(built.lake).commits() if one.checkpoint_id == twin.checkpoint_id]
    folder = built.lake / extraction.content["directory"]
    prompts = {row["prompt_id"]: row["fact_id"] for row in pq.read_table(folder / "prompts.parquet").to_pylist()}
    predicting = {
        (row["prompt_id"], row["position"])
        for row in pq.read_table(folder / "prompt_tokens.parquet").to_pylist()
        if row["is_answer_predicting"]
    }
    contributions: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in pq.read_table(folder / "contributions.parquet").to_pylist():
        contributions[row["component_id"]][prompts[row["prompt_id"]]].append(row["c_direct"])
    attributions = pq.read_table(folder / "attributions.parquet").to_pylist()
    found = {
        (row["tau_id"], row["component_kind"], row["measure"]): row for row in built.rows("from fct_score_effects")
    }
    assert len(found) == len(TAU_IDS) * 2 * 3
    for tau_id in TAU_IDS:
        scores: dict[str, list[float]] = {component: [] for component in COMPONENTS}
        for row in attributions:
            if row["tau_id"] == tau_id and (row["prompt_id"], row["position"]) in predicting:
                scores[row["component_id"]].append(row["score"])
        for kind in ("head", "ffn"):
            chosen = [component for component in COMPONENTS if component.endswith("F") == (kind == "ffn")]
            measured: dict[str, Sequence[float]] = {
                "score": [math.fsum(scores[component]) for component in chosen],
                "rate": [len(scores[component]) for component in chosen],
                "c_direct": [
                    fmean(fmean(values) for values in contributions[component].values()) for component in chosen
                ],
            }
            for measure, values in measured.items():
                row = found[tau_id, kind, measure]
                assert row["component_count"] == len(chosen) and row["method"] == "mean"
                expected = spearman(values, [singles[component] for component in chosen])
                assert row["rank_correlation"] == pytest.approx(expected, abs=1e-8)


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    def ranks(values: Sequence[float]) -> list[float]:
        rounded = [round(value, 9) for value in values]
        return [sum(one < value for one in rounded) + (rounded.count(value) + 1) / 2 for value in rounded]

    one, other = ranks(left), ranks(right)
    middle = (len(one) + 1) / 2
    covariance = math.fsum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
    return covariance / math.sqrt(
        math.fsum((a - middle) ** 2 for a in one) * math.fsum((b - middle) ** 2 for b in other)
    )


# Claim 6


def claim_6(series_id: str) -> str:
    return f"from fct_claims where claim_number = 6 and series_id = '{quoted(series_id)}' order by statistic, tau_id"


def quoted(text: str) -> str:
    return text.replace("'", "''")


@pytest.mark.parametrize(
    ("series_id", "verdict", "reasons"),
    [
        ("needed, it's", "supported", ["", ""]),
        ("needed by one method", "undecided", ["the method `resample` does not say the same"] * 2),
        ("blunt", "contradicted", ["the upper end of the interval is below δ"] * 2),
        ("needed no more than random", "contradicted", ["", "the upper end of the interval is below δ"]),
        ("helped", "contradicted", ["the upper end of the interval is below δ"] * 2),
        ("unsure", "undecided", ["the interval holds δ"] * 2),
        ("two relations", "not_assessable",
         ["fewer than 3 relations have a set of this θ that was silenced by the method `mean` (2)",
          "fewer than 3 relations have a set of this θ that was silenced by the method `mean`, with random sets beside"
          " it (2)"]),
        ("nothing beside", "not_assessable",
         ["",
          "fewer than 3 relations have a set of this θ that was silenced by the method `mean`, with random sets beside"
          " it (0)"]),
        ("zero only", "not_assessable",
         ["fewer than 3 relations have a set of this θ that was silenced by the method `mean` (0)",
          "fewer than 3 relations have a set of this θ that was silenced by the method `mean`, with random sets beside"
          " it (0)"]),
        (UNTOUCHED, "not_assessable", ["no checkpoint has ablations at this τ"] * 2),
    ],
)  # fmt: skip
def test_verdicts_where_the_truth_is_known(built: Built, series_id: str, verdict: str, reasons: list[str]) -> None:
    rows = [row for row in built.rows(claim_6(series_id)) if row["tau_id"] == TAU_IDS[0]]
    assert [row["statistic"] for row in rows] == list(STATISTICS)
    assert [(row["verdict"], row["reason"]) for row in rows] == [(verdict, reason) for reason in reasons]
    others = [row for row in built.rows(claim_6(series_id)) if row["tau_id"] != TAU_IDS[0]]
    assert {row["reason"] for row in others} == {"no checkpoint has ablations at this τ"}
    if series_id in COURSES and len(COURSES[series_id].relations) == 4 and "mean" in COURSES[series_id].methods:
        course = COURSES[series_id]
        damages = (course.other - course.own, course.beside - course.own)
        for row, damage in zip(rows, damages, strict=True):
            if row["estimate"] is not None:
                assert row["estimate_low"] - 0.1 < damage < row["estimate_high"] + 0.1
                assert row["estimate"] == pytest.approx(damage, abs=0.1 + course.deviation)


def test_the_estimate_is_that_of_the_marts(built: Built) -> None:
    """Own against other relations from fct_relation_specificities, against random sets from fct_role_effects."""
    compared = 0
    for row in built.rows("from fct_claims where claim_number = 6 and estimate is not null"):
        where = (
            f"where series_id = '{quoted(row['series_id'])}' and tau_id = '{row['tau_id']}' and method = 'mean' "
            f"and role = 'relation_answer'"
        )
        last = f"and checkpoint_id = (select max(checkpoint_id) from fct_role_effects {where})"
        if row["statistic"] == STATISTICS[0]:
            matrix = built.rows(f"from fct_relation_specificities {where} {last}")
            values = [
                fmean(other["effect"] for other in matrix if other["set_relation_id"] == own["set_relation_id"]
                      and other["scored_relation_id"] != own["set_relation_id"]) - own["effect"]
                for own in matrix
                if own["set_relation_id"] == own["scored_relation_id"]
            ]  # fmt: skip
        else:
            values = [
                -own["excess"]
                for own in built.rows(f"from fct_role_effects {where} {last} and scope_kind = 'relation'")
                if own["excess"] is not None
            ]
        assert row["unit_count"] == len(values)
        assert row["estimate"] == pytest.approx(fmean(values), abs=1e-8)
        compared += 1
    assert compared > 12


def test_a_draw_takes_other_facts_and_other_random_sets(built: Built) -> None:
    """Draws of claim 6 in plain Python, from the weights of the facts and from the random sets that a hash picks."""
    (twin,) = [one for one in twins(built.lake) if one.checkpoint_id == "needed, it's/main"]
    with duckdb.connect(str(built.result.database), read_only=True) as connection:
        ((extraction_id,),) = connection.execute(
            "select extraction_id from int_checkpoints where checkpoint_id = ?", [twin.checkpoint_id]
        ).fetchall()
        facts = connection.execute(
            "select fact_id from stg_draws__facts join stg_draws__extractions using (fact_set_id) "
            "where extraction_id = ? order by fact_number",
            [extraction_id],
        ).fetchall()
        weights = connection.execute(
            "select resample, weights from stg_draws__weights join stg_draws__extractions using (fact_set_id) "
            "where extraction_id = ? and resample_kind in ('observed', 'bootstrap') and resample <= 3 order by all",
            [extraction_id],
        ).fetchall()
    picked = {0: list(range(6))} | {
        resample: [
            int.from_bytes(hashlib.md5(f"{resample}/{place}".encode()).digest()[8:], "little") % 6
            for place in range(1, 7)
        ]
        for resample in (1, 2, 3)
    }
    drawn = {
        (row["statistic"], row["variant"], row["replicate"]): row["value"]
        for row in built.rows(
            "from fct_claim_draws where claim_number = 6 and series_id = 'needed, it''s' and replicate <= 3"
        )
    }
    assert len(drawn) == 2 * 2 * 4
    for resample, vector in weights:
        weight = dict(zip((fact for (fact,) in facts), vector, strict=True))
        for method, variant in (("mean", "main"), ("resample", "resample")):
            by_index = twin.by_index(method, TAU_IDS[0], "relation_answer")
            expected: dict[str, list[float]] = {name: [] for name in STATISTICS}
            for relation in RELATIONS:
                own = weighted({f: v for f, v in by_index[-1].items() if twin.facts[f] == relation}, weight)
                others = []
                for scored in set(RELATIONS) - {relation}:
                    everywhere: dict[str, tuple[float, float | None, float]] = {}
                    for number in twin.numbers("role", TAU_IDS[0], "relation_answer"):
                        if twin.sets[number]["relation_id"] == relation:
                            everywhere |= twin.scored(method, number, scored)
                    others.append(weighted(everywhere, weight))
                beside = [
                    weighted({f: v for f, v in by_index[index].items() if twin.facts[f] == relation}, weight)
                    for index in picked[resample]
                ]
                expected[STATISTICS[0]].append(fmean(others) - own)
                expected[STATISTICS[1]].append(fmean(beside) - own)
            for statistic, values in expected.items():
                assert drawn[statistic, variant, resample] == pytest.approx(fmean(values), abs=1e-8)


def weighted(effects: Mapping[str, tuple[float, float | None, float]], weight: Mapping[str, float]) -> float:
    return sum(weight[fact] * values[0] for fact, values in effects.items()) / sum(weight[fact] for fact in effects)


def test_queries_give_claim_6_again(built: Built) -> None:
    for row in built.rows("from fct_claims where claim_number = 6"):
        (again,) = built.rows(row["query"])
        for column in ("estimate", "estimate_low", "estimate_high"):
            assert again[column] == pytest.approx(row[column], abs=1e-9)


# The simulation, short


@pytest.mark.slow
def test_simulated_p_values_and_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where roles mean nothing, p is uniform under permutations of the components; what is needed is found."""
    monkeypatch.setattr(warehouse, "OUT", tmp_path)
    scenarios = ("nothing, 3 of 8 heads", "needed, 1 of 8 heads")
    rows = ablations.main(60, scenarios, claim_draws=4, claim_scenarios=("specific", "nothing"), replicates=40)
    found = {(row["scenario"], row["random sets"], row["role"]): row for row in rows}
    for role in ("general", "relation_answer"):
        row = found[scenarios[0], "as drawn", role]
        assert row["p ≤ 0.05"] <= 0.15 and 0.25 < row["p ≤ 0.5"] < 0.7
        assert found[scenarios[1], "as drawn", role]["p ≤ 0.05"] > 0.2
    assert found[scenarios[0], "as drawn", "general"]["excess covered"] > 0.85
    claims = json.loads((tmp_path / "ablation_claims.json").read_text())
    assert {row["scenario"]: row["claim supported"] for row in claims} == {"specific": 1, "nothing": 0}
