"""Roles under draws over facts, and every statistic that is made of them, worked out a second time in plain Python."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import combinations, pairwise, product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import duckdb
import numpy as np
import pytest

from simulations import draws as simulated_draws
from simulations import warehouse
from tests.warehouse.conftest import snapshot
from tests.warehouse.random_lake import random_activity
from tests.warehouse.raw_lake import commit, commit_path
from tests.warehouse.roles_twin import ROLES, Prompt, kind_of
from timecourse.build import build_warehouse, theta_grid
from timecourse.resampling import BOOTSTRAP_SPLITS, PERMUTATIONS, SPLITS, draw_orders, draw_resamples

THETA = "0.25"  # few positions and a coarse threshold: many rates equal it exactly
THETAS = [Fraction(theta) for theta in theta_grid(THETA)]
REPLICATES = 100
LAYERS, HEADS = 4, 4
FACT_COUNTS = {"all": 5, "it's": 3, "one": 1, "x = {{ ref('a') }}": 14}
TAU_IDS = ("0.05", "0.1")
CHECKPOINTS = ("step1", "step2", "step4", "main")
SERIES = {"it's one": "setting", "it's another": "other"}
"""Series -> setting. What was measured is the same."""
ONE = "it's one"
COMPONENTS = [f"L{layer}{name}" for layer in range(LAYERS) for name in (*(f"H{head}" for head in range(HEADS)), "F")]
SAMPLED = {
    "observed": range(1),
    "bootstrap": range(1, 16),
    "half": (*range(1, 6), 20, 21, 22),  # the first 20 have every theta
    "bootstrap_half": range(1, 16),
}
MARTS = (
    "fct_turnovers",
    "fct_role_stabilities",
    "fct_component_histories",
    "fct_kind_comparisons",
    "fct_claim_draws",
)
INCREMENTAL = (
    "int_component_contributions",
    "int_component_peaks",
    "int_contribution_ranks",
    "int_resampled_role_sets",
)

Members = frozenset[str]
Sets = dict[tuple[str, str], Members]
"""Role and relation -> components; the relation '' stands for all."""
Draw = tuple[str, int, str]
"""Kind of draw, its number, half."""


@dataclass(frozen=True)
class Measured:
    """What one checkpoint's components do at one tau, by fact: numerators per component, and what they are of."""

    prompt_shares: dict[str, dict[str, Fraction]]
    entity: dict[str, dict[str, int]]
    answers: dict[str, dict[str, int]]
    prompt_counts: dict[str, int]
    entity_counts: dict[str, int]
    answer_counts: dict[str, int]


@dataclass
class Lake:
    path: Path
    connection: duckdb.DuckDBPyConnection
    """The warehouse."""
    relation_of: dict[str, str]
    """By fact."""
    answer_tokens: dict[str, int]
    measured: dict[tuple[str, str], Measured]
    """By checkpoint and tau."""
    prompts: list[Prompt]
    peaks: dict[tuple[str, str], list[tuple[str, int, int, float]]]
    """By checkpoint and tau: component, prompt, position and peak."""
    contributions: dict[str, dict[str, dict[str, Fraction]]]
    """By checkpoint, component and fact: the mean."""
    weights: dict[Draw, tuple[dict[str, int], set[str]]] = field(default_factory=dict)
    """The draws that the warehouse made: weights of facts, and the facts that are present."""
    orders: list[dict[str, float]] = field(default_factory=list)
    sets: dict[tuple[str, str, Draw, Fraction], Sets] = field(default_factory=dict)
    """The warehouse's own role sets, by checkpoint, tau, draw and theta."""

    def rows(self, sql: str) -> list[dict[str, Any]]:
        relation = self.connection.sql(sql)
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    def of_series(self, table: str) -> list[dict[str, Any]]:
        return [row for row in self.rows(f"from {table}") if row["series_id"] == ONE]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with duckdb.connect() as connection:
        made = commit_lake(tmp_path_factory.mktemp("draws"), connection)
        warehouse.read_lake(connection, made.path)
        warehouse.build_from_raw(connection, *MARTS, theta=THETA, replicates=REPLICATES)
        read_draws(made)
        yield made


def read_draws(made: Lake) -> None:
    facts = [row["fact_id"] for row in made.rows("from drawn_facts order by fact_number")]
    for row in made.rows("from drawn_weights"):
        weights = dict(zip(facts, map(int, row["weights"]), strict=True))
        present = {fact for fact, is_present in zip(facts, row["presence"], strict=True) if is_present}
        made.weights[row["resample_kind"], row["resample"], row["half"]] = (weights, present)
    for row in made.rows("from drawn_orders order by permutation"):
        made.orders.append(dict(zip(facts, row["sort_keys"], strict=True)))
    for row in made.rows(
        "select sets.*, members::varchar as bits, checkpoint_name from int_resampled_role_sets as sets "
        "join stg_raw__checkpoints using (extraction_id) where setting_id = 'setting'"
    ):
        draw = (row["resample_kind"], row["resample"], row["half"])
        members = frozenset(component for component, bit in zip(COMPONENTS, row["bits"], strict=True) if bit == "1")
        sets = made.sets.setdefault((row["checkpoint_name"], row["tau_id"], draw, Fraction(row["theta"])), {})
        sets[row["role"], row["relation_id"]] = members


