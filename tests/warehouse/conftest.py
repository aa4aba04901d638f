"""Builds that several tests look at; each is made once."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.warehouse.drawn_lake import DrawnLake, build_drawn_lake
from tests.warehouse.learning_lake import Course, commit_courses
from tests.warehouse.random_lake import PARTITIONS, THETA, commit_random_lake
from tests.warehouse.raw_lake import commit_golden
from tests.warehouse.roles_twin import Checkpoint
from timecourse.build import BuildResult, build_warehouse, marts

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
Snapshot = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Golden:
    """A lake of the reference results after two builds: of three checkpoints, then of the fourth as well."""

    lake: Path
    directories: dict[str, Path]
    first: BuildResult
    second: BuildResult
    read_by_second: str
    """The compiled SQL with which the second build read attributions."""
    snapshot: Snapshot
    """The marts after the second build."""


@dataclass(frozen=True)
class RandomLake:
    """One build over random activities and over accuracies that take every course."""

    result: BuildResult
    twins: dict[tuple[str, str, str], list[Checkpoint]]
    courses: list[Course]


def snapshot(database: Path) -> Snapshot:
    """Every mart's rows, in an order of their own."""
    names = marts(database)
    with duckdb.connect(str(database), read_only=True) as connection:
        return {name: connection.execute(f"from {name} order by all").fetchall() for name in names}


@pytest.fixture(scope="session")
def golden(made_once: MadeOnce) -> Golden:
    def fill(folder: Path) -> None:
        (folder / "golden.pickle").write_bytes(pickle.dumps(make_golden(folder / "it's a [golden] lake*")))

    found: Golden = pickle.loads((made_once("golden", fill) / "golden.pickle").read_bytes())
    return found


def make_golden(lake: Path) -> Golden:
    lake.mkdir()
    directories = commit_golden(lake, ["step0-tokens0B", "step60-tokens1B", "step200-tokens2B"])
    first = build_warehouse(lake, theta="0.1", complete_series=[], replicates=50)
    # What was built is not read again: its files may as well be garbage.
    for directory in directories.values():
        (directory / "attributions.parquet").rename(directory / "kept")
        (directory / "attributions.parquet").write_bytes(b"garbage")
    directories |= commit_golden(lake, ["main"])
    second = build_warehouse(lake, theta="0.1", complete_series=["golden"], replicates=50)
    (compiled,) = lake.glob("build/dbt/compiled/**/stg_raw__attributions.sql")
    for directory in directories.values():
        if (directory / "kept").exists():
            (directory / "kept").replace(directory / "attributions.parquet")
    return Golden(lake, directories, first, second, compiled.read_text(), snapshot(second.database))


@pytest.fixture(scope="session")
def random_lake(made_once: MadeOnce) -> RandomLake:
    def fill(lake: Path) -> None:
        twins = commit_random_lake(lake)
        courses = commit_courses(lake)
        result = build_warehouse(lake, theta=THETA, complete_series=[PARTITIONS[0].series_id], replicates=200)
        (lake / "random.pickle").write_bytes(pickle.dumps(RandomLake(result, twins, courses)))

    found: RandomLake = pickle.loads((made_once("random", fill) / "random.pickle").read_bytes())
    return found


@pytest.fixture(scope="session")
def drawn_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrawnLake]:
    with duckdb.connect() as connection:
        yield build_drawn_lake(tmp_path_factory.mktemp("draws"), connection)
