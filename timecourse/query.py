"""Asking the current release: SQL, opened read-only, as a table or as data."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb
from rich import box
from rich.console import Console
from rich.table import Table

from timecourse.errors import UsageError, UserError
from timecourse.lake import Lake

if TYPE_CHECKING:
    import polars

Format = Literal["table", "csv", "json", "parquet"]
UNLIMITED = 100_000
"""Characters: tables are as wide as their content, whatever the terminal."""

_Config = dict[str, str | bool | int | float | list[str]]
_ALWAYS: _Config = {"python_enable_replacements": False}
"""A name in a statement is a table of the release, never a variable of this program."""
_CLOSED: _Config = _ALWAYS | {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "temp_directory": "",  # a result is held in memory: nothing is spilled beside the release
    "lock_configuration": True,
}
"""DuckDB's switches that leave a statement no file, network or extension but the release, and lock themselves."""


def query(lake: Lake, sql: str, parameters: list[str] | None = None, *, is_unsafe: bool = False) -> "polars.DataFrame":
    """The result of one statement on the current release, which stays read-only even where `is_unsafe`.

    Raises UserError with the database's message, one line.
    """
    import polars

    release = lake.current_release() / "warehouse.duckdb"
    try:
        with duckdb.connect(str(release), read_only=True, config=_ALWAYS if is_unsafe else _CLOSED) as connection:
            relation = connection.sql(sql, params=parameters)
            if relation is None:
                raise UsageError("the statement returns no rows; say a select")
            rows: polars.DataFrame = relation.pl()
            return rows
    except duckdb.PermissionException as error:
        raise UserError(
            f"the statement was refused: {_one_line(error)}{'' if is_unsafe else '; --unsafe allows it'}"
        ) from error
    except duckdb.Error as error:
        raise UserError(f"the query failed: {_one_line(error)}") from error
    except polars.exceptions.PolarsError as error:  # such as an interval or a union
        raise UserError(
            f"a column of the result has a type that is not supported; cast it: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def history(lake: Lake, component: str) -> "polars.DataFrame":
    """One component's roles over training. Raises UserError for a name that is none or that no release holds."""
    if not re.fullmatch(r"L\d+(H\d+|F)", component):
        raise UsageError(f"{component!r} is no component; say L3H5 (layer 3, head 5) or L3F (layer 3's FFN)")
    rows = query(
        lake,
        """
        select
            series_id, setting_id, tau_id, checkpoint_name as checkpoint, step, primary_role, has_changed,
            round(rate_all, 3) as rate_all, round(rate_entity, 3) as rate_entity,
            round(rate_relation_max, 3) as rate_relation_max, relation_max_id as relation,
            relation_answer_count, fact_answer_count
        from fct_component_histories
        join dim_checkpoints using (series_id, setting_id, checkpoint_id)
        where component_id = ?
        order by series_id, setting_id, tau_id, checkpoint_index
        """,
        [component],
    )
    if rows.is_empty():
        raise UserError(f"the current release holds no component {component!r}")
    return rows


def show(rows: "polars.DataFrame", kind: Format, output: Path | None) -> None:
    """Print rows, or write them to `output`. Parquet needs an output unless it is piped on."""
    if kind == "table" and output is None:
        table = Table(*rows.columns, box=box.SIMPLE_HEAD)
        for row in rows.iter_rows():
            table.add_row(*("" if value is None else _cell(value) for value in row))
        console = Console(width=UNLIMITED, highlight=False)  # a number cut off looks like another number
        console.print(table)
        console.print(f"{rows.height} row{'' if rows.height == 1 else 's'}")
        return
    if kind == "parquet" and output is None and sys.stdout.isatty():
        raise UsageError("parquet is not for the terminal; say --output FILE, or pipe it on")
    target = sys.stdout.buffer if output is None else output
    if kind == "parquet":
        rows.write_parquet(target)
    elif kind == "json":
        rows.write_json(target)  # type: ignore[arg-type]  # its annotation is narrower than what it takes
    elif kind == "csv":
        rows.write_csv(target)
    else:
        raise UsageError("--output needs --format csv, json or parquet")


def _cell(value: object) -> str:
    from rich.markup import escape

    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))