def commit_lake(path: Path, connection: duckdb.DuckDBPyConnection) -> Lake:
    chance = random.Random(1)
    prompts: list[Prompt] = []
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    relation_of, answer_tokens = {}, {}
    for relation, count in FACT_COUNTS.items():
        for number in range(count):
            fact = f"{relation}/{number}'"
            relation_of[fact] = relation
            answer_tokens[fact] = chance.randint(1, 2)
            for template in range(2):
                spans = ["template"] * chance.randint(0, 2) + ["subject"] * chance.randint(1, 2)
                spans += ["answer"] * answer_tokens[fact]
                predicting = {at - 1 for at, span in enumerate(spans) if span == "answer"}
                subject = {at for at, span in enumerate(spans) if span == "subject"}
                tables["prompts"].append(
                    {"prompt_id": len(prompts), "relation_id": relation, "template_id": template, "fact_id": fact,
                     "subject": "s", "object": "o"}
                )  # fmt: skip
                tables["prompt_tokens"] += [
                    {"prompt_id": len(prompts), "position": at, "span_role": span, "token_id": number,
                     "is_answer_predicting": at in predicting}
                    for at, span in enumerate(spans)
                ]  # fmt: skip
                prompts.append(Prompt(relation, fact, set(range(len(spans))), subject, predicting))
    measured, peaks, means = {}, {}, {}
    for index, name in enumerate(CHECKPOINTS):
        attributions: list[dict[str, Any]] = []
        for tau_id in TAU_IDS:
            active = random_activity(chance, COMPONENTS, prompts, attributions, tau_id)
            measured[name, tau_id] = measure(prompts, active)
        attributions = [{**row, "peak": float(np.float32(chance.random() / 2 + 0.1))} for row in attributions]
        for tau_id in TAU_IDS:
            peaks[name, tau_id] = [
                (row["component_id"], row["prompt_id"], row["position"], row["peak"])
                for row in attributions
                if row["tau_id"] == tau_id
            ]
        contributions = [
            {"prompt_id": number, "position": at, "component_id": component, "c_direct": chance.randrange(8) / 2**9}
            for number, prompt in enumerate(prompts)
            for at in prompt.answer_predicting_positions
            for component in COMPONENTS
        ]
        means[name] = mean_contributions(prompts, contributions)
        predictions = [
            {"prompt_id": number, "readout": LAYERS, "rank": chance.choice([0, 50])} for number in range(len(prompts))
        ]
        content = {**tables, "attributions": attributions, "contributions": contributions, "predictions": predictions}
        step = None if name == "main" else 2**index
        for series_id, setting_id in SERIES.items():
            commit(
                path, series_id, name, content, step=step, setting_id=setting_id, tau_ids=list(TAU_IDS),
                taus=[float(tau_id) for tau_id in TAU_IDS], layer_count=LAYERS, head_count=HEADS, kv_head_count=HEADS,
            )  # fmt: skip
    return Lake(path, connection, relation_of, answer_tokens, measured, prompts, peaks, means)


def measure(prompts: list[Prompt], active: Mapping[str, list[set[int]]]) -> Measured:
    shares: dict[str, dict[str, Fraction]] = {component: defaultdict(Fraction) for component in active}
    entity: dict[str, dict[str, int]] = {component: defaultdict(int) for component in active}
    answers: dict[str, dict[str, int]] = {component: defaultdict(int) for component in active}
    prompt_counts, entity_counts, answer_counts = (
        defaultdict[str, int](int),
        defaultdict[str, int](int),
        defaultdict[str, int](int),
    )
    for number, prompt in enumerate(prompts):
        prompt_counts[prompt.fact_id] += 1
        entity_counts[prompt.fact_id] += len(prompt.subject_positions) + len(prompt.answer_predicting_positions)
        answer_counts[prompt.fact_id] += len(prompt.answer_predicting_positions)
        for component, positions in active.items():
            on = positions[number]
            hits = len(on & prompt.answer_predicting_positions)
            shares[component][prompt.fact_id] += Fraction(len(on), len(prompt.target_positions))
            entity[component][prompt.fact_id] += hits + len(on & prompt.subject_positions)
            answers[component][prompt.fact_id] += hits
    return Measured(shares, entity, answers, prompt_counts, entity_counts, answer_counts)


def mean_contributions(prompts: list[Prompt], contributions: list[dict[str, Any]]) -> dict[str, dict[str, Fraction]]:
    values: dict[str, dict[str, list[Fraction]]] = {component: defaultdict(list) for component in COMPONENTS}
    for row in contributions:
        values[row["component_id"]][prompts[row["prompt_id"]].fact_id].append(Fraction(row["c_direct"]))
    return {
        component: {fact: sum(parts) / len(parts) for fact, parts in of_facts.items()}
        for component, of_facts in values.items()
    }


# Roles under draws


