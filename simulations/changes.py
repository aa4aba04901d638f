"""How often is a component said to have changed that has not, and how often is a change found?

The truth: every fact has a rate of its own for every component, the same at both checkpoints but for measurement, and
higher at the second for components that changed.
"""

from typing import Any

import duckdb
import numpy as np

from simulations.warehouse import build, fill, report

FACTS, POSITIONS, ANSWERS = 160, 8, 2
SCENARIOS = {  # heads, of them changed, by how much the rate rises
    "nothing to find": (256, 0, 0.0),
    "sparse, small": (256, 5, 0.05),
    "sparse, large": (256, 5, 0.15),
    "dense, small": (256, 64, 0.05),
}


def main(draws: int = 100, scenarios: tuple[str, ...] = tuple(SCENARIOS)) -> list[dict[str, Any]]:
    """Simulate, write `out/changes.*` and return a row per scenario and scope."""
    rows = [row for name in scenarios for row in _results(name, *SCENARIOS[name], draws)]
    report(
        "changes",
        rows,
        f"Changes between two checkpoints called significant at q ≤ 0.05: {draws} draws of {FACTS} facts; ± is the "
        f"standard error.",
    )
    return rows


def _results(name: str, heads: int, changed: int, rise: float, draws: int) -> list[dict[str, Any]]:
    chance = np.random.default_rng([heads, changed, int(100 * rise)])
    measured: dict[str, list[np.ndarray[Any, Any]]] = {
        name: [] for name in ("extraction_id", "component_id", "prompt_id", "active_count", "answer_active_count")
    }
    for extraction in range(2 * draws):
        if extraction % 2 == 0:
            rate = np.clip(chance.beta(1, 2, (heads, 1)) + chance.normal(0, 0.1, (heads, FACTS)), 0, 1)
        else:
            rate[:changed] = np.minimum(rate[:changed] + rise, 1)
        answers = chance.binomial(ANSWERS, rate)
        others = chance.binomial(POSITIONS - ANSWERS, rate)
        component, prompt = np.nonzero(answers + others)
        for column, values in zip(
            measured,
            (np.full(len(prompt), extraction), component, prompt, (answers + others)[component, prompt],
             answers[component, prompt]),
            strict=True,
        ):  # fmt: skip
            measured[column].append(values)

    with duckdb.connect() as connection:
        extractions = np.arange(2 * draws)
        fill(
            connection,
            "int_measured_checkpoints",
            {"series_id": "s", "setting_id": "x", "tau_id": "t", "checkpoint_id": extractions,
             "extraction_id": extractions,
             "previous_checkpoint_id": [number - 1 if number % 2 else None for number in range(2 * draws)]},
        )  # fmt: skip
        fill(
            connection,
            "int_component_activities",
            {"tau_id": "t", **{column: np.concatenate(parts) for column, parts in measured.items()}},
        )
        fill(
            connection,
            "int_prompt_positions",
            {"extraction_id": np.repeat(extractions, FACTS), "prompt_id": np.tile(np.arange(FACTS), 2 * draws),
             "fact_id": np.tile(np.arange(FACTS), 2 * draws), "position_count": POSITIONS,
             "answer_position_count": ANSWERS},
        )  # fmt: skip
        fill(
            connection,
            "dim_components",
            {"series_id": "s", "component_id": np.arange(heads), "component_kind": "head"},
        )
        build(connection, "fct_component_changes")
        return [_rates(connection, name, scope_kind, heads, changed, draws) for scope_kind in ("all", "answer")]


def _rates(
    connection: duckdb.DuckDBPyConnection, name: str, scope_kind: str, heads: int, changed: int, draws: int
) -> dict[str, Any]:
    """The share of p ≤ 0.05 where nothing changed, the mean share of false ones among significant ones, those found."""
    counts = connection.execute(
        f"""select
            count_if(p_value <= 0.05 and component_id >= {changed}),
            count_if(is_significant and component_id >= {changed}),
            count_if(is_significant and component_id < {changed})
        from fct_component_changes where scope_kind = '{scope_kind}' group by to_checkpoint_id"""
    ).fetchall()
    false_shares = np.zeros(draws)
    false_shares[: len(counts)] = [false / max(false + true, 1) for _, false, true in counts]
    return {
        "scenario": name,
        "scope": scope_kind,
        "heads": heads,
        "changed": changed,
        "false at p ≤ 0.05": sum(row[0] for row in counts) / (draws * (heads - changed)),
        "false": float(false_shares.mean()),
        "±": float(false_shares.std() / np.sqrt(draws)),
        "found": sum(row[2] for row in counts) / (draws * changed) if changed else None,
    }


if __name__ == "__main__":
    main()
