"""Turnovers, stabilities and confidence of roles under draws over facts, worked out a second time in plain Python."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache
from itertools import combinations, pairwise, product
from statistics import fmean, stdev
from typing import Any

import duckdb
import numpy as np
import pytest

from simulations import warehouse
from tests.warehouse.drawn_lake import (
    CHECKPOINTS,
    COMPONENTS,
    FACT_COUNTS,
    ONE,
    REPLICATES,
    TAU_IDS,
    THETA,
    THETAS,
    DrawnLake,
    Members,
    Sets,
    approx,
    of_kind,
    primary_sets,
)
from tests.warehouse.roles_twin import ROLES, kind_of
from timecourse.resampling import SPLITS


def overlap(left: Members, right: Members) -> float | None:
    return len(left & right) / len(left | right) if left | right else None


def bounds(
    estimate: float | None, drawn: Iterable[float | None], highest: float = 1
) -> tuple[float | None, float | None]:
    values = [value for value in drawn if value is not None]
    if estimate is None or len(values) < 2:
        return None, None
    error = 1.959963984540054 * stdev(values)
    return max(0, estimate - error), min(highest, estimate + error)


def bootstrap(lake: DrawnLake, checkpoint: str, tau_id: str) -> list[Sets]:
    draws = [("bootstrap", number, "") for number in range(1, REPLICATES + 1)]
    return [lake.sets[checkpoint, tau_id, draw, Fraction(THETA)] for draw in draws]


def observed(lake: DrawnLake, checkpoint: str, tau_id: str) -> Sets:
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


def test_turnovers(drawn_lake: DrawnLake) -> None:
    rows = {
        (row["tau_id"], row["from_checkpoint_id"], row["to_checkpoint_id"], row["component_kind"], row["role"]): row
        for row in drawn_lake.of_series("fct_turnovers")
    }
    assert len(rows) == len(TAU_IDS) * 3 * 2 * 5
    for (tau_id, before, after, kind, role), row in rows.items():
        before, after = before.removeprefix(f"{ONE}/"), after.removeprefix(f"{ONE}/")
        assert (before, after) in pairwise(CHECKPOINTS)
        estimate = turnover(observed(drawn_lake, before, tau_id), observed(drawn_lake, after, tau_id), kind, role)
        drawn = [
            turnover(old, new, kind, role)
            for old, new in zip(
                bootstrap(drawn_lake, before, tau_id), bootstrap(drawn_lake, after, tau_id), strict=True
            )
        ]
        expected = (estimate, *bounds(estimate, drawn))
        assert (row["turnover"], row["turnover_low"], row["turnover_high"]) == approx(expected)
    assert sum(row["turnover_low"] not in (None, row["turnover"]) for row in rows.values()) > 20


def test_stabilities(drawn_lake: DrawnLake) -> None:
    """Every column of every row."""
    rows = drawn_lake.of_series("fct_role_stabilities")
    assert len(rows) == len(TAU_IDS) * len(CHECKPOINTS) * 2 * (2 + 2 * len(FACT_COUNTS))
    seen = defaultdict[str, int](int)
    for row in rows:
        expected = expected_stability(drawn_lake, row)
        assert {name: row[name] for name in expected} == approx(expected), row
        for name, value in expected.items():
            seen[name] += value not in (None, 0, 1)
    assert set(rows[0]) - set(seen) == {
        "series_id", "setting_id", "tau_id", "checkpoint_id", "component_kind", "role", "scope_id", "specific_count",
        "reference_checkpoint_id", "previous_checkpoint_id",
    }  # fmt: skip
    assert min(seen.values()) > 2, seen


def expected_stability(lake: DrawnLake, row: Mapping[str, Any]) -> dict[str, float | None]:
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


def crossed(lake: DrawnLake, one: str, other: str, tau_id: str, kind: str, key: tuple[str, str]) -> float | None:
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


def expected_count(lake: DrawnLake, name: str, tau_id: str, kind: str, relation: str) -> float:
    """Mean number of holders where facts with equally many answer tokens swap their relations."""
    one, sets = lake.measured[name, tau_id], observed(lake, name, tau_id)
    free = [c for c in COMPONENTS if kind_of(c) == kind and c not in sets["general", ""] | sets["entity", ""]]
    counts = []
    for labelled in permuted_relations(lake):
        facts = [fact for fact, label in labelled.items() if label == relation]
        total = sum(one.answer_counts[fact] for fact in facts)
        counts.append(sum(Fraction(sum(one.answers[c][fact] for fact in facts), total) > Fraction(THETA) for c in free))
    return fmean(counts)


def permuted_relations(lake: DrawnLake) -> list[dict[str, str]]:
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


def rarefied(lake: DrawnLake, name: str, tau_id: str, kind: str, relation: str) -> float | None:
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
    return fmean(counts)


def test_confidence_and_robustness(drawn_lake: DrawnLake) -> None:
    seen = set()
    for row in drawn_lake.of_series("fct_component_histories"):
        name, component = row["checkpoint_id"].removeprefix(f"{ONE}/"), row["component_id"]
        draws = [primary_role(sets, component) for sets in bootstrap(drawn_lake, name, row["tau_id"])]
        cells = [
            primary_role(drawn_lake.sets[name, tau_id, ("observed", 0, ""), theta], component)
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