def drawn_roles(
    lake: Lake, one: Measured, weights: Mapping[str, int], fact_weights: Iterable[str], theta: Fraction
) -> Sets:
    """The roles by fractions; `fact_weights` are the facts of which unions are made."""

    def above(
        numerators: Mapping[str, Any], denominators: Mapping[str, int], facts: Iterable[str], digits: int = 0
    ) -> bool:
        total = sum(weights[fact] * denominators[fact] for fact in facts)
        rate = Fraction(sum(weights[fact] * numerators[fact] for fact in facts), total) if total else Fraction(0)
        return (round(rate, digits) if digits else rate) > theta

    facts_of = {relation: [f for f, of in lake.relation_of.items() if of == relation] for relation in FACT_COUNTS}
    everything = list(lake.relation_of)
    general = {c for c in COMPONENTS if above(one.prompt_shares[c], one.prompt_counts, everything, 9)}
    entity = {c for c in COMPONENTS if above(one.entity[c], one.entity_counts, everything)} - general
    sets: Sets = {("general", ""): frozenset(general), ("entity", ""): frozenset(entity)}
    others = [component for component in COMPONENTS if component not in general | entity]
    for relation, facts in facts_of.items():
        holders = {c for c in others if above(one.answers[c], one.answer_counts, facts)}
        sets["relation_answer", relation] = frozenset(holders)
        sets["fact_answer", relation] = frozenset(
            component
            for component in set(others) - holders
            if any(
                Fraction(one.answers[component][fact], one.answer_counts[fact]) > theta
                for fact in facts
                if fact in fact_weights
            )
        )
    for role in ("relation_answer", "fact_answer"):
        sets[role, ""] = frozenset().union(*(sets[role, relation] for relation in facts_of))
    return sets


def test_roles_under_draws(lake: Lake) -> None:
    """Of every kind of draw, at every theta that it has: a sample, by fractions, from the weights alone."""
    compared = defaultdict[str, int](int)
    for (checkpoint, tau_id, draw, theta), sets in lake.sets.items():
        kind, number, _ = draw
        if number not in SAMPLED[kind] or (kind != "observed" and tau_id != TAU_IDS[0]):
            continue
        weights, present = lake.weights[draw]
        expected = drawn_roles(lake, lake.measured[checkpoint, tau_id], weights, present, theta)
        if kind == "bootstrap":  # facts are never drawn, and have their union only
            expected = {key: members for key, members in expected.items() if key[0] != "fact_answer" or not key[1]}
        assert sets == expected, (checkpoint, tau_id, draw, theta)
        compared[kind] += 1
    cells = len(CHECKPOINTS) * len(THETAS)
    assert compared == {
        "observed": cells * len(TAU_IDS),
        "bootstrap": 15 * len(CHECKPOINTS),
        "half": 2 * (6 * cells + 2 * len(CHECKPOINTS)),
        "bootstrap_half": 2 * 15 * len(CHECKPOINTS),
    }
    draws = {draw for _, _, draw, _ in lake.sets}
    assert draws == set(lake.weights)
    assert sum(kind == "bootstrap" for kind, _, _ in draws) == REPLICATES
    # The comparison is worth something: roles of every kind change with the draw.
    for role in ROLES:
        seen = {sets[role, ""] for (name, tau, *_), sets in lake.sets.items() if (name, tau) == ("main", TAU_IDS[0])}
        assert len(seen) > 5, role


def test_observed_roles_are_the_memberships(lake: Lake) -> None:
    held = defaultdict[tuple[str, str, str, str], set[str]](set)
    for row in lake.of_series("fct_role_memberships"):
        for relation in {row["relation_id"] or "", ""}:
            held[row["checkpoint_id"].split("/")[1], row["tau_id"], row["role"], relation].add(row["component_id"])
    for (checkpoint, tau_id, draw, theta), sets in lake.sets.items():
        if draw[0] == "observed" and theta == Fraction(THETA):
            for (role, relation), members in sets.items():
                assert members == held.pop((checkpoint, tau_id, role, relation), set())
    assert held == {}


def test_an_empty_half_holds_no_role() -> None:
    """Where a model is asked one fact only, one half of the facts is empty, and nothing is a rate in it."""
    prompts = {"extraction_id": "e", "prompt_id": [0], "relation_id": "r", "fact_id": "f"}
    with duckdb.connect() as connection:
        connection.execute(
            "create table drawn_facts as select 's' fact_set_id, 0 fact_number, 'r' relation_id, 'f' fact_id"
        )
        warehouse.fill(
            connection,
            "int_fact_positions",
            {**{name: prompts[name] for name in ("extraction_id", "relation_id", "fact_id")}, "fact_set_id": "s",
             "fact_number": [0], "prompt_count": 1, "entity_position_count": 2, "answer_position_count": 1},
        )  # fmt: skip
        warehouse.fill(
            connection,
            "stg_draws__weights",
            {"fact_set_id": "s", "resample_kind": "half", "resample": 1, "half": ["A", "B"],
             "weights": [[0.0], [1.0]], "presence": [[0.0], [1.0]]},
        )  # fmt: skip
        warehouse.fill(
            connection,
            "int_component_vectors",
            {"extraction_id": "e", "tau_id": "t", "component_number": [0], "prompt_share_sums": [[1.0]],
             "entity_active_counts": [[2.0]], "answer_active_counts": [[1.0]]},
        )  # fmt: skip
        variables = {"theta": "0.1", "theta_grid": theta_grid("0.1"), "component_limit": 2}
        warehouse.build(connection, "int_resampled_role_sets", **variables)
        rows = connection.execute(
            "select half, role from int_resampled_role_sets where get_bit(members, 0) = 1 and theta = 0.1"
        ).fetchall()
    assert rows == [("B", "general")]


# Statistics of roles under draws


def overlap(left: Members, right: Members) -> float | None:
    return len(left & right) / len(left | right) if left | right else None


def of_kind(members: Iterable[str], kind: str) -> Members:
    return frozenset(component for component in members if kind_of(component) == kind)


