"""What the warehouse costs for long series of large models: building it, one more checkpoint, and activity alone.

1. Write a raw lake of each size (raw_lakes.py). 2. Build its warehouse. 3. Make the activity tables alone, by the
project's models and by pandas on the same files, and compare the results. 4. Commit one more checkpoint; build again.

Every step runs in a process of its own, so that its peak of memory is its own. Processor seconds stand beside those on
the clock, which a busy machine makes longer.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.raw_lakes import commit_next, write_lake
from timecourse.lake import Lake

SIZES, ALL_SIZES = (10, 40), (10, 40, 160)
THETA = "0.1"
SLOWEST = 10
RATES = "int_scope_rates"
"""The model that ends the activity tables: rates per component and scope."""
OUT = Path(__file__).parent / "out"

Result = dict[str, Any]


def main() -> None:
    """Measure, write `out/warehouse.json` and `out/warehouse.md`, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=SIZES)
    parser.add_argument("--all", action="store_const", const=ALL_SIZES, dest="checkpoints", help="10, 40 and 160")
    parser.add_argument("--memory", type=float, default=4.0, help="GB that DuckDB may hold in a build; the rest spills")
    parser.add_argument("--keep", type=Path, help="a folder in which the lakes stay, each in a new folder of its own")
    options = parser.parse_args()
    results = []
    for count in options.checkpoints:
        with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as folder:
            results.append(_measure(Path(folder) / f"lake{count}", count, options.memory))
        content = {"memory_gb": options.memory, "processors": os.cpu_count(), "sizes": results}
        OUT.mkdir(exist_ok=True)
        (OUT / "warehouse.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        (OUT / "warehouse.md").write_text(_tables(results), encoding="utf-8")
    sys.stdout.write(_tables(results))


def _measure(lake: Path, count: int, memory_gb: float) -> Result:
    lake.mkdir(parents=True)
    start = time.perf_counter()
    write_lake(lake, count)
    generation = time.perf_counter() - start
    full = _alone(build, lake, memory_gb)
    activity = _activity(lake, sql) if (sql := full.pop("activity_sql")) else None
    commit_next(lake)
    refresh = _alone(build, lake, memory_gb)
    del refresh["activity_sql"]
    return {
        "checkpoints": count,
        "generation_seconds": generation,
        "raw_bytes_per_checkpoint": _raw_bytes(lake),
        "full build": full,
        "one more": refresh,
        "activity": activity,
    }


def _alone(function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function returns in a new process, with the seconds and the peak of memory that it took there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, function, *arguments).result()


def _measured(function: Callable[..., Result], *arguments: Any) -> Result:
    start, start_of_processor = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return {**_costs(start, start_of_processor), **result}


def _costs(start: float, start_of_processor: float) -> Result:
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - start_of_processor,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    """Most memory this process has held. On Linux getrusage starts from the parent's, so it is read elsewhere there."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def build(lake: Path, memory_gb: float) -> Result:
    """Bring the warehouse up to date, as a refresh does; what it cost, and how large it and a release of it are."""
    import timecourse.build
    from timecourse.release import _copy_marts, _write_parquet

    run_dbt = timecourse.build._run_dbt
    nodes: list[Any] = []

    def recording(*arguments: Any) -> list[Any]:
        found: list[Any] = run_dbt(*arguments)
        nodes.extend(found)
        return found

    timecourse.build._run_dbt = recording
    start, start_of_processor = time.perf_counter(), time.process_time()
    built = timecourse.build.build_warehouse(lake, theta=THETA, complete_series=[], memory_gb=memory_gb)
    costs = _costs(start, start_of_processor)
    with tempfile.TemporaryDirectory() as folder:
        release, parquet = Path(folder) / "warehouse.duckdb", Path(folder) / "marts"
        rows = _copy_marts(built.database, release)
        _write_parquet(release, parquet)
        sizes = {
            "database_bytes": built.database.stat().st_size,
            "release_bytes": release.stat().st_size,
            "parquet_bytes": sum(file.stat().st_size for file in parquet.iterdir()),
        }
    return {
        **costs,
        **sizes,
        "rows": rows,
        "failed_checks": [check.check_id for check in built.checks if check.result == "fail"],
        "seconds_by_model": _seconds(nodes, "model"),
        "seconds_by_test": _seconds(nodes, "test"),
        "activity_sql": _activity_sql(nodes),
    }


def _seconds(nodes: list[Any], kind: str) -> dict[str, float]:
    """Seconds by model or test, the slowest first."""
    spent: Counter[str] = Counter()
    for node in nodes:
        if node.node.resource_type == kind:
            spent[node.node.name] += node.execution_time
    return dict(spent.most_common())


def _activity_sql(nodes: list[Any]) -> list[tuple[str, str, str]]:
    """Name, kind and compiled SQL of the activity tables' last model and of all it is made from, in the build's order.

    What is no activity, such as which checkpoints there are, comes along: it is small. Nothing where the lake was read
    in batches: no statement reads all of it then.
    """
    if sum(node.node.name == RATES for node in nodes if node.node.resource_type == "model") > 1:
        return []
    models = {node.node.unique_id: node.node for node in nodes if node.node.resource_type == "model"}
    wanted = {key for key, model in models.items() if model.name == RATES}
    for key in reversed(list(models)):
        if key in wanted:
            wanted.update(models[key].depends_on.nodes)
    return [
        (model.name, "view" if model.config.materialized == "view" else "table", model.compiled_code)
        for key, model in models.items()
        if key in wanted
    ]


def _activity(lake: Path, models: list[tuple[str, str, str]]) -> Result:
    """The activity tables alone, made in two ways from the same files, and whether they agree."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "models.parquet", Path(folder) / "pandas.parquet"
        return {
            "models": _alone(activity_by_models, lake, models, ours),
            "pandas": _alone(activity_by_pandas, lake, theirs),
            **compare(ours, theirs),
        }


def activity_by_models(lake: Path, models: list[tuple[str, str, str]], target: Path) -> Result:
    """The project's own models in a database of their own."""
    import duckdb

    # The compiled SQL names the database, and a database is named after its file.
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
        connection.execute(f"attach '{lake / 'build' / 'warehouse.duckdb'}' as build (read_only)")
        for name in ("declared_series", "declared_checkpoints"):
            connection.execute(f"create table {name} as from build.main.{name}")
        for name, kind, sql in models:
            connection.execute(f"create {kind} {name} as {sql}")
        columns = "checkpoint_id, component_id, scope_kind, scope_id, active_count, position_count, rate"
        rates = f"select {columns} from {RATES} inner join int_measured_checkpoints using (extraction_id, tau_id)"
        # Notebooks have no rows for what is never active.
        rows = connection.execute(f"copy ({rates} where active_count > 0) to '{target}'").fetchall()[0][0]
    return {"rows": rows}


def activity_by_pandas(lake: Path, target: Path) -> Result:
    """The same tables as notebooks make them: read the files, concatenate, merge, group."""
    import pandas as pd

    def read(table: str, columns: list[str]) -> pd.DataFrame:
        folders = [lake / commit.content["directory"] for commit in Lake(lake).commits()]
        return pd.concat([pd.read_parquet(folder / f"{table}.parquet", columns=columns) for folder in folders])

    def total(rows: pd.DataFrame, keys: list[str], name: str) -> pd.DataFrame:
        return rows.groupby(keys, observed=True).weight.sum().rename(name).reset_index()

    prompt = ["extraction_id", "prompt_id"]
    checkpoints = read("checkpoint", ["extraction_id", "checkpoint_id"])
    prompts = read("prompts", [*prompt, "relation_id", "fact_id"])
    tokens = read("prompt_tokens", [*prompt, "position", "span_role", "is_answer_predicting", "is_special"])
    tokens = tokens[~tokens.is_special].merge(prompts, on=prompt).assign(all="all", entity="entity", one=1)
    tokens["answer"] = tokens.is_answer_predicting.astype(int)
    tokens["subject_or_answer"] = tokens.answer + (tokens.span_role == "subject")
    active = read("attributions", [*prompt, "position", "component_id", "score"]).merge(
        tokens, on=[*prompt, "position"]
    )
    scopes = []
    for kind, scope, weight in (
        ("all", "all", "one"),
        ("entity", "entity", "subject_or_answer"),
        ("relation", "relation_id", "answer"),
        ("fact", "fact_id", "answer"),
    ):
        every, here = (
            rows.assign(weight=rows[weight], scope_id=rows[scope])[rows[weight] > 0] for rows in (tokens, active)
        )
        keys = ["extraction_id", "scope_id"]
        rates = total(here, [*keys, "component_id"], "active_count").merge(
            total(every, keys, "position_count"), on=keys
        )
        rates["rate"] = rates.active_count / rates.position_count
        if kind == "all":  # every prompt counts the same
            shares = total(here, [*prompt, "component_id"], "active_count").merge(total(every, prompt, "length"))
            shares["rate"] = shares.active_count / shares.length
            sums = shares.groupby(["extraction_id", "component_id"], observed=True).rate.sum().reset_index()
            sums["rate"] = (sums.rate / sums.extraction_id.map(prompts.groupby("extraction_id").size())).round(9)
            rates = rates.drop(columns="rate").merge(sums)
        scopes.append(rates.assign(scope_kind=kind))
    result = pd.concat(scopes).merge(checkpoints, on="extraction_id")
    result.to_parquet(target)
    return {"rows": len(result)}


def compare(ours: Path, theirs: Path) -> Result:
    """How many rows either has, and how many are not equal: counts exactly, rates but for rounding the ninth digit."""
    import duckdb

    same = "o.active_count = t.active_count and o.position_count = t.position_count and abs(o.rate - t.rate) < 2e-9"
    compared, differing = duckdb.sql(
        f"select count(*), count(*) filter (where not coalesce({same}, false)) from '{ours}' as o "
        f"full join '{theirs}' as t using (checkpoint_id, component_id, scope_kind, scope_id)"
    ).fetchall()[0]
    return {"compared_rows": compared, "differing_rows": differing}


def _raw_bytes(lake: Path) -> dict[str, int]:
    """Mean bytes of a checkpoint's files by table, the largest first."""
    sizes: Counter[str] = Counter()
    commits = Lake(lake).commits()
    for commit in commits:
        sizes.update({name: file["bytes"] for name, file in commit.content["files"].items()})
    return {name: size // len(commits) for name, size in sizes.most_common()}


def _tables(results: list[Result]) -> str:
    """The measurements as Markdown."""

    def megabytes(result: Result, *names: str) -> list[str]:
        return [f"{result[f'{name}_bytes'] / 1e6:,.0f}" for name in names]

    def seconds(result: Result) -> list[str]:
        return [f"{result[name]:.1f}" for name in ("seconds", "processor_seconds")]

    costs = ["seconds", "processor seconds", "peak MB"]
    builds = [
        [result["checkpoints"], step, *seconds(one), *megabytes(one, "peak", "database", "release", "parquet")]
        for result in results
        for step in ("full build", "one more")
        for one in [result[step]]
    ]
    activity = [
        [result["checkpoints"], way, *seconds(one), *megabytes(one, "peak"), result["activity"]["differing_rows"]]
        for result in results
        for way in ("models", "pandas")
        if result["activity"]
        for one in [result["activity"][way]]
    ]
    models = [
        [name, *(f"{result['full build']['seconds_by_model'].get(name, 0):.2f}" for result in results)]
        for name in list(results[-1]["full build"]["seconds_by_model"])[:SLOWEST]
    ]
    models += [
        [f"all {kind}s", *(f"{sum(result['full build'][f'seconds_by_{kind}'].values()):.2f}" for result in results)]
        for kind in ("model", "test")
    ]
    raw = results[-1]["raw_bytes_per_checkpoint"]
    tables = [
        _table(["checkpoints", "step", *costs, "database MB", "release MB", "its parquet MB"], builds),
        _table(["checkpoints", "activity tables alone", *costs, "rows that differ"], activity),
        _table(["seconds of a full build", *(f"{result['checkpoints']} checkpoints" for result in results)], models),
        _table(["raw table", "bytes per checkpoint"], [*raw.items(), ["all", sum(raw.values())]]),
    ]
    return "\n".join(tables)


def _table(head: list[Any], rows: list[Any]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    main()
