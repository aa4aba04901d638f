"""Are the p-values of silenced roles uniform where roles mean nothing, do the intervals of the excess hold, and how
often is claim 6 supported where it is true, and where it is not?

p: every component of a model of 8 layers and 8 heads harms every fact by an amount of its own; a set harms a fact by
log(1 + the sum of its members' amounts). Which components are in a role's set has nothing to do with these amounts, or
its members' are three times as large. The two halves' sets share most of their members, as halves do. Random sets are
drawn as `timecourse ablate` draws them, and disjoint from the role's sets, each for itself.

Claim 6: one checkpoint of a series, whose relations' sets harm their own relation, others and the template by amounts
that differ from relation to relation, from fact to fact, and between random sets.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from simulations.lakes import Array, Checkpoint, Facts, Series, fill_raw
from simulations.warehouse import build, build_from_raw, fill, report
from timecourse.extract.ablations.sets import image, permutations
from timecourse.extract.raw import ABLATION_TABLES
from timecourse.resampling import draw_resamples

LAYERS, HEADS = 8, 8
COMPONENTS = LAYERS * (HEADS + 1)
RELATIONS, FACTS = 4, 16
RANDOM_SETS = 20
KEPT = 0.75
"""Probability that a member of one half's set is in the other's as well."""
CHANCE_SETS, CHANCE_FACTS = 200, 1000
"""Random sets and facts by which the true excess is measured."""

Sets = dict[tuple[int, str], tuple[int, ...]]
"""Relation (-1: the whole model) and half -> components."""
Drawn = Sequence[Sets]


@dataclass(frozen=True)
class Scenario:
    """How many of a layer's 8 heads are in a set on average, and how many times as much its members harm."""

    heads: float
    harm: float = 1.0


SCENARIOS = {
    "nothing, 1 of 8 heads": Scenario(1),
    "nothing, 2 of 8 heads": Scenario(2),
    "nothing, 3 of 8 heads": Scenario(3),
    "needed, 1 of 8 heads": Scenario(1, 3.0),
    "needed, 3 of 8 heads": Scenario(3, 3.0),
}


@dataclass(frozen=True)
class Harm:
    """Mean change of an answer's log-probability in nats: by a relation's set to its own facts and to the others', and
    by random sets to its own. The true statistics of claim 6 are their differences."""

    own: float
    other: float
    beside: float


CLAIM_SCENARIOS = {
    "specific": Harm(-1.0, -0.3, -0.3),
    "barely specific": Harm(-0.5, -0.2, -0.2),
    "exactly δ": Harm(-0.4, -0.3, -0.3),
    "blunt: all relations alike": Harm(-0.5, -0.5, -0.3),
    "no more than random": Harm(-0.5, -0.1, -0.5),
    "nothing": Harm(0.0, 0.0, 0.0),
}
CLAIM_RELATIONS, CLAIM_FACTS = 8, 12
BETWEEN_RELATIONS, BETWEEN_FACTS, BETWEEN_SETS = 0.1, 0.8, 0.2
"""Deviations of these changes; the relations' own have no mean, because the claim is about these relations."""


def main(
    draws: int = 200,
    scenarios: tuple[str, ...] = tuple(SCENARIOS),
    claim_draws: int = 40,
    claim_scenarios: tuple[str, ...] = tuple(CLAIM_SCENARIOS),
    replicates: int = 200,
) -> list[dict[str, Any]]:
    """Simulate, write `out/ablations.*` and `out/ablation_claims.*`, and return the rows of the first."""
    rows = [row for name in scenarios for row in _p_values(name, SCENARIOS[name], draws)]
    report(
        "ablations",
        rows,
        "fct_role_effects, scope `all`: share of p ≤ 0.05 (uniform: 1/21 = 0.048) and ≤ 0.5 (10/21 = 0.476), and "
        f"coverage of the 95 % interval of the excess. {draws} draws of {RELATIONS * FACTS} facts, {RANDOM_SETS} random"
        " sets.",
    )
    claim_rows = [row for name in claim_scenarios for row in _verdicts(name, claim_draws, replicates)]
    report(
        "ablation_claims",
        claim_rows,
        f"Claim 6: verdicts of {claim_draws} series per scenario (shares), and coverage of the 99 % interval. "
        f"{CLAIM_RELATIONS} relations × {CLAIM_FACTS} facts.",
    )
    return rows


# Random sets


def as_drawn(sets: Sets, count: int, seed: int) -> Drawn:
    """As `timecourse ablate` draws them: the images of all sets under one permutation for each number."""
    return [_images(sets, goes_to) for goes_to in permutations(LAYERS, HEADS, count, seed)]