def bounds(
    estimate: float | None, drawn: Iterable[float | None], highest: float = 1
) -> tuple[float | None, float | None]:
    values = [value for value in drawn if value is not None]
    if estimate is None or len(values) < 2:
        return None, None
    error = 1.959963984540054 * stdev(values)
    return max(0, estimate - error), min(highest, estimate + error)


def primary_sets(sets: Sets) -> dict[str, Members]:
    return {
        **{role: sets[role, ""] for role in ROLES},
        "fact_answer": sets["fact_answer", ""] - sets["relation_answer", ""],
    }


def bootstrap(lake: Lake, checkpoint: str, tau_id: str) -> list[Sets]:
    draws = [("bootstrap", number, "") for number in range(1, REPLICATES + 1)]
    return [lake.sets[checkpoint, tau_id, draw, Fraction(THETA)] for draw in draws]


def observed(lake: Lake, checkpoint: str, tau_id: str) -> Sets:
    return lake.sets[checkpoint, tau_id, ("observed", 0, ""), Fraction(THETA)]


def turnover(before: Sets, after: Sets, kind: str, role: str) -> float | None:
    old, new = (
        {each: of_kind(members, kind) for each, members in primary_sets(sets).items()} for sets in (before, after)
    )
    if role == "all":
        counted = frozenset().union(*old.values(), *new.values())
        stayed = frozenset().union(*(old[each] & new[each] for each in ROLES))
    else:
        counted, stayed = old[role] | new[role], old[role] & new[role]
    return len(counted - stayed) / len(counted) if counted else None


def test_turnovers(lake: Lake) -> None:
    rows = {
        (row["tau_id"], row["from_checkpoint_id"], row["to_checkpoint_id"], row["component_kind"], row["role"]): row
        for row in lake.of_series("fct_turnovers")
    }
    assert len(rows) == len(TAU_IDS) * 3 * 2 * 5
    for (tau_id, before, after, kind, role), row in rows.items():
        before, after = before.removeprefix(f"{ONE}/"), after.removeprefix(f"{ONE}/")
        assert (before, after) in pairwise(CHECKPOINTS)
        estimate = turnover(observed(lake, before, tau_id), observed(lake, after, tau_id), kind, role)
        drawn = [
            turnover(old, new, kind, role)
            for old, new in zip(bootstrap(lake, before, tau_id), bootstrap(lake, after, tau_id), strict=True)
        ]
        expected = (estimate, *bounds(estimate, drawn))
        assert (row["turnover"], row["turnover_low"], row["turnover_high"]) == approx(expected)
    assert sum(row["turnover_low"] not in (None, row["turnover"]) for row in rows.values()) > 20


def test_stabilities(lake: Lake) -> None:
    """Every column of every row."""
    rows = lake.of_series("fct_role_stabilities")
    assert len(rows) == len(TAU_IDS) * len(CHECKPOINTS) * 2 * (2 + 2 * len(FACT_COUNTS))
    seen = defaultdict[str, int](int)
    for row in rows:
        expected = expected_stability(lake, row)
        assert {name: row[name] for name in expected} == approx(expected), row
        for name, value in expected.items():
            seen[name] += value not in (None, 0, 1)
    assert set(rows[0]) - set(seen) == {
        "series_id", "setting_id", "tau_id", "checkpoint_id", "component_kind", "role", "scope_id", "specific_count",
        "reference_checkpoint_id", "previous_checkpoint_id",
    }  # fmt: skip
    assert min(seen.values()) > 2, seen


def expected_stability(lake: Lake, row: Mapping[str, Any]) -> dict[str, float | None]:
    name, tau_id, kind, role = (
        row["checkpoint_id"].removeprefix(f"{ONE}/"),
        row["tau_id"],
        row["component_kind"],
        row["role"],
    )
    is_global = role in ("general", "entity")
    key = (role, "" if is_global else row["scope_id"])
    at = CHECKPOINTS.index(name)
    others = {"reference": CHECKPOINTS[-1], "previous": CHECKPOINTS[at - 1] if at else None}
    members = of_kind(observed(lake, name, tau_id)[key], kind)
    draws = [] if role == "fact_answer" else [of_kind(sets[key], kind) for sets in bootstrap(lake, name, tau_id)]
    low, high = bounds(len(members), map(len, draws), math.inf)
    expected: dict[str, float | None] = {
        "member_count": len(members), "member_count_low": low, "member_count_high": high,
        "expected_count": expected_count(lake, name, tau_id, kind, key[1]) if role == "relation_answer" else None,
        "rarefied_count": rarefied(lake, name, tau_id, kind, key[1]) if role == "fact_answer" else None,
        "iou_noise_floor": crossed(lake, name, name, tau_id, kind, key),
    }  # fmt: skip
    for beside, other in others.items():
        columns = [
            "",
            "_low",
            "_high",
            "_chance",
            "_corrected",
            "_corrected_low",
            "_corrected_high",
            "_noise_corrected",
        ]
        found: dict[str, float | None] = dict.fromkeys(columns)
        other_members: Members | None = None
        if other is not None:
            other_members = of_kind(observed(lake, other, tau_id)[key], kind)
            other_draws = (
                [] if role == "fact_answer" else [of_kind(s[key], kind) for s in bootstrap(lake, other, tau_id)]
            )
            found[""] = overlap(members, other_members)
            found["_low"], found["_high"] = bounds(found[""], map(overlap, draws, other_draws))
            found["_chance"] = chance_overlap(members, other_members)
            if found["_chance"] is not None and other != name:
                largest = min(len(members), len(other_members)) / max(len(members), len(other_members))
                for bound in ("", "_low", "_high"):
                    value = found[bound]
                    if value is not None and largest - found["_chance"] > 1e-9:
                        found[f"_corrected{bound}"] = (value - found["_chance"]) / (largest - found["_chance"])
            own, theirs = (crossed(lake, each, each, tau_id, kind, key) for each in (name, other))
            both = crossed(lake, name, other, tau_id, kind, key)
            if (
                other != name
                and both is not None
                and own is not None
                and theirs is not None
                and min(own, theirs) >= 0.1
            ):
                found["_noise_corrected"] = both / math.sqrt(own * theirs)
        if beside == "previous":
            del found["_corrected_low"], found["_corrected_high"]
        expected |= {f"iou_{beside}{column}": value for column, value in found.items()}
        expected[f"{beside}_member_count"] = None if other_members is None else len(other_members)
    return expected


