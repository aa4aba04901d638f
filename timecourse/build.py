"""Build the warehouse: dbt, in process, over exactly the files that the commits list.

1. Read every commit and every series' declaration, and work out which extractions the build database has not seen.
2. Throw the build database away where it cannot be trusted: unreadable, or made by other models, versions or settings.
3. Run dbt: the attributions of unseen extractions are read, in batches that fit into memory, by the models that keep
   what one extraction gives; everything else is small and built again with the last batch.
4. Return every data test as a CheckResult. A test that fails is a result; a model that does not build is an error.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import pyarrow as pa
from platformdirs import user_cache_path

import timecourse
from timecourse.checks import CheckResult
from timecourse.errors import UsageError, UserError
from timecourse.lake import Commit, Contents, Lake
from timecourse.resampling import write_draws
from timecourse.warehouse_checks import check_results

PACKAGE = Path(timecourse.__file__).parent
"""Where `dbt_project/` and `models/` are found, side by side."""

_READ_ONCE = {
    "attributions": ("int_component_activities", "int_component_peaks"),
    "contributions": ("int_component_contributions",),
}
"""Raw tables too large to be read at every build, and the models that keep what was read of them: only the files of
extractions that one of these lacks are listed."""

_BATCH_SHARE = 0.08
"""New extractions are read together up to this share of the memory in raw bytes: those of 40 checkpoints of a 7B model
and 160 facts in 4 GB. More would spill."""

_BY_EXTRACTION = ("--select", "+tag:by_extraction", "--indirect-selection", "cautious")
"""The models that keep rows of single extractions, what they need, and the tests of all these."""

_DECLARED_SERIES = pa.schema({"series_id": pa.string(), "recipe_id": pa.string(), "duplicates": pa.string()})
_DECLARED_CHECKPOINTS = pa.schema(
    {
        "series_id": pa.string(),
        "checkpoint_name": pa.string(),
        "position": pa.int32(),
        "phase": pa.string(),
        "phase_index": pa.int32(),
        "stage": pa.string(),
        "stage_index": pa.int32(),
        "branch": pa.string(),
        "step": pa.int64(),
        "tokens_reported": pa.int64(),
        "tokens_computed": pa.int64(),
        "commit_sha": pa.string(),
        "weights_sha256": pa.string(),
        "bytes": pa.int64(),
        "status": pa.string(),
        "same_weights_as": pa.string(),
        "reason": pa.string(),
    }
)
"""What a series file says of one name: each a column of the build database's table `declared_checkpoints`."""


@dataclass(frozen=True)
class BuildResult:
    """What a build did.

    `checks` holds every dbt data test that ran; behind a failed test, dbt runs nothing more. `added_extractions` are
    those whose attributions were read, `removed_extractions` those that are no longer committed.
    """

    database: Path
    checks: tuple[CheckResult, ...]
    added_extractions: tuple[str, ...]
    removed_extractions: tuple[str, ...]
    is_full_refresh: bool


@dataclass(frozen=True)
class _Commit:
    extraction_id: str
    schema_version: int
    files: Mapping[str, Path]
    """Raw table -> its file; a table without rows is left out."""


