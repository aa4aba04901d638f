"""Do the Wilson intervals of accuracies hold the true accuracy as often as they say?

Facts have unequal difficulty: each is recalled through a template with a probability of its own, from a beta
distribution around the true accuracy. The smaller its concentration, the more a fact's templates agree.
"""

from itertools import product
from typing import Any

import duckdb
import numpy as np

from simulations.warehouse import build, fill, render, report

ACCURACIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FACTS = (12, 32)
CONCENTRATIONS = (0.3, 1.0, 3.0, 10.0)
TEMPLATES = (1, 3)


def main(draws: int = 2000) -> list[dict[str, Any]]:
    """Simulate, write `out/intervals.*` and return a row per number of facts, of templates, and concentration."""
    rows = [
        _coverage(facts, templates, concentration, draws)
        for facts, templates, concentration in product(FACTS, TEMPLATES, CONCENTRATIONS)
        if templates > 1 or concentration == 1  # of one template, the concentration does not matter
    ]
    report(
        "intervals", rows, f"Coverage of 95 % Wilson intervals, {draws} draws for each of {len(ACCURACIES)} accuracies."
    )
    return rows


def _coverage(facts: int, templates: int, concentration: float, draws: int) -> dict[str, Any]:
    """Coverage of the mart's intervals, whose n is the effective one, and of those with n = facts."""
    chance = np.random.default_rng([facts, templates, int(10 * concentration)])
    accuracies = np.array(ACCURACIES)[:, None, None]
    shape = (len(ACCURACIES), draws, facts)
    difficulty = chance.beta(
        np.broadcast_to(accuracies * concentration, shape), np.broadcast_to((1 - accuracies) * concentration, shape)
    )
    shares = (chance.binomial(templates, difficulty) / templates).ravel()
    cell, draw, fact = (index.ravel() for index in np.indices(shape))
    relations = [str(number) for number in range(len(ACCURACIES))]
    with duckdb.connect() as connection:
        keys = {"series_id": "s", "setting_id": "x"}
        fill(
            connection,
            "fct_fact_predictions",
            {
                **keys,
                "checkpoint_id": draw,
                "relation_id": np.array(relations)[cell],
                "fact_id": fact,
                "prompt_count": np.full(len(fact), templates),
                **dict.fromkeys(("top1_share", "top10_share", "all_tokens_top1_share"), shares),
                **dict.fromkeys(("mean_log_prob", "mean_mismatched_log_prob", "log_prob_gain"), shares),
            },
        )
        fill(
            connection,
            "dim_relations",
            {**keys, "relation_id": relations, "relation_group": "g", "majority_share": 0.0},
        )
        build(connection, "fct_relation_accuracies")
        fill(connection, "truths", {"scope_id": relations, "accuracy": list(ACCURACIES)})
        covered = connection.execute(
            render("""
            select
                avg((accuracy between top1_low and top1_high)::integer) as effective,
                avg((
                    accuracy between {{ wilson_low('top1_accuracy', 'fact_count') }}
                    and {{ wilson_high('top1_accuracy', 'fact_count') }}
                )::integer) as plain,
                avg(top1_effective_n) as effective_n,
                avg(top1_high - top1_low) as width
            from fct_relation_accuracies
            inner join truths using (scope_id)
            where scope_kind = 'relation'
            group by scope_id
            order by scope_id::integer""")
        ).fetchall()
    effective, plain, effective_n, width = (list(column) for column in zip(*covered, strict=True))
    return {
        "facts": facts,
        "templates": templates,
        "concentration": concentration,
        "mean coverage": float(np.mean(effective)),
        "lowest": min(effective),
        "mean coverage, n = facts": float(np.mean(plain)),
        "lowest, n = facts": min(plain),
        "mean effective n": float(np.mean(effective_n)),
        "mean width": float(np.mean(width)),
        "per accuracy": " ".join(
            f"{accuracy}:{share:.3f}" for accuracy, share in zip(ACCURACIES, effective, strict=True)
        ),
    }


if __name__ == "__main__":
    main()
