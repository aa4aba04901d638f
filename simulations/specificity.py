"""How many roles that are called specific are not, and how many planted ones are found?

The truth: every head is active at a level of its own, more often for facts with more answer tokens, and relations have
different shares of those. A few planted heads are active for one relation's facts, or for one fact, and hardly
elsewhere. Beside the exact test stands the one that draws 1,000 permutations: its p is never below 1/1001.
"""

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from simulations.warehouse import build, fill, render, report

RELATIONS, FACTS = 10, 16
ELSEWHERE = 0.05
"""How often a planted head is active where it is not planted."""
PERMUTATIONS = 1000


@dataclass(frozen=True)
class Scenario:
    """Heads, of which some are planted in a `relation` or a `fact`, active `here` in that share of its prompts."""

    heads: int
    planted: int
    scope_kind: str = "relation"
    templates: int = 1
    here: float = 0.6


SCENARIOS = {
    "nothing to find": Scenario(1024, 0),
    "sparse": Scenario(1024, 5),
    "some": Scenario(1024, 50),
    "dense": Scenario(1024, 250),
    "a small model": Scenario(64, 2),
    "facts, 3 templates": Scenario(256, 20, "fact", 3, 0.9),
    "facts, 6 templates": Scenario(256, 20, "fact", 6, 0.9),
}


def main(draws: int = 100, scenarios: tuple[str, ...] = tuple(SCENARIOS)) -> list[dict[str, Any]]:
    """Simulate, write `out/specificity.*` and return a row per scenario."""
    rows = [_result(name, SCENARIOS[name], draws) for name in scenarios]
    report(
        "specificity",
        rows,
        f"Roles called specific at q ≤ 0.05: {draws} draws of {RELATIONS} relations × {FACTS} facts. A planted head is "
        f"active in {ELSEWHERE:.0%} of the prompts elsewhere; ± is the standard error.",
    )
    return rows


def _result(name: str, scenario: Scenario, draws: int) -> dict[str, Any]:
    chance = np.random.default_rng([scenario.heads, scenario.planted, scenario.templates])
    with duckdb.connect() as connection:
        _simulate(connection, chance, scenario, draws)
        build(connection, "int_relation_tests", "int_fact_tests", "int_exact_tests", "fct_role_specificities")
        exact = _rates(connection, "is_specific", scenario, draws)
        _draw_permutations(connection, chance, scenario)
        drawn = _rates(connection, "is_specific_by_draws", scenario, draws)
    return {
        "scenario": name,
        "heads": scenario.heads,
        "planted": scenario.planted,
        **exact,
        **{f"{rate}, {PERMUTATIONS} permutations": value for rate, value in drawn.items()},
    }