def build_warehouse(
    lake: Path,
    *,
    theta: str,
    complete_series: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
    memory_gb: float = 4,
    contents: Contents | None = None,
) -> BuildResult:
    """Bring `<lake>/build/warehouse.duckdb` up to date with `<lake>/commits` and `<lake>/series`.

    `contents` is what these held when the caller read them; they are read here where it is not given.
    `theta` is the role threshold as decimal text, such as "0.1"; `complete_series` names the series that will not grow
    any more; `replicates` and `seed` are those of the bootstrap. What does not fit into `memory_gb` is written to disk.
    Only `<lake>/build` is written.

    Raises UsageError for a theta that is no decimal in (0, 1); UserError where nothing is committed, a commit or a
    series file cannot be read, another process holds the database, or a model fails.
    """
    contents = contents or Lake(lake).contents()
    commits = _commits(lake, contents.commits)
    if not commits:
        raise UserError(f"no checkpoint is committed in {lake}; extract one first")
    # dbt takes seconds to import, during which the database can be read.
    Thread(target=import_module, args=["dbt.cli.main"]).start()
    build = lake.resolve() / "build"
    build.mkdir(parents=True, exist_ok=True)
    database = build / "warehouse.duckdb"
    theta = _decimal_text(theta)
    layer_counts, component_limit = _sizes(commits)
    fingerprint = _fingerprint(theta, replicates, seed, component_limit)

    seen = _built_extractions(database, fingerprint)
    is_new = seen is None
    if seen is None:
        _remove(database)
        _create(database, fingerprint)
        seen = {table: frozenset() for table in _READ_ONCE}
    ablations = _commits(lake, contents.ablations)
    with duckdb.connect(str(database)) as connection:
        prompts = [_literal_path(commit.files["prompts"]) for commit in commits if "prompts" in commit.files]
        write_draws(connection, prompts, layer_counts, replicates=replicates, seed=seed)
    variables = {
        "theta": theta,
        "theta_grid": theta_grid(theta),
        "component_limit": component_limit,
        "complete_series": list(complete_series),
    }
    checks: dict[str, CheckResult] = {}
    read = seen
    *before, last = _batches(commits, seen["attributions"], memory_gb)
    for batch in [*before, last]:
        is_last = batch is last
        _write_inputs(database, batch, ablations if is_last else (), read, contents.declarations)
        results = _run_dbt(build, database, () if is_last else _BY_EXTRACTION, variables, memory_gb)
        for check in check_results(results, database):
            checks[check.check_id] = max(check, checks.get(check.check_id, check), key=_badness)
        if any(check.result == "fail" for check in checks.values()):
            break
        read = {table: ids | {commit.extraction_id for commit in batch} for table, ids in read.items()}

    committed = {commit.extraction_id for commit in commits}
    attributed = {commit.extraction_id for commit in commits if "attributions" in commit.files}
    return BuildResult(
        database=database,
        checks=tuple(checks.values()),
        added_extractions=tuple(sorted(attributed - seen["attributions"])),
        removed_extractions=tuple(sorted(seen["attributions"] - committed)),
        is_full_refresh=is_new,
    )


def marts(database: Path) -> list[str]:
    """Names of the tables that a release publishes, in the schema `main` of a build database; sorted."""
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.execute(
            "select table_name from duckdb_tables() where regexp_matches(table_name, '^(dim|fct)_') order by all"
        ).fetchall()
    return [name for (name,) in rows]


def _commits(lake: Path, commits: Sequence[Commit]) -> list[_Commit]:
    return [
        _Commit(
            extraction_id=commit.extraction_id,
            schema_version=commit.content["schema_version"],
            files={
                table: lake.resolve() / commit.content["directory"] / file["path"]
                for table, file in commit.content["files"].items()
                if file["rows"] > 0
            },
        )
        for commit in commits
    ]


def _batches(commits: Sequence[_Commit], seen: Collection[str], memory_gb: float) -> list[list[_Commit]]:
    """What is committed, with the new extractions coming in batches; the last of the lists has all of it.

    What is kept of an extraction depends on no other, so that a long series needs no more memory than a short one.
    """
    batches = [[commit for commit in commits if commit.extraction_id in seen]]
    free = limit = _BATCH_SHARE * memory_gb * 1e9
    for commit in commits:
        if commit.extraction_id not in seen:
            size = sum(commit.files[table].stat().st_size for table in _READ_ONCE if table in commit.files)
            if size > free < limit:
                batches.append([*batches[-1]])
                free = limit
            batches[-1].append(commit)
            free -= size
    return batches


def _badness(check: CheckResult) -> int:
    return ("pass", "warn", "fail").index(check.result)


