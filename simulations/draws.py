"""Do the intervals of turnovers, overlaps and their differences hold what they should, and what do they estimate?

The truth: every component has rates of its own, and some have others at the second checkpoint. Series differ in which
facts they are measured on. So a statistic has two truths: its mean over sets of as many facts, and its limit once facts
are so many that every rate is known. Noise at the threshold makes the two differ.
"""

from collections import defaultdict
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from simulations.lakes import PREDICTING, SPANS, SUBJECT, Checkpoint, Facts, Series, component_ids, fill_raw
from simulations.warehouse import build_from_raw, report

Array = NDArray[Any]
Statistic = tuple[str, str]
"""What is measured, and for which role."""

LAYERS, HEADS, RELATIONS = 16, 4, 4
COMPONENTS = LAYERS * (HEADS + 1)
IS_HEAD = np.tile([True] * HEADS + [False], LAYERS)
THETA = 0.1
ALIKE = 0.5
"""How often a component's activity is drawn once for both checkpoints, and not for each."""
MODELS = 2
"""How many models there are, each with rates of its own."""
CHANGED = 0.2
"""Share of components that have other rates at the second checkpoint."""
ROLES = ("general", "entity", "relation_answer")


def main(series: int = 100, facts: tuple[int, ...] = (12, 32), replicates: int = 400) -> list[dict[str, Any]]:
    """Simulate, write `out/draws.*`, `out/noise.*` and `out/planted.*`; returns the rows of the first."""
    rows = [row for per_relation in facts for row in _coverage(per_relation, series, replicates)]
    report(
        "draws",
        rows,
        f"95 % intervals of {series} series of two checkpoints: {COMPONENTS} components, {RELATIONS} relations. How "
        "often they cover the statistic's mean over sets of as many facts; percentiles of the draws instead; how often "
        "they cover its limit for infinitely many facts.",
    )
    noise = [row for per_relation in facts for row in _noise(per_relation, max(2, series // 4))]
    report("noise", noise, "Overlap of a checkpoint with another one at which every rate is the same: heads, means.")
    planted = [_planted(per_relation, series) for per_relation in facts]
    report(
        "planted",
        planted,
        f"{CHANGED:.0%} of the components have other rates. Of those whose primary role changes, and of those that "
        "fct_component_changes calls changed, how many have; and how many of them are found.",
    )
    return rows


# What is true


def make_rates(chance: np.random.Generator) -> Array:
    """[component, relation, place]: rates at most positions, at subjects, and where an answer is predicted.

    A third of the components are active everywhere, a third at entities, a third for some relations' answers.
    """
    kind = chance.integers(0, 3, COMPONENTS)
    level = chance.beta(1.2, 4, (COMPONENTS, 1, 1))
    rates = np.repeat(np.repeat(0.1 * level, RELATIONS, axis=1), 3, axis=2)
    rates[kind == 0] = level[kind == 0]
    rates[kind == 1, :, 1:] = level[kind == 1]
    answers = (kind == 2)[:, None] & (chance.random((COMPONENTS, RELATIONS)) < 0.4)
    rates[:, :, 2] = np.where(answers, 1.5 * level[:, :, 0], rates[:, :, 2])
    return np.clip(rates, 0, 1)


def make_truth(seed: int, changed: float = CHANGED) -> tuple[Array, Array]:
    """Rates at the first and at the second checkpoint."""
    chance = np.random.default_rng(seed)
    before, other = make_rates(chance), make_rates(chance)
    return before, np.where(chance.random((COMPONENTS, 1, 1)) < changed, other, before)


def by_position(rates: Array) -> Array:
    """Rates [component, relation, position]."""
    every = np.repeat(rates[:, :, :1], len(SPANS), axis=2)
    every[:, :, SUBJECT], every[:, :, PREDICTING] = rates[:, :, 1], rates[:, :, 2]
    return every


def roles(rates: Array) -> dict[str, Array]:
    """Who holds which role where all rates are known; relation_answer is [component, relation]."""
    general = by_position(rates).mean(axis=(1, 2)) > THETA
    entity = (rates[:, :, 1:].mean(axis=(1, 2)) > THETA) & ~general
    return {
        "general": general,
        "entity": entity,
        "relation_answer": (rates[:, :, 2] > THETA) & ~(general | entity)[:, None],
    }


def limits(before: Array, after: Array) -> dict[Statistic, list[float]]:
    """The statistics with infinitely many facts; one value per relation where the statistic has one."""
    old, new = roles(before), roles(after)
    found: dict[Statistic, list[float]] = defaultdict(list)
    for role in ROLES:
        one, other = old[role].reshape(COMPONENTS, -1), new[role].reshape(COMPONENTS, -1)
        held, held_later = one.any(axis=1)[IS_HEAD], other.any(axis=1)[IS_HEAD]
        found["turnover", role].append((held ^ held_later).sum() / (held | held_later).sum())
        for members, later in zip(one.T, other.T, strict=True):
            found["corrected overlap", role].append(corrected_overlap(members[IS_HEAD], later[IS_HEAD]))
    primary = [_primary(each) for each in (old, new)]
    turnovers = [float(np.mean((primary[0] != primary[1])[kind])) for kind in (IS_HEAD, ~IS_HEAD)]
    found["turnover", "all"] = turnovers[:1]  # every component is active for some fact at last
    found["turnover, heads - FFNs", "all"] = [turnovers[0] - turnovers[1]]
    return found


def _primary(held: dict[str, Array]) -> Array:
    return np.select([held["general"], held["entity"], held["relation_answer"].any(axis=1)], [1, 2, 3], 0)


def corrected_overlap(members: Array, later: Array) -> float:
    """Chance by drawing sets with as many heads in each layer."""
    counts = later.reshape(LAYERS, HEADS).sum(axis=1, keepdims=True)
    drawn = np.random.default_rng(0).random((20_000, LAYERS, HEADS)).argsort(axis=2) < counts
    drawn = drawn.reshape(len(drawn), -1)
    chance = float(np.mean((drawn & members).sum(axis=1) / (drawn | members).sum(axis=1)))
    largest = min(members.sum(), later.sum()) / max(members.sum(), later.sum())
    return float(((members & later).sum() / (members | later).sum() - chance) / (largest - chance))


# What is measured


def measure(name: str, chance: np.random.Generator, truth: tuple[Array, Array], facts: Facts, alike: float) -> Series:
    shape = (COMPONENTS, len(facts.relations), len(SPANS))
    common = chance.random(shape)
    checkpoints = []
    for number, rates in enumerate(truth):
        drawn = np.where(chance.random(shape) < alike, common, chance.random(shape))
        checkpoints.append(Checkpoint(number, 0.5 * (drawn < by_position(rates)[:, facts.relations])))
    return Series(name, LAYERS, HEADS, facts, checkpoints)


def warehouse_of(
    per_relation: int,
    series: int,
    truth: tuple[Array, Array],
    models: tuple[str, ...],
    alike: float = ALIKE,
    **draws: Any,
) -> duckdb.DuckDBPyConnection:
    chance = np.random.default_rng([per_relation, series])
    facts = Facts({f"relation {number}": "group" for number in range(RELATIONS)}, per_relation)
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    fill_raw(connection, (measure(str(number), chance, truth, facts, alike) for number in range(series)))
    # Permutations take longer than all else, and nothing here needs them.
    connection.execute(
        "create table int_expected_role_counts "
        "(extraction_id varchar, tau_id varchar, component_kind varchar, relation_id varchar, expected_count double)"
    )
    build_from_raw(connection, *models, **draws)
    return connection


_INTERVALS = """
    with turnover_percentiles as (
        select series_id, role, quantile_cont(changed_count / nullif(component_count, 0), [0.025, 0.975]) as percentiles
        from int_resampled_turnovers where resample_kind = 'bootstrap' and component_kind = 'head' group by all
    ),
    overlap_percentiles as (
        select series_id, checkpoint_id, role, relation_id, quantile_cont(iou_reference, [0.025, 0.975]) as percentiles
        from int_resampled_overlaps where component_kind = 'head' group by all
    ),
    stabilities as (
        select *, case when role = 'relation_answer' then scope_id else '' end as relation_id from fct_role_stabilities
        where component_kind = 'head' and role <> 'fact_answer' and checkpoint_id <> reference_checkpoint_id
    ),
    difference_percentiles as (
        select series_id, quantile_cont(difference, [0.025, 0.975]) as percentiles
        from (
            select series_id, resample, any_value(turnover) filter (where component_kind = 'head')
                - any_value(turnover) filter (where component_kind = 'ffn') as difference
            from int_kind_turnovers where comparison = 'common_tau' and resample > 0 group by all
        ) as differences
        group by all
    )
    select 'turnover' as statistic, role, '' as place, turnover as estimate, turnover_low as low, turnover_high as high,
        percentiles[1] as percentile_low, percentiles[2] as percentile_high
    from fct_turnovers
    inner join turnover_percentiles using (series_id, role)
    where component_kind = 'head' and role <> 'fact_answer'
    union all
    select 'corrected overlap', role, relation_id, iou_reference_corrected, iou_reference_corrected_low,
        iou_reference_corrected_high,
        (percentiles[1] - iou_chance) / (iou_max - iou_chance), (percentiles[2] - iou_chance) / (iou_max - iou_chance)
    from stabilities
    inner join overlap_percentiles using (series_id, checkpoint_id, role, relation_id)
    inner join int_chance_overlaps using (series_id, checkpoint_id, component_kind, role, relation_id)
    where beside = 'reference'
    union all
    select 'turnover, heads - FFNs', 'all', '', difference, difference_low, difference_high, percentiles[1],
        percentiles[2]
    from fct_kind_comparisons
    inner join difference_percentiles using (series_id)
    where comparison = 'common_tau'
"""


def _coverage(per_relation: int, series: int, replicates: int) -> list[dict[str, Any]]:
    models = ("fct_turnovers", "fct_role_stabilities", "fct_kind_comparisons")
    cells: dict[Statistic, list[list[float]]] = defaultdict(list)
    for seed in range(MODELS):
        truth = make_truth(seed)
        with warehouse_of(
            per_relation, series // MODELS, truth, models, replicates=replicates, kinds=("observed", "bootstrap")
        ) as connection:
            found = connection.execute(_INTERVALS).fetchall()
        for (statistic, role), values in limits(*truth).items():
            for place, limit in enumerate(values):
                name = f"relation {place}" if len(values) > 1 else ""
                intervals = np.array([row[3:] for row in found if row[:3] == (statistic, role, name)], float)
                cells[statistic, role].append(_summary(intervals[~np.isnan(intervals[:, 1])], limit))
    columns = ("mean", "deviation", "half width", "covers mean", "percentiles cover mean", "limit", "covers limit")
    return [
        {
            "statistic": statistic,
            "role": role,
            "facts per relation": per_relation,
            **dict(zip(columns, np.mean(of_statistic, axis=0).tolist(), strict=True)),
        }
        for (statistic, role), of_statistic in cells.items()
    ]


def _summary(intervals: Array, limit: float) -> list[float]:
    """Of one statistic of one model, [series, (estimate, low, high, low and high of the percentiles)]."""
    estimate, low, high, percentile_low, percentile_high = intervals.T
    mean = estimate.mean()
    return [
        mean,
        estimate.std(),
        (high - low).mean() / 2,
        np.mean((low <= mean) & (mean <= high)),
        np.mean((percentile_low <= mean) & (mean <= percentile_high)),
        limit,
        np.mean((low <= limit) & (limit <= high)),
    ]


def _noise(per_relation: int, series: int) -> list[dict[str, Any]]:
    truth = make_truth(0, changed=0)
    with warehouse_of(
        per_relation, series, truth, ("fct_role_stabilities",), alike=0, replicates=2, kinds=("observed", "half")
    ) as connection:
        rows = connection.execute(
            """select role, avg(iou_reference), avg(iou_reference_corrected), avg(iou_noise_floor),
                avg(iou_reference_noise_corrected), stddev_samp(iou_reference_noise_corrected)
            from fct_role_stabilities where component_kind = 'head' and checkpoint_id <> reference_checkpoint_id
            group by role order by role"""
        ).fetchall()
    columns = ("role", "overlap", "chance-corrected", "noise floor", "noise-corrected", "deviation")
    return [{"facts per relation": per_relation, **dict(zip(columns, row, strict=True))} for row in rows]


def _planted(per_relation: int, series: int) -> dict[str, Any]:
    before, after = truth = make_truth(0)
    is_changed = (before != after).any(axis=(1, 2))
    names = component_ids(LAYERS, HEADS)
    changed = [name for name, has in zip(names, is_changed, strict=True) if has]
    with warehouse_of(
        per_relation, series, truth, ("fct_component_changes", "int_component_roles"), replicates=1, kinds=("observed",)
    ) as connection:
        roles_changed = connection.execute(
            """select later.component_id in $changed, count(*)
            from int_component_roles as later
            inner join int_component_roles as earlier
                on later.series_id = earlier.series_id and later.component_id = earlier.component_id
                and later.previous_checkpoint_id = earlier.checkpoint_id
            where later.primary_role <> earlier.primary_role group by all""",
            {"changed": changed},
        ).fetchall()
        significant = connection.execute(
            """select component_id in $changed, count(distinct (series_id, component_id))
            from fct_component_changes where is_significant group by all""",
            {"changed": changed},
        ).fetchall()
    columns: dict[str, Any] = {"facts per relation": per_relation}
    for name, counts in (("role changed", dict(roles_changed)), ("significant", dict(significant))):
        true, false = counts.get(True, 0), counts.get(False, 0)
        columns |= {f"{name}: true": true / max(true + false, 1), f"{name}: found": true / (series * len(changed))}
    return columns


if __name__ == "__main__":
    main()
