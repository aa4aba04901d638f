"""However the warehouse came about, its marts are those that a build from nothing makes."""

import shutil
from pathlib import Path

import duckdb
import pytest

from simulations import warehouse
from tests.warehouse.conftest import Golden, snapshot
from tests.warehouse.raw_lake import commit_golden, commit_path
from timecourse import build
from timecourse.build import build_warehouse


def test_a_new_checkpoint_is_all_that_is_read(golden: Golden) -> None:
    assert golden.first.is_full_refresh and not golden.second.is_full_refresh
    assert golden.second.added_extractions == (golden.directories["main"].name,)
    assert golden.read_by_second.count(".parquet") == 1
    assert golden.directories["main"].name in golden.read_by_second


@pytest.mark.slow
def test_a_damaged_database_is_built_again(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The incremental build equals one from nothing, here made necessary by a broken disk, and in batches of two."""
    sizes = [
        (directory / f"{table}.parquet").stat().st_size
        for directory in golden.directories.values()
        for table in ("attributions", "contributions")
    ]
    monkeypatch.setattr(build, "_BATCH_SHARE", 0.6 * sum(sizes) / 4e9)
    run, passes = build._run_dbt, []
    monkeypatch.setattr(build, "_run_dbt", lambda *arguments: passes.append(arguments[2]) or run(*arguments))
    lake = shutil.copytree(golden.lake, tmp_path / "lake")
    database = lake / "build" / "warehouse.duckdb"
    with duckdb.connect(str(database), read_only=True) as connection:
        scores = (
            "from pragma_storage_info('int_component_activities') where column_name = 'score_sum' and block_id >= 0"
        )
        (block,) = connection.execute(f"select min(block_id) {scores}").fetchall()[0]
    with database.open("r+b") as file:
        file.seek(3 * 4096 + block * 256 * 1024)  # after the three headers, blocks of 256 KiB
        file.write(b"damage")
    result = build_warehouse(lake, theta="0.1", complete_series=["golden"], replicates=50)
    assert result.is_full_refresh
    assert len(result.added_extractions) == 4
    assert [bool(selection) for selection in passes] == [True, False]
    assert snapshot(result.database) == golden.snapshot


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_file_that_is_no_database_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(content)
    assert build._built_extractions(tmp_path / "warehouse.duckdb", "fingerprint") is None


def test_withdrawn_and_replaced_checkpoints(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = shutil.copytree(golden.lake, tmp_path / "lake")
    unchanged = {name: golden.directories[name].name for name in ("step200-tokens2B", "main")}
    gone = {name: golden.directories[name].name for name in ("step0-tokens0B", "step60-tokens1B")}
    commit_path(lake, "golden", "step0-tokens0B").unlink()
    new = commit_golden(lake, ["step60-tokens1B"], edition="again", active_tau_ids=["0.05"]).popitem()[1].name
    for extraction_id in unchanged.values():
        (path,) = lake.glob(f"raw/*/*/{extraction_id}/attributions.parquet")
        path.rename(path.with_suffix(".kept"))

    result = build_warehouse(lake, theta="0.1", complete_series=["golden"], replicates=50)
    assert not result.is_full_refresh
    assert result.added_extractions == (new,)
    assert result.removed_extractions == tuple(sorted(gone.values()))
    with duckdb.connect(str(result.database), read_only=True) as connection:
        kept = connection.execute("select distinct extraction_id from int_component_activities").fetchall()
        first = connection.execute("select checkpoint_name, previous_checkpoint_id from dim_checkpoints").fetchall()
    assert {extraction_id for (extraction_id,) in kept} == {new, *unchanged.values()}
    assert ("step60-tokens1B", None) in first
    after = snapshot(result.database)
    assert after != golden.snapshot

    # The same from nothing, because a model was edited.
    for path in lake.glob("raw/*/*/*/attributions.kept"):
        path.rename(path.with_suffix(".parquet"))
    for room in ("models", "dbt_project"):
        shutil.copytree(build.PACKAGE / room, tmp_path / "package" / room)
    model = tmp_path / "package" / "models" / "intermediate" / "int_component_activities.sql"
    model.write_text(model.read_text() + "-- edited\n")
    monkeypatch.setattr(build, "PACKAGE", tmp_path / "package")
    files = sorted((tmp_path / "package").rglob("*"))
    result = build_warehouse(lake, theta="0.1", complete_series=["golden"], replicates=50)
    assert result.is_full_refresh
    assert snapshot(result.database) == after
    assert sorted((tmp_path / "package").rglob("*")) == files, "a build writes into its own project"


@pytest.mark.slow
def test_what_an_interrupted_build_left_out_is_made_up_for(golden: Golden, tmp_path: Path) -> None:
    lake = shutil.copytree(golden.lake, tmp_path / "lake")
    left_out = {
        "step0-tokens0B": ["int_component_peaks"],
        "step60-tokens1B": ["int_component_vectors", "int_resampled_role_sets", "int_scope_rates"],
        "step200-tokens2B": [
            "int_role_memberships",
            "int_component_changes",
            "int_resampled_role_sets",
            "int_role_confidences",
            "int_expected_role_counts",
        ],
        "main": ["int_component_activities"],
    }
    with duckdb.connect(str(lake / "build" / "warehouse.duckdb")) as connection:
        for name, models in left_out.items():
            for model in models:
                (count,) = connection.execute(
                    f"delete from {model} where extraction_id = ?", [golden.directories[name].name]
                ).fetchall()[0]
                assert count > 0
    result = build_warehouse(lake, theta="0.1", complete_series=["golden"], replicates=50)
    assert not result.is_full_refresh
    assert snapshot(result.database) == golden.snapshot


def test_without_dbt(golden: Golden) -> None:
    """The simulations' way of building gives the same marts, although it takes all extractions in one statement."""
    with duckdb.connect() as connection:
        warehouse.read_lake(connection, golden.lake)
        warehouse.build_from_raw(connection, *golden.snapshot, complete_series=["golden"], replicates=50)
        for name, rows in golden.snapshot.items():
            assert connection.execute(f"from {name} order by all").fetchall() == rows, name


@pytest.mark.slow
def test_nothing_new(golden: Golden, tmp_path: Path) -> None:
    """Only what was asked otherwise differs: here that the series is not complete."""
    lake = shutil.copytree(golden.lake, tmp_path / "lake")
    result = build_warehouse(lake, theta="0.10", complete_series=[], replicates=50)
    assert not result.is_full_refresh and not result.added_extractions and not result.removed_extractions
    again = snapshot(result.database)
    assert {name for name in again if again[name] != golden.snapshot[name]} == {"dim_checkpoints"}
    with duckdb.connect(str(result.database), read_only=True) as connection:
        assert connection.execute("select distinct is_provisional from dim_checkpoints").fetchall() == [(True,)]