def _write_inputs(
    database: Path,
    commits: Sequence[_Commit],
    ablations: Sequence[_Commit],
    seen: Mapping[str, frozenset[str]],
    declarations: Sequence[Mapping[str, Any]],
) -> None:
    """Leave in the database which files to read, which extractions to keep, and what the series' sources offered.

    The macros build_input and declared_rows read it.
    """
    raw_files: dict[str, dict[int, list[str]]] = {}
    for commit in [*commits, *ablations]:
        for table, path in commit.files.items():
            if commit.extraction_id in seen.get(table, ()):
                continue
            raw_files.setdefault(table, {}).setdefault(commit.schema_version, []).append(_literal_path(path))
    inputs = {"raw_files": raw_files, "committed_extractions": [commit.extraction_id for commit in commits]}
    with duckdb.connect(str(database)) as connection:
        connection.execute("create or replace table build_inputs (name varchar, value varchar)")
        connection.executemany(
            "insert into build_inputs values (?, ?)", [(k, json.dumps(v)) for k, v in inputs.items()]
        )
        for name, rows in _declared_tables(declarations).items():
            connection.register("rows", rows)
            connection.execute(f"create or replace table {name} as from rows")


def _declared_tables(declarations: Sequence[Mapping[str, Any]]) -> dict[str, pa.Table]:
    checkpoints = [
        {**checkpoint, "series_id": series["series_id"], "checkpoint_name": checkpoint["name"]}
        for series in declarations
        for checkpoint in series["checkpoints"]
    ]
    try:
        return {
            "declared_series": pa.Table.from_pylist(list(declarations), schema=_DECLARED_SERIES),
            "declared_checkpoints": pa.Table.from_pylist(checkpoints, schema=_DECLARED_CHECKPOINTS),
        }
    except pa.ArrowException as error:
        raise UserError(f"a series file holds a value of another type: {one_line(str(error))}") from error


def _literal_path(path: Path) -> str:
    """The path so that DuckDB sees no pattern in it, whatever the lake's directory is called."""
    return re.sub(r"[*?\[]", lambda match: f"[{match.group()}]", str(path))


def _decimal_text(theta: str) -> str:
    """Theta as SQL reads a decimal: digits, a point, digits."""
    try:
        value = Decimal(theta)
    except InvalidOperation as error:
        raise UsageError(f"theta must be a decimal such as 0.1, not {theta!r}") from error
    if not (value.is_finite() and 0 < value < 1):
        raise UsageError(f"theta must lie between 0 and 1, not {theta!r}")
    return f"{value.normalize():f}"


def theta_grid(theta: str) -> list[str]:
    """The thresholds for which roles are derived beside `theta`, itself included: half of it to twice as much."""
    grid = [Decimal(theta) * Decimal(factor) for factor in ("0.5", "0.75", "1", "1.5", "2")]
    return [f"{value.normalize():f}" for value in grid if value < 1]


def _sizes(commits: Sequence[_Commit]) -> tuple[list[int], int]:
    """The committed models' numbers of layers, and the largest number of components: the bits of a set of them.

    Sets of one length can be compared; a larger model that joins the lake means a full refresh.
    """
    files = [_literal_path(commit.files["checkpoint"]) for commit in commits]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select distinct layer_count, head_count from read_parquet(?, hive_partitioning = false)", [files]
        ).fetchall()
    return [layers for layers, _ in rows], max(layers * (heads + 1) for layers, heads in rows)


def _fingerprint(theta: str, replicates: int, seed: int, component_limit: int) -> str:
    """Hash of everything but the raw files that decides what the build database holds."""
    settings = f"theta={theta};replicates={replicates};seed={seed};components={component_limit}"
    return hashlib.sha256(f"{_models_sha256()};{settings}".encode()).hexdigest()


def _models_sha256() -> str:
    digest = hashlib.sha256()
    for room in ("models", "dbt_project"):
        for path in sorted((PACKAGE / room).rglob("*")):
            if path.suffix in (".sql", ".yml"):
                content = path.read_bytes()
                digest.update(f"{room}/{path.relative_to(PACKAGE / room)}:{len(content)}:".encode())
                digest.update(content)
    for package in ("dbt-core", "dbt-duckdb", "duckdb"):
        digest.update(f"{package}=={version(package)};".encode())
    return digest.hexdigest()


def _create(database: Path, fingerprint: str) -> None:
    with duckdb.connect(str(database)) as connection:
        connection.execute("create table build_fingerprint as select ? as fingerprint", [fingerprint])