def crossed(lake: Lake, one: str, other: str, tau_id: str, kind: str, key: tuple[str, str]) -> float | None:
    """Mean overlap of roles by one half of the facts here with those by the other half there."""
    means = []
    for number in range(1, SPLITS + 1):
        here, there = (
            {
                half: of_kind(lake.sets[name, tau_id, ("half", number, half), Fraction(THETA)][key], kind)
                for half in "AB"
            }
            for name in (one, other)
        )
        values = [overlap(here["A"], there["B"]), overlap(here["B"], there["A"])]
        if known := [value for value in values if value is not None]:
            means.append(fmean(known))
    return fmean(means) if means else None


def chance_overlap(one: Members, other: Members) -> float | None:
    """Mean overlap over every set of as many heads per layer, or of as many FFNs."""
    if not one | other:
        return None
    layers = defaultdict[str, list[int]](lambda: [0, 0])
    for which, members in enumerate((one, other)):
        for component in members:
            layers[component[:2] if "H" in component else "F"][which] += 1
    return enumerated_overlap(tuple(sorted((left, right) for left, right in layers.values())))


@cache
def enumerated_overlap(sizes: tuple[tuple[int, int], ...]) -> float:
    fixed = {(layer, place) for layer, (count, _) in enumerate(sizes) for place in range(count)}
    choices = [
        [{(layer, place) for place in drawn} for drawn in combinations(range(4), count)]
        for layer, (_, count) in enumerate(sizes)
    ]
    overlaps = [
        Fraction(len(fixed & drawn), len(fixed | drawn))
        for drawn in (set().union(*parts) for parts in product(*choices))
    ]
    return float(sum(overlaps) / len(overlaps))


def expected_count(lake: Lake, name: str, tau_id: str, kind: str, relation: str) -> float:
    """Mean number of holders where facts with equally many answer tokens swap their relations."""
    one, sets = lake.measured[name, tau_id], observed(lake, name, tau_id)
    free = [c for c in COMPONENTS if kind_of(c) == kind and c not in sets["general", ""] | sets["entity", ""]]
    counts = []
    for labelled in permuted_relations(lake):
        facts = [fact for fact, label in labelled.items() if label == relation]
        total = sum(one.answer_counts[fact] for fact in facts)
        counts.append(sum(Fraction(sum(one.answers[c][fact] for fact in facts), total) > Fraction(THETA) for c in free))
    return fmean(counts)


def permuted_relations(lake: Lake) -> list[dict[str, str]]:
    if id(lake) not in PERMUTED:
        facts = sorted(lake.relation_of, key=lambda fact: (lake.relation_of[fact], fact))
        PERMUTED[id(lake)] = []
        for keys in lake.orders:
            labels = {}
            for tokens in (1, 2):
                swapping = [fact for fact in facts if lake.answer_tokens[fact] == tokens]
                ordered = sorted(swapping, key=keys.__getitem__)
                labels |= {fact: lake.relation_of[place] for fact, place in zip(ordered, swapping, strict=True)}
            PERMUTED[id(lake)].append(labels)
    return PERMUTED[id(lake)]


PERMUTED: dict[int, list[dict[str, str]]] = {}


def rarefied(lake: Lake, name: str, tau_id: str, kind: str, relation: str) -> float | None:
    """Mean number of components with the role for any of 12 of the relation's facts."""
    facts = [fact for fact, of in lake.relation_of.items() if of == relation]
    if len(facts) < 12:
        return None
    one, sets = lake.measured[name, tau_id], observed(lake, name, tau_id)
    held = {
        component: {f for f in facts if Fraction(one.answers[component][f], one.answer_counts[f]) > Fraction(THETA)}
        for component in of_kind(sets["fact_answer", relation], kind)
    }
    counts = [sum(bool(held[c] & set(drawn)) for c in held) for drawn in combinations(facts, 12)]
    return fmean(counts) if held else None


def test_confidence_and_robustness(lake: Lake) -> None:
    seen = set()
    for row in lake.of_series("fct_component_histories"):
        name, component = row["checkpoint_id"].removeprefix(f"{ONE}/"), row["component_id"]
        draws = [primary_role(sets, component) for sets in bootstrap(lake, name, row["tau_id"])]
        cells = [
            primary_role(lake.sets[name, tau_id, ("observed", 0, ""), theta], component)
            for tau_id in TAU_IDS
            for theta in THETAS
        ]
        confidence = draws.count(row["primary_role"]) / REPLICATES
        robustness = "noise" if confidence < 0.5 else "core" if {row["primary_role"]} == set(cells) else "contingent"
        assert (row["confidence"], row["robustness"]) == (pytest.approx(confidence), robustness)
        seen.add(robustness)
    assert seen == {"noise", "core", "contingent"}


