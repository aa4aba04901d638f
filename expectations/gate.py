"""The gates: a raw extraction or ablation before it is committed, and a release before it is published.

A gate returns what it found and decides nothing: whoever asked looks for results that are `fail`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from timecourse.checks import CheckResult
from timecourse.expectations import (
    ablation_sets,
    ablations,
    attributions,
    checkpoint,
    contributions,
    predictions,
    prompt_tokens,
    prompts,
    release,
)
from timecourse.expectations.rules import Rule, evaluate, holds

_RAW_TABLES = {
    "checkpoint": checkpoint.RULES,
    "prompts": prompts.RULES,
    "prompt_tokens": prompt_tokens.RULES,
    "attributions": attributions.RULES,
    "contributions": contributions.RULES,
    "predictions": predictions.RULES,
}

_ABLATION_TABLES = {"ablation_sets": ablation_sets.RULES, "ablations": ablations.RULES}

_COMPONENTS = """
    create view layers as
    select unnest(range(layer_count)) as layer, head_count, starts_with(topology, 'sequential') as is_sequential
    from checkpoint;

    -- The components of the model.
    create view components as
    select 'L' || layer || 'H' || unnest(range(head_count)) as component_id, 'head' as component_kind, layer from layers
    union all
    select 'L' || layer || 'F', 'ffn', layer from layers;

    -- What the table of contributions has rows for, and the sum that each is a part of. Components are parts of the
    -- layer's one sum, or where blocks are sequential of two, and so is the residual.
    create view parts as
    select
        component_id,
        layer,
        false as is_residual,
        if(component_kind = 'ffn' and is_sequential, 'ffn', 'attention') as sum_name
    from components
    inner join layers using (layer)
    union all
    select 'L' || layer || 'RA', layer, true, 'attention' from layers
    union all
    select 'L' || layer || 'RF', layer, true, 'ffn' from layers where is_sequential
    union all
    -- What is left of an attention bias, where the model has one: then everywhere.
    select distinct component_id, layer, false, 'attention'
    from contributions
    inner join layers on contributions.component_id = 'L' || layer || 'BA';
"""


def gate_extraction(directory: Path) -> list[CheckResult]:
    """Judge one extraction: the six parquet files in `directory`. Takes about a second for 320 short prompts.

    Never raises for bad data: where a file is missing or cannot be read, that is the result.
    """
    return _gate(dict.fromkeys(_RAW_TABLES, directory), _RAW_TABLES)


def gate_ablation(directory: Path, extraction: Path) -> list[CheckResult]:
    """Judge what silencing components did: the two parquet files in `directory`, against the extraction's own."""
    folders = dict.fromkeys(_RAW_TABLES, extraction) | dict.fromkeys(_ABLATION_TABLES, directory)
    return _gate(folders, _ABLATION_TABLES)


def _gate(folders: Mapping[str, Path], rules_of: Mapping[str, Sequence[Rule]]) -> list[CheckResult]:
    """Judge tables by their rules, which may read every table of `folders`: table -> the folder that its file is in."""
    with duckdb.connect() as connection:
        errors = {table: _register(connection, table, folder / f"{table}.parquet") for table, folder in folders.items()}
        if any(errors.values()):
            return _unreadable(connection, errors)
        connection.execute(_COMPONENTS)
        checkpoint_id = _checkpoint_id(connection)
        return [
            result
            for table, rules in rules_of.items()
            for result in evaluate(connection, table, rules, "raw", checkpoint_id)
        ]


def gate_release(
    warehouse: Path, previous: Path | None, *, committed: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Judge the marts in the DuckDB file `warehouse` before they are published.

    `previous` is the file of the release before it, with which it is compared; a file that cannot be read only warns.
    `committed` maps each committed checkpoint's id to its extraction's: given, the release must hold exactly these.
    """
    tables = dict(release.RULES)
    with duckdb.connect() as connection:
        connection.execute(f"attach {_literal(warehouse)} as warehouse (read_only)")
        connection.execute("use warehouse")
        if committed is not None:
            committed_rows = {"checkpoint_id": list(committed), "extraction_id": list(committed.values())}
            schema = pa.schema({"checkpoint_id": pa.string(), "extraction_id": pa.string()})
            connection.register("committed", pa.table(committed_rows, schema=schema))
            tables["dim_checkpoints"] += release.COMMITTED
        if previous is not None and previous.is_file():
            tables["dim_checkpoints"] += release.SINCE_PREVIOUS
            with suppress(duckdb.Error):  # the rules that read it say so
                connection.execute(f"attach {_literal(previous)} as previous (read_only)")
        return [result for table, rules in tables.items() for result in evaluate(connection, table, rules, "release")]


def _register(connection: duckdb.DuckDBPyConnection, table: str, path: Path) -> str | None:
    """Make one raw file known under its table's name; returns what is wrong where it cannot be read."""
    try:
        connection.register(table, pq.ParquetFile(path).read())
    except (OSError, pa.ArrowException) as error:
        return f"{path.name} cannot be read: {str(error).splitlines()[0]}"
    return None


def _unreadable(connection: duckdb.DuckDBPyConnection, errors: Mapping[str, str | None]) -> list[CheckResult]:
    results = []
    for table, error in errors.items():
        files = pa.table({"file": [f"{table}.parquet"], "error": [error]}, schema=_FILES)
        connection.register("files", files)
        rule = holds(
            "file_is_readable", "the file is a whole parquet file", "files", "error is null", ("file", "error")
        )
        results += evaluate(connection, table, [rule], "raw")
    return results


_FILES = pa.schema({"file": pa.string(), "error": pa.string()})


def _checkpoint_id(connection: duckdb.DuckDBPyConnection) -> str | None:
    ((checkpoint_id,),) = connection.execute("select min(checkpoint_id) from checkpoint").fetchall()
    return None if checkpoint_id is None else str(checkpoint_id)


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
