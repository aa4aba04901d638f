"""A lake of which roles are made under draws over facts, and these roles a second time, in plain Python."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from simulations import warehouse
from tests.warehouse.random_lake import random_activity
from tests.warehouse.raw_lake import commit
from tests.warehouse.roles_twin import ROLES, Prompt, kind_of
from timecourse.build import theta_grid

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
MARTS = (
    "fct_turnovers",
    "fct_role_stabilities",
    "fct_component_histories",
    "fct_kind_comparisons",
    "fct_claim_draws",
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
class DrawnLake:
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


def build_drawn_lake(path: Path, connection: duckdb.DuckDBPyConnection) -> DrawnLake:
    """Commit the lake, build its marts, and read the draws that they are made of."""
    made = commit_lake(path, connection)
    warehouse.read_lake(connection, made.path)
    warehouse.build_from_raw(connection, *MARTS, theta=THETA, replicates=REPLICATES)
    read_draws(made)
    return made


def read_draws(made: DrawnLake) -> None:
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


def commit_lake(path: Path, connection: duckdb.DuckDBPyConnection) -> DrawnLake:
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
    return DrawnLake(path, connection, relation_of, answer_tokens, measured, prompts, peaks, means)


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
    lake: DrawnLake, one: Measured, weights: Mapping[str, int], fact_weights: Iterable[str], theta: Fraction
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


def of_kind(members: Iterable[str], kind: str) -> Members:
    return frozenset(component for component in members if kind_of(component) == kind)


def primary_sets(sets: Sets) -> dict[str, Members]:
    return {
        **{role: sets[role, ""] for role in ROLES},
        "fact_answer": sets["fact_answer", ""] - sets["relation_answer", ""],
    }


def approx(expected: Any) -> Any:
    return pytest.approx(expected, abs=3e-8)