def _simulate(
    connection: duckdb.DuckDBPyConnection, chance: np.random.Generator, scenario: Scenario, draws: int
) -> None:
    """Fill what the models read: each draw is a checkpoint; a prompt has one answer-predicting position."""
    relation = np.repeat(np.arange(RELATIONS), FACTS)
    fact = np.arange(RELATIONS * FACTS)
    # Relations differ in how many of their answers have 1, 2 and 3 tokens.
    tokens = np.concatenate(
        [chance.choice([1, 2, 3], FACTS, p=chance.dirichlet([2, 1, 0.5])) for _ in range(RELATIONS)]
    )
    if scenario.scope_kind == "relation":
        scope = np.arange(scenario.planted) % RELATIONS
        is_here = scope[:, None] == relation
    else:
        scope = np.arange(scenario.planted) * 7 % len(fact)
        is_here = scope[:, None] == fact
    draw, head, prompt = [], [], []
    for number in range(draws):
        level = chance.beta(0.5, 2, (scenario.heads, 1)) * np.array([0.6, 0.8, 1])[tokens - 1]
        level[: scenario.planted] = np.where(is_here, scenario.here, ELSEWHERE)
        active = chance.random((scenario.heads, len(fact), scenario.templates)) < level[:, :, None]
        heads, prompts = np.nonzero(active.reshape(scenario.heads, -1))
        draw.append(np.full(len(heads), number))
        head.append(heads)
        prompt.append(prompts)

    keys = {"series_id": "s", "setting_id": "x"}
    fill(
        connection,
        "int_facts",
        {**keys, "fact_id": fact, "relation_id": relation, "answer_token_count": tokens,
         "template_count": np.full(len(fact), scenario.templates)},
    )  # fmt: skip
    fill(
        connection,
        "int_measured_checkpoints",
        {**keys, "tau_id": "t", "checkpoint_id": np.arange(draws), "extraction_id": np.arange(draws)},
    )
    fill(connection, "stg_raw__checkpoints", {"extraction_id": np.arange(draws)})
    fill(
        connection,
        "int_component_activities",
        {"extraction_id": np.concatenate(draw), "tau_id": "t", "component_id": np.concatenate(head),
         "prompt_id": np.concatenate(prompt), "answer_active_count": 1},
    )  # fmt: skip
    heads_and_kind = {"component_id": np.arange(scenario.heads), "component_kind": "head"}
    fill(connection, "dim_components", {"series_id": "s", **heads_and_kind})
    fill(connection, "planted", {"component_id": np.arange(scenario.planted), "scope_id": scope})
    connection.execute(
        f"""
        create table stg_raw__prompts as
        select
            extraction_id, relation_id, fact_id, template_id,
            fact_id * {scenario.templates} + template_id as prompt_id
        from int_measured_checkpoints, int_facts, range({scenario.templates}) as templates (template_id);
        create table int_prompt_positions as
        select extraction_id, prompt_id, relation_id, fact_id, answer_token_count as answer_position_count
        from stg_raw__prompts inner join int_facts using (relation_id, fact_id);
        create table int_scope_rates as
        select
            extraction_id, tau_id, component_id, 'fact' as scope_kind, fact_id as scope_id,
            count(*) > 0.1 * {scenario.templates} as is_above_theta
        from int_component_activities
        inner join stg_raw__prompts using (extraction_id, prompt_id)
        group by all"""
    )


def _draw_permutations(connection: duckdb.DuckDBPyConnection, chance: np.random.Generator, scenario: Scenario) -> None:
    """Add `is_specific_by_draws`: of the permutations, a share of about the exact p is as extreme as what was seen."""
    columns = connection.execute(
        f"select checkpoint_id, component_id, scope_id, p_value from fct_role_specificities "
        f"where scope_kind = '{scenario.scope_kind}'"
    ).fetchnumpy()
    extreme = chance.binomial(PERMUTATIONS, columns.pop("p_value"))
    fill(connection, "drawn", {**columns, "p": (1 + extreme) / (1 + PERMUTATIONS)})
    tests = scenario.heads * (RELATIONS if scenario.scope_kind == "relation" else RELATIONS * FACTS)
    connection.execute(
        render(f"""
        create or replace table fct_role_specificities as
        with tested as (
            select
                checkpoint_id, component_id, '{scenario.scope_kind}' as scope_kind, scope_id,
                p::decimal(13, 12) as p_value, {tests} as test_count
            from drawn
        )
        select tested.*, adjusted.q_value <= 0.05 as is_specific_by_draws
        from tested
        inner join {{{{ adjusted_p_values('tested', ['checkpoint_id']) }}}} as adjusted
            using (checkpoint_id, p_value)""")
    )


def _rates(
    connection: duckdb.DuckDBPyConnection, column: str, scenario: Scenario, draws: int
) -> dict[str, float | None]:
    """Mean share of false ones among those called specific, its standard error, and the share of planted ones found."""
    counts = connection.execute(
        f"""select count_if(planted.component_id is null), count_if(planted.component_id is not null)
        from fct_role_specificities left join planted using (component_id, scope_id)
        where {column} and scope_kind = '{scenario.scope_kind}' group by checkpoint_id"""
    ).fetchall()
    false_shares = np.zeros(draws)
    false_shares[: len(counts)] = [false / (false + true) for false, true in counts]
    found = sum(true for _, true in counts)
    return {
        "false": float(false_shares.mean()),
        "±": float(false_shares.std() / np.sqrt(draws)),
        "found": found / (draws * scenario.planted) if scenario.planted else None,
    }


if __name__ == "__main__":
    main()
