"""How often is one of the first five claims supported that is false, and how often one that is true?

Series of 8 checkpoints, 32 heads, 8 FFNs and 120 facts (tests/warehouse/claim_lake.py), drawn anew from its course.
"""

from collections import Counter
from typing import Any

import duckdb

from simulations.lakes import fill_raw
from simulations.warehouse import build_from_raw, report
from tests.warehouse.claim_lake import COURSES, make_series

SCENARIOS = {
    "supporting, it's": "all five are true",
    "still": "nothing changes",
    "restless": "everything changes alike, relations converge in any order",
    "opposite": "all but the second are false",
    "fading": "heads do the same ever more weakly",
}


def main(draws: int = 20, scenarios: tuple[str, ...] = tuple(SCENARIOS), replicates: int = 100) -> list[dict[str, Any]]:
    """Simulate, write `out/claims.*` and return a row per scenario and statistic."""
    rows = [row for scenario in scenarios for row in _results(scenario, draws, replicates)]
    report(
        "claims",
        rows,
        f"Verdicts of {draws} series per scenario: shares of them; `repeated` is with the cut-off reset.",
    )
    return rows


def _results(scenario: str, draws: int, replicates: int) -> list[dict[str, Any]]:
    found: list[tuple[Any, ...]] = []
    for start in range(0, draws, 10):
        numbers = range(start, min(start + 10, draws))
        with duckdb.connect() as connection:
            connection.execute("set enable_progress_bar = false")
            fill_raw(connection, [make_series(f"{scenario} {n}", COURSES[scenario], 1 + n) for n in numbers])
            build_from_raw(connection, "fct_claims", replicates=replicates)
            found += connection.execute(
                """select claim_number, statistic, statistic_verdict, verdict, estimate, estimate_high - estimate_low,
                    repeated_estimate
                from fct_claims where claim_number <= 5 order by all"""
            ).fetchall()
    rows = []
    for claim, statistic in sorted({row[:2] for row in found}):
        own = [row for row in found if row[1] == statistic]
        verdicts, statistic_verdicts = Counter(row[3] for row in own), Counter(row[2] for row in own)
        rows.append(
            {
                "scenario": SCENARIOS[scenario],
                "claim": claim,
                "statistic": statistic,
                "supported": statistic_verdicts["supported"] / draws,
                "contradicted": statistic_verdicts["contradicted"] / draws,
                "claim supported": verdicts["supported"] / draws,
                "claim contradicted": verdicts["contradicted"] / draws,
                "estimate": _mean([row[4] for row in own]),
                "width": _mean([row[5] for row in own]),
                "repeated": _mean([row[6] for row in own]),
            }
        )
    return rows


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


if __name__ == "__main__":
    main()
