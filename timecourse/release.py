"""Publishing: the marts of the build database become an immutable release, and `current` points at it atomically."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

import timecourse
from timecourse.build import marts
from timecourse.checks import CheckResult
from timecourse.dictionary import write_dictionary
from timecourse.errors import GateError, UserError
from timecourse.lake import Contents, Lake
from timecourse.lake.files import sha256_of, sync, sync_tree
from timecourse.releases import Release, current, list_releases, point_current_at

_CODE = (".", "models", "dbt_project", "expectations", "reports")
"""Folders of the package whose files decide what a release holds; `.` is the run itself."""


def input_sha256(contents: Contents, derivation: Mapping[str, Any]) -> str:
    """Hash of everything a release depends on: what is committed and offered, how marts are derived, and the code."""
    package = Path(timecourse.__file__).parent
    code = {
        str(file.relative_to(package)): sha256_of(file)
        for room in _CODE
        for file in sorted((package / room).glob("*.py" if room == "." else "**/*"))
        if file.is_file() and file.suffix != ".pyc"
    }
    content = {
        "commits": sorted((commit.checkpoint_id, commit.extraction_id) for commit in contents.commits),
        "ablations": sorted(ablation.content["ablation_id"] for ablation in contents.ablations),
        "declarations": contents.declarations,
        "derivation": dict(derivation),
        "code": code,
        "versions": _versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def made_before(lake: Lake, contents: Contents, derivation: Mapping[str, Any]) -> Release | None:
    """The newest release, where it was made from exactly this and is whole."""
    releases = list_releases(lake)
    if not releases or releases[0].manifest["input_sha256"] != input_sha256(contents, derivation):
        return None
    return None if releases[0].damages() else releases[0]


def publish(
    lake: Lake, contents: Contents, derivation: Mapping[str, Any], warehouse_checks: Sequence[CheckResult]
) -> Release:
    """Make a release from the build database, which was made from `contents`, and switch `current` to it.

    Marts are written by CTAS into a new file (no view, no write-ahead log), gated, copied to parquet, described,
    rendered. Raises GateError, with the last release kept, when a check of severity `fail` fails.
    """
    from timecourse.expectations.gate import gate_release
    from timecourse.reports.site import render_site

    inputs = input_sha256(contents, derivation)
    before = current(lake)
    place = _free_place(lake, inputs)
    sequence = max((release.order[0] for release in list_releases(lake)), default=0) + 1
    with lake.incoming() as folder:
        warehouse = folder / "warehouse.duckdb"
        rows = _copy_marts(lake.build / "warehouse.duckdb", warehouse)
        committed = {commit.checkpoint_id: commit.extraction_id for commit in contents.commits}
        release_checks = gate_release(
            warehouse, None if before is None else before.path / "warehouse.duckdb", committed=committed
        )
        raise_if_failed("the release", release_checks)
        raw_checks = [check for commit in [*contents.commits, *contents.ablations] for check in commit.checks]
        rows["fct_check_results"] = _write_checks(warehouse, [*raw_checks, *release_checks, *warehouse_checks])
        _write_parquet(warehouse, folder / "marts")
        write_dictionary(folder / "dictionary.json")
        render_site(warehouse, folder / "site", place.name)
        manifest = {
            "release_id": place.name,
            "sequence": sequence,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "input_sha256": inputs,
            "settings": {**derivation, "complete_series": contents.complete_series},
            "extractions": committed,
            "reference_checkpoints": _references(warehouse),
            "versions": _versions(),
            "rows": rows,
            "files": {
                str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            },
        }
        (folder / "release.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        sync_tree(folder)
        folder.rename(place)
    sync(lake.releases)
    point_current_at(lake, place)
    return Release(place)


def _free_place(lake: Lake, inputs: str) -> Path:
    """A folder that is not there yet, named after the time and what the release is made from."""
    name = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}-{inputs[:8]}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(lake.releases / one for one in names if not (lake.releases / one).exists())


def render_report(lake: Lake, output: Path) -> None:
    """Render the current release's report into `output`. Raises UserError where `output` holds something else."""
    from timecourse.reports.site import render_site

    release = lake.current_release()
    if output.exists() and not (output / "index.html").is_file() and any(output.iterdir()):
        raise UserError(f"the folder {str(output)!r} holds something else than a report; name an empty one")
    render_site(release / "warehouse.duckdb", output)


def write_figures(lake: Lake, output: Path) -> list[Path]:
    """Write the charts of the current release's report into `output` as SVG files; returns them.

    Raises UserError where `output` holds something else than charts.
    """
    from timecourse.reports.site import render_figures

    release = lake.current_release()
    if output.exists() and any(path.is_file() and path.suffix != ".svg" for path in output.iterdir()):
        raise UserError(f"the folder {str(output)!r} holds something else than charts; name an empty one")
    return render_figures(release / "warehouse.duckdb", output)


def raise_if_failed(what: str, checks: Sequence[CheckResult]) -> None:
    """Raise GateError, with the failed checks, when one of severity `fail` failed."""
    if failed := [check for check in checks if check.result == "fail"]:
        first = failed[0]
        raise GateError(
            f"{what} failed {len(failed)} of {len(checks)} checks, first {first.check_id}: {first.rule} "
            f"({first.failing_row_count} failing rows)",
            failed,
        )


def _copy_marts(build: Path, warehouse: Path) -> dict[str, int]:
    rows = {}
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(f"attach {_literal(build)} as build (read_only)")
        for name in marts(build):
            connection.execute(f'create table "{name}" as from build.main."{name}"')
            rows[name] = _count(connection, name)
        connection.execute("detach build")
        connection.execute("checkpoint")
    return rows


def _write_checks(warehouse: Path, checks: Sequence[CheckResult]) -> int:
    names = [field.name for field in fields(CheckResult)]
    types = {name: pa.int64() if name == "failing_row_count" else pa.string() for name in names}
    rows = pa.Table.from_pylist([asdict(check) for check in checks], schema=pa.schema(types.items()))
    with duckdb.connect(str(warehouse)) as connection:
        connection.register("rows", rows)
        connection.execute("create table fct_check_results as from rows")
        connection.execute("checkpoint")
    return len(checks)


def _write_parquet(warehouse: Path, folder: Path) -> None:
    folder.mkdir()
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        names = [name for (name,) in connection.execute("select table_name from duckdb_tables() order by 1").fetchall()]
        for name in names:
            connection.execute(
                f'copy "{name}" to {_literal(folder / f"{name}.parquet")} (format parquet, compression zstd)'
            )


def _references(warehouse: Path) -> list[dict[str, Any]]:
    """What every overlap of this release was measured against: one entry per series, setting and phase."""
    names = ("series_id", "setting_id", "phase", "reference_checkpoint_id", "is_provisional")
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        rows = connection.execute(f"select distinct {', '.join(names)} from dim_checkpoints order by all").fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def _versions() -> dict[str, str]:
    names = ("timecourse", "dbt-core", "dbt-duckdb", "duckdb", "great-expectations", "altair", "polars", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row: Any = connection.execute(f'select count(*) from "{table}"').fetchone()
    return int(row[0])


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