def disjoint(sets: Sets, count: int, seed: int) -> Drawn:
    """Beside each set for itself, without its members where a layer has enough others."""
    chance = np.random.default_rng(seed)
    return [{key: _beside(chance, own) for key, own in sets.items()} for _ in range(count)]


def _beside(chance: np.random.Generator, own: Sequence[int]) -> tuple[int, ...]:
    members = np.isin(np.arange(COMPONENTS), own).reshape(LAYERS, HEADS + 1)
    drawn = np.zeros_like(members)
    for mine, taken in [*zip(members[:, :HEADS], drawn[:, :HEADS], strict=True), (members[:, HEADS], drawn[:, HEADS])]:
        pool = np.flatnonzero(~mine) if 2 * mine.sum() <= len(mine) else np.arange(len(mine))
        taken[chance.choice(pool, mine.sum(), replace=False)] = True
    return tuple(np.flatnonzero(drawn.ravel()).tolist())


def _images(sets: Sets, goes_to: Sequence[int]) -> Sets:
    return {key: image(own, goes_to) for key, own in sets.items()}


DESIGNS: dict[str, Callable[[Sets, int, int], Drawn]] = {"as drawn": as_drawn, "disjoint": disjoint}


# Uniform p


def _p_values(name: str, scenario: Scenario, draws: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for design, draw_sets in DESIGNS.items():
        chance = np.random.default_rng([int(10 * scenario.heads), int(10 * scenario.harm)])
        sets: dict[str, list[Any]] = {name: [] for name in _SETS}
        facts: dict[str, list[Array]] = {name: [] for name in ("extraction_id", "set_id", "fact_number", "effect")}
        truths = {}
        for draw in range(draws):
            own = _role_sets(chance, scenario)
            harm = _harms(chance, own, scenario)
            drawn = draw_sets(own, RANDOM_SETS, draw)
            _write(sets, facts, draw, own, drawn, harm[:RELATIONS, :FACTS])
            whole = {key: members for key, members in own.items() if key[0] == -1}
            beside = draw_sets(whole, CHANCE_SETS, 10_000 + draw)
            truths[draw] = _excess(whole, beside, harm[:, FACTS:].reshape(-1, COMPONENTS))
        found += _rows(name, design, sets, facts, truths)
    return found


_SETS = ("extraction_id", "set_id", "set_kind", "role", "relation_id", "half", "random_index", "member_count")


def _role_sets(chance: np.random.Generator, scenario: Scenario) -> Sets:
    """A set of the whole model and one per relation, each by two halves."""
    found: Sets = {}
    for relation in range(-1, RELATIONS):
        chosen = chance.random((LAYERS, HEADS + 1)) < scenario.heads / HEADS
        chosen[0, 0] = True  # no set is empty
        halves = []
        for _ in "AB":
            kept = chosen & (chance.random(chosen.shape) < KEPT)
            # what is not kept is replaced by as many others of the layer
            for layer, lost in enumerate((chosen & ~kept)[:, :HEADS].sum(axis=1)):
                others = np.flatnonzero(~chosen[layer, :HEADS])
                kept[layer, chance.choice(others, min(lost, len(others)), replace=False)] = True
            halves.append(kept)
        for half, kept in zip("AB", halves, strict=True):
            found[relation, half] = tuple(np.flatnonzero(kept.ravel()).tolist()) or (0,)
    # names of components mean nothing
    return _images(found, permutations(LAYERS, HEADS, 1, int(chance.integers(2**32)))[0])


def _harms(chance: np.random.Generator, own: Sets, scenario: Scenario) -> Array:
    """[relation, fact, component]: how much each fact needs a component; the last facts are those of the truth."""
    layer = np.repeat(np.exp(chance.normal(0, 0.5, LAYERS)), HEADS + 1)
    level = layer * chance.gamma(0.5, 1, COMPONENTS)
    level[sorted({one for key, members in own.items() if key[0] == -1 for one in members})] *= scenario.harm
    shape = (RELATIONS, FACTS + CHANCE_FACTS // RELATIONS, COMPONENTS)
    harm = level * np.exp(chance.normal(0, 0.7, shape))
    if scenario.harm != 1:
        for relation in range(RELATIONS):
            members = sorted({one for key, members in own.items() if key[0] == relation for one in members})
            harm[relation][:, members] *= scenario.harm
    return harm


def _effects(harm: Array, members: Sequence[int]) -> Array:
    effects: Array = -np.log1p(harm[..., list(members)].sum(axis=-1))
    return effects


def _write(
    sets: dict[str, list[Any]], facts: dict[str, list[Array]], draw: int, own: Sets, drawn: Drawn, harm: Array
) -> None:
    """Add the rows of one ablation: half A are the even facts, which the sets of half B are scored on."""
    number = 0
    for index, chosen in [(None, own), *enumerate(drawn)]:
        for (relation, half), members in chosen.items():
            relations = range(RELATIONS) if relation == -1 else [relation]
            for scored in relations:
                places = np.arange(half == "A", FACTS, 2)
                facts["effect"].append(_effects(harm[scored, places], members))
                facts["fact_number"].append(scored * FACTS + places)
                facts["extraction_id"].append(np.full(len(places), draw))
                facts["set_id"].append(np.full(len(places), number))
            role = "general" if relation == -1 else "relation_answer"
            row = (draw, number, "role" if index is None else "random", role, "" if relation == -1 else str(relation),
                   half, index, len(members))  # fmt: skip
            for name, value in zip(_SETS, row, strict=True):
                sets[name].append(value)
            number += 1


def _excess(own: Sets, beside: Drawn, harm: Array) -> float:
    """The true excess of the whole model's set: over many facts and random sets."""
    effect = np.mean([_effects(harm, own[-1, half]).mean() for half in "AB"])
    random = [_effects(harm[::4], sets[-1, half]).mean() for sets in beside for half in "AB" if (-1, half) in sets]
    return float(effect - np.mean(random))


def _rows(
    name: str,
    design: str,
    sets: Mapping[str, list[Any]],
    facts: Mapping[str, list[Array]],
    truths: Mapping[int, float],
) -> list[dict[str, Any]]:
    columns = {column: np.concatenate(values) for column, values in facts.items()}
    keys = {"tau_id": "t", "theta": 0.1}
    with duckdb.connect() as connection:
        connection.execute("set enable_progress_bar = false")
        fill(connection, "int_ablation_sets", {**sets, **keys})
        relation = (columns["fact_number"] // FACTS).astype(str)
        fill(
            connection,
            "int_ablated_facts",
            {**columns, "relation_id": relation.tolist(), "method": "mean", "template_effect": 0.0, "rank_change": 0},
        )
        extractions = np.arange(len(truths))
        fill(
            connection,
            "int_measured_checkpoints",
            {"extraction_id": extractions, "checkpoint_id": extractions, "series_id": "s", "setting_id": "x",
             "tau_id": "t"},
        )  # fmt: skip
        build(connection, "int_fact_effects", "fct_role_effects")
        found = connection.execute(
            """select role, checkpoint_id, p_value, excess_low, excess_high from fct_role_effects
            where scope_kind = 'all' order by all"""
        ).fetchall()
    rows = []
    for role in ("general", "relation_answer"):
        own = [row for row in found if row[0] == role and row[2] is not None]
        p = np.array([row[2] for row in own])
        is_covered = [
            low <= truths[draw] <= high for _, draw, _, low, high in own if role == "general" and low is not None
        ]
        rows.append(
            {
                "scenario": name,
                "random sets": design,
                "role": role,
                "with p": len(own) / len(truths),
                "p ≤ 0.05": float(np.mean(p <= 0.05)),
                "p ≤ 0.5": float(np.mean(p <= 0.5)),
                "±": float(np.sqrt(0.05 * 0.95 / len(p))),
                "excess covered": float(np.mean(is_covered)) if is_covered else None,
            }
        )
    return rows


# Claim 6


def _verdicts(name: str, draws: int, replicates: int) -> list[dict[str, Any]]:
    found: list[tuple[Any, ...]] = []
    harm = CLAIM_SCENARIOS[name]
    truths = {
        "own_less_other_relation_damage": harm.other - harm.own,
        "role_less_random_set_damage": harm.beside - harm.own,
    }
    for start in range(0, draws, 10):
        with duckdb.connect() as connection:
            connection.execute("set enable_progress_bar = false")
            _fill_claim(connection, name, range(start, min(start + 10, draws)))
            build_from_raw(connection, "fct_claims", replicates=replicates)
            found += connection.execute(
                """select statistic, series_id, statistic_verdict, verdict, estimate, estimate_low, estimate_high
                from fct_claims where claim_number = 6 order by all"""
            ).fetchall()
    rows = []
    for statistic, truth in truths.items():
        own = [row for row in found if row[0] == statistic]
        verdicts, claim_verdicts = Counter(row[2] for row in own), Counter(row[3] for row in own)
        rows.append(
            {
                "scenario": name,
                "statistic": statistic,
                "truth": truth,
                "supported": verdicts["supported"] / draws,
                "contradicted": verdicts["contradicted"] / draws,
                "claim supported": claim_verdicts["supported"] / draws,
                "claim contradicted": claim_verdicts["contradicted"] / draws,
                "covered": float(np.mean([row[5] <= truth <= row[6] for row in own])),
                "width": float(np.mean([row[6] - row[5] for row in own])),
            }
        )
    return rows


def _fill_claim(connection: duckdb.DuckDBPyConnection, name: str, numbers: Sequence[int]) -> None:
    """Make the raw tables of some series."""
    harm = CLAIM_SCENARIOS[name]
    facts = Facts({f"relation {n}": "location" for n in range(CLAIM_RELATIONS)}, CLAIM_FACTS)
    (first_half,) = [
        draw.presence > 0
        for draw in draw_resamples(dict.fromkeys(facts.groups, CLAIM_FACTS), replicates=0, seed=0)
        if (draw.resample_kind, draw.resample, draw.half) == ("half", 1, "A")
    ]
    series = []
    sets: dict[str, list[Any]] = {field: [] for field in ABLATION_TABLES["ablation_sets"].names}
    changes: dict[str, list[Array]] = {field: [] for field in ("extraction_id", "set_id", "prompt_id", "change")}
    for number in numbers:
        chance = np.random.default_rng([*name.encode(), number])
        series_id = f"{name} {number}"
        peaks = np.where(chance.random((2 * 3, len(facts.relations), 10)) < 0.2, 0.2, 0)
        series.append(Series(series_id, 2, 2, facts, [Checkpoint(1000, peaks)]))
        own = harm.own + _centred(chance.normal(0, BETWEEN_RELATIONS, CLAIM_RELATIONS))
        other = harm.other + _centred(chance.normal(0, BETWEEN_RELATIONS, (CLAIM_RELATIONS, CLAIM_RELATIONS)))
        beside = harm.beside + _centred(chance.normal(0, BETWEEN_RELATIONS, CLAIM_RELATIONS))
        set_id = 0
        for relation in range(CLAIM_RELATIONS):
            for half, is_scored in (("A", ~first_half), ("B", first_half)):
                for index in (None, *range(RANDOM_SETS)):
                    mean = np.where(facts.relations == relation, own[relation], other[relation][facts.relations])
                    if index is not None:
                        mean = np.full(len(mean), beside[relation] + chance.normal(0, BETWEEN_SETS))
                    places = np.flatnonzero(is_scored & ((facts.relations == relation) | (index is None)))
                    changes["change"].append(mean[places] + chance.normal(0, BETWEEN_FACTS, len(places)))
                    changes["prompt_id"].append(places)
                    changes["set_id"].append(np.full(len(places), set_id))
                    changes["extraction_id"].append(np.full(len(places), f"{series_id}/0"))
                    row = {"extraction_id": f"{series_id}/0", "set_id": set_id, "theta": "0.1", "tau_id": "0.05",
                           "set_kind": "role" if index is None else "random", "role": "relation_answer",
                           "relation_id": f"relation {relation}", "half": half, "random_index": index,
                           "component_id": "L0H0"}  # fmt: skip
                    for field, value in row.items():
                        sets[field].append(value)
                    set_id += 1
    fill_raw(connection, series)
    columns = {field: np.concatenate(values) for field, values in changes.items()}
    ablations = {**columns, "extraction_id": columns["extraction_id"].tolist()}
    fill(
        connection,
        "raw_ablations",
        {**ablations, "delta_log_prob": ablations.pop("change"), "method": "mean", "answer_token_index": 0,
         "delta_rank": 0, "delta_template_log_prob": 0.0},
    )  # fmt: skip
    connection.register("rows", pa.table(sets, schema=_plain(ABLATION_TABLES["ablation_sets"])))
    connection.execute("create or replace table raw_ablation_sets as from rows")
    connection.unregister("rows")


def _centred(values: Array) -> Array:
    """Values whose mean is 0; of a square, of what is off its diagonal."""
    counted = values if values.ndim == 1 else values[~np.eye(len(values), dtype=bool)]
    centred: Array = values - counted.mean()
    return centred


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema without dictionaries."""
    return pa.schema(
        [(one.name, one.type.value_type if pa.types.is_dictionary(one.type) else one.type) for one in schema]
    )


if __name__ == "__main__":
    main()
