"""The warehouse's own SQL, to be run on simulated rows; and where results are written."""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import jinja2
import numpy as np
import pyarrow as pa

from timecourse.build import _literal_path, theta_grid
from timecourse.extract.raw import ABLATION_TABLES, TABLES
from timecourse.resampling import write_draws

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out"

# Raw tables lie in the connection as `raw_<table>`, and what build.py declares under its own name; all extractions are
# taken in one statement.
_WITHOUT_DBT = """
{% macro raw_rows(table) %}raw_{{ table }}{% endmacro %}
{% macro declared_rows(table) %}{{ table }}{% endmacro %}
{% macro one_extraction_at_a_time(macro, source) %}{{ macro(source) }}{% endmacro %}
"""

_DECLARED = {
    "declared_series": "series_id varchar, recipe_id varchar, duplicates varchar",
    "declared_checkpoints": """series_id varchar, checkpoint_name varchar, position integer, phase varchar,
        phase_index integer, stage varchar, stage_index integer, branch varchar, step bigint, tokens_reported bigint,
        tokens_computed bigint, commit_sha varchar, weights_sha256 varchar, bytes bigint, status varchar,
        same_weights_as varchar, reason varchar""",
}


def render(template: str, needed: set[str] | None = None, **variables: Any) -> str:
    """SQL with the project's macros; `ref('x')` is the table x, which is added to `needed`."""

    def ref(model: str) -> str:
        if needed is not None:
            needed.add(model)
        return model

    context = {"ref": ref, "var": variables.__getitem__, "config": lambda **_: "", "is_incremental": lambda: False}
    environment, macros = _macros()
    return environment.from_string(template).render({**context, **vars(macros.make_module(context))}).strip()


@cache
def _macros() -> tuple[jinja2.Environment, jinja2.Template]:
    files = sorted((ROOT / "dbt_project/macros").glob("*.sql"))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, extensions=["jinja2.ext.do"])
    return environment, environment.from_string(
        "".join(path.read_text(encoding="utf-8") for path in files) + _WITHOUT_DBT
    )


def build(connection: duckdb.DuckDBPyConnection, *models: str, **variables: Any) -> None:
    """Make each model a table, from tables that the connection has under the models' names; those that it lacks are
    made before."""
    for model in models:
        (path,) = (ROOT / "models").rglob(f"{model}.sql")
        needed: set[str] = set()
        sql = render(path.read_text(encoding="utf-8"), needed, **variables)
        have = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
        build(connection, *sorted(needed - have), **variables)
        connection.execute(f"create or replace table {model} as {sql}")


def build_from_raw(
    connection: duckdb.DuckDBPyConnection,
    *models: str,
    theta: str = "0.1",
    replicates: int = 1000,
    seed: int = 0,
    kinds: Sequence[str] = ("observed", "bootstrap", "half", "bootstrap_half"),
    complete_series: Sequence[str] = (),
) -> None:
    """Draw facts, and make the models and all that they need, from the tables `raw_<table>` of the connection.

    Only the named kinds of draws are kept.
    """
    for name, schema in {**TABLES, **ABLATION_TABLES}.items():
        if not connection.execute("select 1 from duckdb_tables() where table_name = ?", [f"raw_{name}"]).fetchall():
            connection.register("rows", schema.empty_table())
            connection.execute(f"create table raw_{name} as from rows")
            connection.unregister("rows")
    for name, columns in _DECLARED.items():
        connection.execute(f"create table if not exists {name} ({columns})")
    sizes = connection.execute("select layer_count::integer, head_count::integer from raw_checkpoint").fetchall()
    with TemporaryDirectory() as directory:
        prompts = Path(directory) / "prompts.parquet"
        connection.execute(f"copy (select extraction_id, relation_id, fact_id from raw_prompts) to '{prompts}'")
        write_draws(connection, [prompts], (layers for layers, _ in sizes), replicates=replicates, seed=seed)
    connection.execute("delete from drawn_weights where not list_contains(?, resample_kind)", [list(kinds)])
    build(
        connection,
        *models,
        theta=theta,
        theta_grid=theta_grid(theta),
        component_limit=max(layers * (heads + 1) for layers, heads in sizes),
        complete_series=list(complete_series),
    )


def read_lake(connection: duckdb.DuckDBPyConnection, lake: Path) -> None:
    """Make the tables `raw_<table>` of every file of a lake, in which nothing was withdrawn."""
    for name in TABLES | ABLATION_TABLES:
        files = [_literal_path(path) for path in sorted((lake / "raw").rglob(f"{name}.parquet"))]
        if files:
            connection.execute(
                f"create table raw_{name} as from read_parquet(?, hive_partitioning = false, union_by_name = true)",
                [files],
            )


def fill(connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, Any]) -> None:
    """Make a table of columns; a single value stands for every row."""
    count = max(len(column) for column in columns.values() if isinstance(column, (list, np.ndarray)))
    rows = pa.table(
        {
            name: column if isinstance(column, (list, np.ndarray)) else pa.repeat(column, count)
            for name, column in columns.items()
        }
    )
    connection.register("rows", rows)
    connection.execute(f"create or replace table {table} as from rows")
    connection.unregister("rows")


def report(name: str, rows: Sequence[Mapping[str, Any]], words: str) -> None:
    """Write rows as `out/<name>.json` and as a Markdown table, and print that."""
    lines = [words, "", "| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (OUT / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(lines) + "\n\n")
