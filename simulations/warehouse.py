"""The warehouse's own SQL, to be run on simulated rows; and where results are written."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "out"


def render(template: str) -> str:
    """SQL with the project's macros; `ref('x')` is the table x."""
    macros = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "dbt_project/macros").glob("*.sql")))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, extensions=["jinja2.ext.do"])
    return environment.from_string(macros + template).render(ref=str).strip()


def build(connection: duckdb.DuckDBPyConnection, *models: str) -> None:
    """Make each model a table, from tables that the connection has under the models' names."""
    for model in models:
        (path,) = (ROOT / "models").rglob(f"{model}.sql")
        connection.execute(f"create or replace table {model} as {render(path.read_text(encoding='utf-8'))}")


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