def _built_extractions(database: Path, fingerprint: str) -> dict[str, frozenset[str]] | None:
    """Per raw table, the extractions whose rows every model holds; None for a missing, damaged or old database.

    Every table that a build goes on from is read, because DuckDB notices a damaged block only when it reads it.
    """
    if not database.exists():
        return None
    try:
        with duckdb.connect(str(database), read_only=True) as connection:
            if connection.execute("select fingerprint from build_fingerprint").fetchall() != [(fingerprint,)]:
                return None
            kept = """select distinct table_name from duckdb_tables() inner join duckdb_columns() using (table_name)
                where column_name like '%extraction_id'"""
            tables = [name for (name,) in connection.execute(kept).fetchall()]
            for name in tables:
                connection.execute(f'select max(hash(columns(*))) from main."{name}"').fetchall()
            return {
                table: frozenset.intersection(*(_extractions(connection, model, tables) for model in models))
                for table, models in _READ_ONCE.items()
            }
    except duckdb.Error as error:
        if "lock on file" in str(error):
            raise UserError(f"another process has {database} open; wait until it is done") from error
        return None


def _extractions(connection: duckdb.DuckDBPyConnection, model: str, tables: Sequence[str]) -> frozenset[str]:
    if model not in tables:
        return frozenset()
    rows = connection.execute(f'select distinct extraction_id from "{model}"').fetchall()
    return frozenset(extraction_id for (extraction_id,) in rows)


def _remove(database: Path) -> None:
    for path in (database, database.with_name(f"{database.name}.wal")):
        path.unlink(missing_ok=True)
    shutil.rmtree(database.with_name(f"{database.name}.tmp"), ignore_errors=True)


def _run_dbt(
    build: Path, database: Path, selection: Sequence[str], variables: Mapping[str, Any], memory_gb: float
) -> list[Any]:
    """Run `dbt build` without unit tests, of all models or a selection; returns dbt's results, one per model and data
    test that was reached.

    Raises UserError where a model or a test cannot run.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    arguments = ["--no-send-anonymous-usage-stats"]
    for option, path in (
        ("--project-dir", PACKAGE / "dbt_project"),
        ("--profiles-dir", PACKAGE / "dbt_project"),
        ("--target-path", build / "dbt"),
        ("--log-path", build / "dbt"),
    ):
        arguments += [option, str(path)]
    arguments += ["--quiet", "--no-write-json", "--log-level", "none", "--log-level-file", "none"]
    try:
        memory = f"{memory_gb * 1000:.0f}MB"
        with environment(TIMECOURSE_BUILD_DATABASE=str(database), TIMECOURSE_BUILD_MEMORY=memory):
            manifest = _parsed_models(arguments, variables)
            command = ["build", "--exclude-resource-type", "unit_test", *selection, *arguments]
            outcome = dbtRunner(manifest=manifest).invoke(command, vars=dict(variables))
    finally:
        DuckDBConnectionManager.close_all_connections()
    results = list(getattr(outcome.result, "results", None) or [])
    for result in results:
        if str(result.status) == "error":
            raise UserError(f"{result.node.resource_type} {result.node.name} failed: {one_line(result.message)}")
    if outcome.exception is not None:
        raise UserError(f"dbt failed: {one_line(str(outcome.exception))}")
    return results


def _parsed_models(arguments: Sequence[str], variables: Mapping[str, Any]) -> Any:
    """dbt's manifest of the models: parsing them takes longer than a small build, so it is kept in the user's cache.

    None where dbt finds a mistake in them, which it then says itself.
    """
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest

    kept = user_cache_path("timecourse") / f"models-{_models_sha256()[:32]}.msgpack"
    with suppress(OSError, ValueError, LookupError, TypeError):
        if (whole := Manifest.from_msgpack(kept.read_bytes())).nodes:  # what says nothing else is read as no models
            return whole
    manifest: Any = dbtRunner().invoke(["parse", *arguments], vars=dict(variables)).result
    if isinstance(manifest, Manifest):
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            beside = kept.with_suffix(f".{os.getpid()}")
            beside.write_bytes(manifest.to_msgpack())
            beside.replace(kept)
        return manifest
    return None


def one_line(message: str | None) -> str:
    """A message of dbt's or DuckDB's in one line, cut where it goes on for long."""
    return " ".join((message or "no message").split())[:500]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables that hold inside the block; dbt's profile is read from them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