def primary_role(sets: Sets, component: str) -> str:
    return next((role for role in ROLES if component in sets[role, ""]), "inactive")


def test_random_sets_have_a_corrected_overlap_of_zero() -> None:
    """Sets of the same sizes in the same layers, drawn anew, by the warehouse's own SQL."""
    chance = np.random.default_rng(0)
    count, layers, heads = 3000, 3, 6
    sizes = [(2, 4), (0, 3), (5, 1)]
    bits = ["".join("01"[bit] for bit in random_set(chance, [pair[which] for pair in sizes], heads))
            for _ in range(count) for which in (0, 1)]  # fmt: skip
    number = np.arange(2 * count)
    with duckdb.connect() as connection:
        warehouse.fill(
            connection,
            "int_measured_checkpoints",
            {"series_id": number // 2, "setting_id": "x", "tau_id": "t", "checkpoint_id": number,
             "extraction_id": number, "reference_checkpoint_id": number // 2 * 2 + 1,
             "previous_checkpoint_id": [each - 1 if each % 2 else None for each in range(2 * count)]},
        )  # fmt: skip
        warehouse.fill(
            connection,
            "sets",
            {"extraction_id": number, "tau_id": "t", "resample_kind": "observed", "theta": 0.1, "role": "general",
             "relation_id": "", "bits": bits},
        )  # fmt: skip
        connection.execute("create table int_resampled_role_sets as select *, bits::bit as members from sets")
        connection.execute(
            f"""create table int_component_masks as
            select series_id, 'head' as component_kind, layer,
                bitstring_agg(layer * {heads} + head, 0, {layers * heads - 1}) as members
            from (select distinct series_id from int_measured_checkpoints), range({layers}) as l (layer),
                range({heads}) as h (head) group by all"""
        )
        warehouse.build(connection, "int_chance_overlaps", theta="0.1")
        corrected = connection.execute(
            warehouse.render("""
            select {{ chance_corrected(
                'bit_count(one.members & other.members) / bit_count(one.members | other.members)',
                'iou_chance', 'iou_max'
            ) }}
            from int_chance_overlaps join int_resampled_role_sets as one on one.extraction_id = checkpoint_id
            join int_resampled_role_sets as other on other.extraction_id = checkpoint_id - 1
            where beside = 'previous'""")
        ).fetchnumpy()
    (values,) = corrected.values()
    assert len(values) == count
    assert values.std() > 0.05
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(count)


def random_set(chance: np.random.Generator, sizes: list[int], heads: int) -> list[int]:
    return [int(place < size) for size in sizes for place in chance.permutation(heads)]


def approx(expected: Any) -> Any:
    return pytest.approx(expected, abs=3e-8)


# Heads beside FFNs


def test_kind_comparisons(lake: Lake) -> None:
    """At a common τ, at matched rates and without a threshold: every column."""
    layer_weights = [row["weights"] for row in lake.rows("from drawn_layers order by resample")]
    assert len(layer_weights) == REPLICATES + 1 and set(layer_weights[0]) == {1}
    assert all(sum(weights) == LAYERS for weights in layer_weights)
    thresholds = {tau_id: matched_threshold(lake, tau_id) for tau_id in TAU_IDS}
    assert any(lower != float(tau_id) for tau_id, lower in thresholds.items())
    values = {
        comparison: {
            (tau_id, name): [of_draw(number) for number in range(REPLICATES + 1)]
            for tau_id in TAU_IDS
            for name in CHECKPOINTS
            for of_draw in [drawn_sets(lake, name, tau_id, None if comparison == "common_tau" else thresholds[tau_id])]
        }
        for comparison in ("common_tau", "matched_rate")
    }
    ranks = {name: [contribution_ranks(lake, name, number) for number in range(REPLICATES + 1)] for name in CHECKPOINTS}
    rows = lake.of_series("fct_kind_comparisons")
    assert len(rows) == len(TAU_IDS) * 3 * 3
    for row in rows:
        before, after = (row[f"{end}_checkpoint_id"].removeprefix(f"{ONE}/") for end in ("from", "to"))
        tau_id, comparison = row["tau_id"], row["comparison"]
        drawn: list[tuple[float | None, float | None, float | None]] = []
        for number, weights in enumerate(layer_weights):
            if comparison == "threshold_free":
                head, ffn = (
                    rank_correlation(ranks[before][number], ranks[after][number], weights, kind) for kind in KINDS
                )
                sign = -1
            else:
                sets = values[comparison]
                heads, ffns = values["common_tau"], sets
                head, ffn = (
                    layer_turnover(own[tau_id, before][number], own[tau_id, after][number], weights, kind)
                    for own, kind in ((heads, "head"), (ffns, "ffn"))
                )
                sign = 1
            drawn.append((head, ffn, None if head is None or ffn is None else sign * (head - ffn)))
        differences = [difference for _, _, difference in drawn[1:] if difference is not None]
        error = 1.959963984540054 * stdev(differences)
        expected = dict(zip(("head_value", "ffn_value", "difference"), drawn[0], strict=True))
        if drawn[0][2] is not None:
            expected |= {"difference_low": max(-2, drawn[0][2] - error), "difference_high": min(2, drawn[0][2] + error)}
        if comparison != "threshold_free":
            tau_ffn = float(tau_id) if comparison == "common_tau" else thresholds[tau_id]
            expected |= {
                "tau_head": float(tau_id),
                "tau_ffn": tau_ffn,
                "head_rate": pooled_rate(lake, after, tau_id, "head"),
            }
            lowest = tau_ffn if tau_ffn != float(tau_id) else 0
            expected["ffn_rate"] = pooled_rate(lake, after, tau_id, "ffn", lowest)
        assert {name: row[name] for name in expected} == approx(expected), row


