"""A reader that looks at a lake's current release again and again while runs write, die and heal beside it."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb

from tests.crash.child import loaded
from tests.crash.lakes import release_problems, sha256_of

PAUSE = 0.1
"""Seconds between two looks: the readers leave the processor to the runs."""


@dataclass
class Seen:
    """What a reader saw: how often it looked, which releases, and what was wrong."""

    looks: int = 0
    releases: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextmanager
def reading(lake: Path) -> Iterator[Seen]:
    """A reader process while the block runs; what it saw is there once the block is done."""
    seen = Seen()
    here, there = loaded.Pipe()
    process = loaded.Process(target=_read, args=(lake, there))
    process.start()
    there.close()
    try:
        yield seen
    finally:
        here.send("stop")
        found: Seen = here.recv()
        process.join()
        seen.looks, seen.releases, seen.problems = found.looks, found.releases, found.problems


def _read(lake: Path, parent: Connection) -> None:
    seen, choice = Seen(), random.Random(0)
    is_last = False
    while not is_last:
        is_last = parent.poll(PAUSE)  # what was published just before the end is looked at, too
        try:
            problems = _look(lake, seen, choice)
        except Exception as error:  # whatever a reader meets is what this process is there to find
            problems = [f"{type(error).__name__}: {error}"]
        seen.problems += [f"look {seen.looks}: {problem}" for problem in problems]
        seen.looks += 1
    parent.send(seen)


def _look(lake: Path, seen: Seen, choice: random.Random) -> list[str]:
    """Resolve `current` once and read the release as a user does; all of its files when it is a new one, else two."""
    link = lake / "current"
    if not link.is_symlink():
        return ["current is gone"] if seen.releases else []
    release = lake / link.readlink()
    manifest = json.loads((release / "release.json").read_text(encoding="utf-8"))
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        names = [name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()]
        counts = {name: connection.execute(f'select count(*) from "{name}"').fetchall()[0][0] for name in names}
    problems = [] if counts == manifest["rows"] else [f"{release.name}: rows {counts}, promised {manifest['rows']}"]
    if release.name not in seen.releases:
        seen.releases.append(release.name)
        return problems + [f"{release.name}: {problem}" for problem in release_problems(release)]
    some = choice.sample(sorted(manifest["files"]), 2)
    changed = [name for name in some if sha256_of(release / name) != manifest["files"][name]["sha256"]]
    return problems + [f"{release.name}: {name} has changed" for name in changed]
