"""How the warehouse grows with the number of facts; together with warehouse.py, which lets the checkpoints grow.

1. Write raw lakes of OLMo-7B's shape (raw_lakes.py), of few checkpoints and more and more facts. 2. Build each
warehouse in a process of its own. 3. Fit a straight line through each cost, and say by how much the largest lake misses
the line through the smaller ones: what the table of docs/scale.md extrapolates by.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.raw_lakes import RELATIONS, write_lake
from benchmarks.warehouse import OUT, _alone, _raw_bytes, _table, build

COSTS = {
    "processor_seconds": ("processor seconds", 1.0),
    "peak_bytes": ("peak GB", 1e-9),
    "database_bytes": ("build database GB", 1e-9),
    "release_bytes": ("release GB", 1e-9),
    "raw_bytes": ("raw GB", 1e-9),
}


def main() -> None:
    """Measure, write `out/scale.json` and `out/scale.md`, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--facts", type=int, nargs="+", default=(160, 640, 2560), help="multiples of 10")
    parser.add_argument("--memory", type=float, default=4.0, help="GB that DuckDB may hold in a build; the rest spills")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for facts in options.facts:
        with tempfile.TemporaryDirectory() as folder:
            lake = Path(folder) / "lake"
            write_lake(lake, options.checkpoints, processes=1, facts_per_relation=facts // len(RELATIONS))
            built = _alone(build, lake, options.memory)
            raw = sum(_raw_bytes(lake).values()) * options.checkpoints
        slowest = dict(list(built["seconds_by_model"].items())[:12])
        costs = {name: built.get(name, raw) for name in COSTS} | {"seconds": built["seconds"]}
        results.append({"facts": facts, "checkpoints": options.checkpoints, **costs, "slowest": slowest})
        OUT.mkdir(exist_ok=True)
        (OUT / "scale.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (OUT / "scale.md").write_text(_tables(results), encoding="utf-8")
    sys.stdout.write(_tables(results))


def fit(facts: list[int], costs: list[float]) -> tuple[float, float]:
    """Intercept and slope of the straight line through all points, by least squares."""
    slope, intercept = np.polyfit(facts, costs, 1)
    return float(intercept), float(slope)


def _tables(results: list[dict[str, Any]]) -> str:
    facts = [one["facts"] for one in results]
    rows = []
    for name, (label, unit) in COSTS.items():
        costs = [one[name] * unit for one in results]
        row: list[Any] = [label, *(f"{cost:.3g}" for cost in costs)]
        if len(results) > 2:
            intercept, slope = fit(facts, costs)
            below, rise = fit(facts[:-1], costs[:-1])
            predicted = below + rise * facts[-1]
            row += [f"{intercept:.3g} + {slope:.3g} · facts", f"{costs[-1] / predicted:.2f}"]
        rows.append(row)
    head: list[Any] = [f"{results[0]['checkpoints']} checkpoints", *(f"{one} facts" for one in facts)]
    if len(results) > 2:
        head += ["line through all", "the largest over the line through the smaller"]
    models = [
        [model, *(f"{one['slowest'].get(model, float('nan')):.1f}" for one in results)]
        for model in results[-1]["slowest"]
    ]
    return f"{_table(head, rows)}\n{_table(['seconds by model', *map(str, facts)], models)}"


if __name__ == "__main__":
    main()