KINDS = ("head", "ffn")


def pooled_rate(lake: Lake, name: str, tau_id: str, kind: str, lowest: float = 0) -> float:
    active = sum(kind_of(component) == kind and peak > lowest for component, _, _, peak in lake.peaks[name, tau_id])
    components = sum(kind_of(component) == kind for component in COMPONENTS)
    return active / (components * sum(len(prompt.target_positions) for prompt in lake.prompts))


def matched_threshold(lake: Lake, tau_id: str) -> float:
    """The smallest peak above which FFNs are, at the last checkpoint, no more often active than heads."""
    heads = pooled_rate(lake, CHECKPOINTS[-1], tau_id, "head")
    if pooled_rate(lake, CHECKPOINTS[-1], tau_id, "ffn") <= heads:
        return float(tau_id)
    peaks = sorted(peak for component, _, _, peak in lake.peaks[CHECKPOINTS[-1], tau_id] if kind_of(component) == "ffn")
    return next(peak for peak in peaks if pooled_rate(lake, CHECKPOINTS[-1], tau_id, "ffn", peak) <= heads)


def drawn_sets(lake: Lake, name: str, tau_id: str, lowest: float | None) -> Callable[[int], Sets]:
    """The sets of a draw; the observed facts are draw 0. With `lowest`, of what has larger peaks."""
    matched = None
    if lowest is not None and lowest != float(tau_id):
        active: dict[str, list[set[int]]] = {component: [set() for _ in lake.prompts] for component in COMPONENTS}
        for component, prompt, position, peak in lake.peaks[name, tau_id]:
            if peak > lowest:
                active[component][prompt].add(position)
        matched = measure(lake.prompts, active)

    def of_draw(number: int) -> Sets:
        draw = ("bootstrap", number, "") if number else ("observed", 0, "")
        if matched is None:
            return lake.sets[name, tau_id, draw, Fraction(THETA)]
        return drawn_roles(lake, matched, *lake.weights[draw], Fraction(THETA))

    return of_draw


def layer_turnover(before: Sets, after: Sets, weights: list[float], kind: str) -> float | None:
    old, new = primary_sets(before), primary_sets(after)
    counted = of_kind(frozenset().union(*old.values(), *new.values()), kind)
    changed = counted - frozenset().union(*(old[role] & new[role] for role in ROLES))
    total = sum(weights[int(component[1])] for component in counted)
    return sum(weights[int(component[1])] for component in changed) / total if total else None


def contribution_ranks(lake: Lake, name: str, number: int) -> dict[str, float]:
    """Ranks within the kind of the components' mean contributions; equal ones share their mean rank."""
    weights, _ = lake.weights[("bootstrap", number, "") if number else ("observed", 0, "")]
    ranks = {}
    for kind in KINDS:
        means = {
            component: sum(weights[fact] * value for fact, value in lake.contributions[name][component].items())
            for component in COMPONENTS
            if kind_of(component) == kind
        }
        for component, mean in means.items():
            ranks[component] = (
                sum(other < mean for other in means.values()) + sum(o == mean for o in means.values()) / 2
            )
    return ranks


def rank_correlation(
    before: dict[str, float], after: dict[str, float], weights: list[float], kind: str
) -> float | None:
    components = [component for component in COMPONENTS if kind_of(component) == kind]
    of_layer = [weights[int(component[1])] for component in components]
    pair = np.array([[ranks[component] for component in components] for ranks in (before, after)])
    covariance = np.cov(pair, aweights=of_layer, ddof=0)
    if covariance[0, 0] <= 1e-9 or covariance[1, 1] <= 1e-9:
        return None
    return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))


# Draws


def draws_of(sizes: Mapping[str, int], seed: int = 0, replicates: int = 300) -> dict[Draw, tuple[Any, Any]]:
    return {
        (one.resample_kind, one.resample, one.half): (one.weights, one.presence)
        for one in draw_resamples(sizes, replicates=replicates, seed=seed)
    }


def test_draws_are_what_they_say() -> None:
    sizes = {"all": 5, "it's": 8, "one": 1}
    draws = draws_of(sizes)
    ends = np.cumsum([0, *sizes.values()])
    assert sum(kind == "bootstrap_half" for kind, *_ in draws) == 2 * BOOTSTRAP_SPLITS
    for (kind, number, half), (weights, presence) in draws.items():
        per_relation = [weights[start:end] for start, end in pairwise(ends)]
        assert (weights >= 0).all() and (weights == weights.round()).all()
        if kind in ("observed", "bootstrap"):
            assert [part.sum() for part in per_relation] == list(sizes.values())
            assert (presence == 1).all()
        if kind == "observed":
            assert (weights == 1).all()
        if half == "A":
            other_weights, other_presence = draws[kind, number, "B"]
            assert (presence + other_presence == 1).all()
            assert (weights[presence == 0] == 0).all()
            whole = draws["bootstrap", number, ""][0] if kind == "bootstrap_half" else 1
            assert (weights + other_weights == whole).all()
            counts = [presence[start:end].sum() for start, end in pairwise(ends)]
            assert counts[0] in (2, 3) and counts[1] == 4 and counts[2] in (0, 1)
    drawn = np.array([weights for (kind, *_), (weights, _) in draws.items() if kind == "bootstrap"])
    for start, end in pairwise(ends):
        size = end - start  # weights are binomial
        assert abs(drawn[:, start:end].mean() - 1) < 1e-9
        assert drawn[:, start:end].var(axis=0) == pytest.approx(1 - 1 / size, abs=0.35)
    first = np.array([presence for (kind, _, half), (_, presence) in draws.items() if (kind, half) == ("half", "A")])
    assert first.mean(axis=0) == pytest.approx(0.5, abs=0.25)
    orders = draw_orders(sizes, seed=0)
    assert orders.shape == (PERMUTATIONS, 14)
    assert len(np.unique(orders)) == orders.size


def test_draws_depend_on_the_seed_and_the_relation_only() -> None:
    both, alone = draws_of({"all": 5, "it's": 8}), draws_of({"it's": 8})
    assert all((both[draw][part][5:] == alone[draw][part]).all() for draw in both for part in (0, 1))
    assert (draw_orders({"all": 5, "it's": 8}, seed=0)[:, 5:] == draw_orders({"it's": 8}, seed=0)).all()
    for other in (draws_of({"it's": 8}, seed=1), draws_of({"its": 8})):
        for kind in ("bootstrap", "half", "bootstrap_half"):
            same = [np.array_equal(alone[draw][0], other[draw][0]) for draw in alone if draw[0] == kind]
            assert sum(same) < len(same) / 10
    assert not (draw_orders({"it's": 8}, seed=1) == draw_orders({"it's": 8}, seed=0)).any()
    more = draws_of({"it's": 8}, replicates=400)
    assert all((more[draw][0] == alone[draw][0]).all() for draw in alone if draw[0] != "bootstrap")


def test_what_was_measured_alike_has_the_same_statistics(lake: Lake) -> None:
    """Another series, in another setting, meets the same draws."""
    for table in MARTS:
        rows = lake.rows(f"select * exclude (setting_id) from {table}")
        one, other = (
            sorted(
                str({name: str(value).replace(series_id, "") for name, value in row.items()})
                for row in rows
                if row["series_id"] == series_id
            )
            for series_id in SERIES
        )
        assert one == other
        assert one


def test_another_seed_gives_other_intervals(lake: Lake) -> None:
    with duckdb.connect() as connection:
        warehouse.read_lake(connection, lake.path)
        warehouse.build_from_raw(
            connection, "fct_turnovers", theta=THETA, replicates=REPLICATES, seed=1, kinds=("observed", "bootstrap")
        )
        other = connection.execute("from fct_turnovers order by all").fetchall()
    rows = lake.connection.execute("from fct_turnovers order by all").fetchall()
    assert [row[:-2] for row in other] == [row[:-2] for row in rows]
    assert sum(row != changed for row, changed in zip(rows, other, strict=True)) > 20


@pytest.mark.slow
def test_builds_in_steps(lake: Lake) -> None:
    """With the last checkpoint as a second step, and after a build that left things out, the marts are the same."""
    hidden = commit_path(lake.path, ONE, "main", SERIES[ONE])
    hidden.rename(hidden.with_suffix(".later"))
    for step in range(3):
        if step == 1:
            hidden.with_suffix(".later").rename(hidden)
        if step == 2:
            with duckdb.connect(str(lake.path / "build" / "warehouse.duckdb")) as connection:
                for number, model in enumerate(INCREMENTAL):
                    connection.execute(
                        f"delete from {model} where extraction_id = (select distinct extraction_id from {model} "
                        f"order by extraction_id limit 1 offset {number % len(CHECKPOINTS)})"
                    )
        result = build_warehouse(lake.path, theta=THETA, complete_series=[], replicates=REPLICATES)
        assert result.is_full_refresh == (step == 0)
        built = snapshot(result.database)
        same = {name: built[name] == lake.connection.execute(f"from {name} order by all").fetchall() for name in MARTS}
        assert set(same.values()) == {step > 0}, (step, same)


# The simulation, short


def test_simulated_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals hold a statistic's mean over as many facts. Its limit they miss: noise at θ looks like turnover."""
    monkeypatch.setattr(warehouse, "OUT", tmp_path)
    rows = {(row["statistic"], row["role"]): row for row in simulated_draws.main(series=8, facts=(12,), replicates=40)}
    assert len(rows) == 8
    for row in rows.values():
        assert row["covers mean"] > 0.7
        assert 0.5 < row["half width"] / (1.96 * row["deviation"]) < 4
    for role in ("entity", "relation_answer", "all"):
        assert rows["turnover", role]["mean"] > rows["turnover", role]["limit"] + 0.05
    noise = {row["role"]: row for row in json.loads((tmp_path / "noise.json").read_text())}
    assert noise["entity"]["overlap"] < 0.85 and noise["entity"]["noise-corrected"] == pytest.approx(1, abs=0.15)
    (planted,) = json.loads((tmp_path / "planted.json").read_text())
    assert planted["significant: true"] > 0.85 > planted["role changed: true"]
    assert planted["significant: found"] > 0.5
