"""Readers under load: processes that query the current release while releases are switched every second.

Each release is a real one whose series is renamed, everywhere in it, to that release's own mark: an answer that holds
two marks, or another one than the folder it came from, is a mixture. What a reader waits is the time to resolve
`current` and open the warehouse, less the time in which it ran or stood in the queue for a processor.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

import duckdb

from tests.crash.child import loaded
from tests.crash.lakes import make_lakes

MARKS = ("a", "b", "c")
KEPT = 3
"""Releases that are not removed; a reader that stays longer with one has it open while it is removed."""
LONGEST_WAIT = 0.1

_QUERY = """
select distinct series_id from dim_checkpoints inner join fct_component_histories using (series_id, checkpoint_id)
union select series_id from dim_series
union select series_id from fct_relation_accuracies
"""


@dataclass
class Opened:
    """What readers measured: seconds on the clock, and seconds of waiting, of every time a release was opened."""

    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    outlived: int = 0
    """How often a release was queried again after it had been removed."""


def under_load(release: Path, folder: Path, seconds: float, readers: int, every: float = 1.0) -> tuple[Opened, Opened]:
    """Let readers query a lake in `folder`, for a quarter of the time undisturbed, then while releases are switched.

    Returns what they measured in each of the two.
    """
    lake = folder / "lake"
    (lake / "releases").mkdir(parents=True)
    marked = [_marked(release, folder / mark, mark) for mark in MARKS]
    _switch(lake, marked[0], 0)
    found = []
    for is_switching, lasting in ((False, seconds / 4), (True, seconds)):
        pipes = [loaded.Pipe() for _ in range(readers)]
        processes = [loaded.Process(target=_read, args=(lake, there, seed)) for seed, (_, there) in enumerate(pipes)]
        for process in processes:
            process.start()
        for here, there in pipes:
            there.close()
            here.recv()  # it is reading
        end = time.monotonic() + lasting
        number = 0
        while (left := end - time.monotonic()) > 0:
            if is_switching:
                number += 1
                _switch(lake, marked[number % len(marked)], number)
            time.sleep(min(every, left))
        for here, _ in pipes:
            here.send("stop")
        found.append(_together([here.recv() for here, _ in pipes]))
        for process in processes:
            process.join()
    return found[0], found[1]


def _marked(release: Path, folder: Path, mark: str) -> Path:
    """A copy of a release whose series is called `mark`."""
    shutil.copytree(release, folder)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        columns = connection.execute("select table_name from duckdb_columns() where column_name = 'series_id'")
        for (table,) in columns.fetchall():
            connection.execute(f"update {table} set series_id = ?", [mark])
        connection.execute("checkpoint")
    return folder


def _switch(lake: Path, release: Path, number: int) -> None:
    """Publish a copy of a release as timecourse does, and remove the oldest ones as it does."""
    name = f"{number:06}-{release.name}"
    shutil.copytree(release, lake / ".incoming" / name)
    (lake / ".incoming" / name).rename(lake / "releases" / name)
    beside = lake / ".current.new"
    beside.symlink_to(Path("releases", name))
    beside.replace(lake / "current")
    for old in sorted((lake / "releases").iterdir())[:-KEPT]:
        shutil.rmtree(old)


def _read(lake: Path, parent: Connection, seed: int) -> None:
    choice, opened = random.Random(seed), Opened()
    parent.send("reading")
    while not parent.poll(choice.uniform(0.05, 0.15)):
        try:
            _look(lake, opened, parent, stays=KEPT + 1.5 if seed == 0 else 0)
        except Exception as error:  # whatever a reader meets is what this process is there to find
            opened.problems.append(f"reader {seed}: {type(error).__name__}: {error}")
    parent.send(opened)


def _look(lake: Path, opened: Opened, parent: Connection, stays: float) -> None:
    clock, busy = time.perf_counter(), _busy()
    release = lake / (lake / "current").readlink()
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True, config={"threads": 1}) as connection:
        opened.seconds.append(time.perf_counter() - clock)
        opened.waited.append(max(0.0, opened.seconds[-1] - (_busy() - busy)))
        _check(connection, release, opened)
        (rows,) = connection.execute("select count(*) from fct_check_results").fetchall()
        promised = json.loads((release / "release.json").read_text(encoding="utf-8"))["rows"]["fct_check_results"]
        if rows != (promised,):
            opened.problems.append(f"{release.name}: {rows} check results, promised {promised}")
        if stays:
            parent.poll(stays)
            opened.outlived += not release.exists()
            _check(connection, release, opened)


def _check(connection: duckdb.DuckDBPyConnection, release: Path, opened: Opened) -> None:
    marks = {mark for (mark,) in connection.execute(_QUERY).fetchall()}
    if marks != {release.name[-1]}:
        opened.problems.append(f"{release.name}: its answers hold {sorted(marks)}")


def _busy() -> float:
    """Seconds for which this thread ran or was ready to run while other processes had the processors."""
    try:
        ran, queued = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[:2]
    except OSError:
        return time.thread_time()
    return (int(ran) + int(queued)) / 1e9


def _together(parts: Sequence[Opened]) -> Opened:
    return Opened(
        seconds=[one for part in parts for one in part.seconds],
        waited=[one for part in parts for one in part.waited],
        problems=[one for part in parts for one in part.problems],
        outlived=sum(part.outlived for part in parts),
    )


def main() -> None:
    """See the module; prints a Markdown table, and exits 1 where a reader met an error or waited too long."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--readers", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="timecourse-load-") as folder:
        lakes = make_lakes(Path(folder) / "lakes", ("first",))
        release = (lakes.after("first") / "current").resolve()
        alone, switching = under_load(release, Path(folder), given.seconds, given.readers)
    lines = ["| releases | opened | median | 99 % | longest | longest wait |", "|---|---|---|---|---|---|"]
    for name, one in (("stay", alone), ("switched every second", switching)):
        percentiles = quantiles(one.seconds, n=100)
        times = (percentiles[49], percentiles[98], max(one.seconds), max(one.waited))
        lines.append(f"| {name} | {len(one.seconds)} | {' | '.join(f'{1000 * spent:.1f} ms' for spent in times)} |")
    problems = alone.problems + switching.problems
    lines += ["", f"{switching.outlived} releases were queried after they were removed; {len(problems)} errors."]
    sys.stdout.write("\n".join([*lines, *(f"- {problem}" for problem in problems[:20])]) + "\n")
    if problems or max(switching.waited) > LONGEST_WAIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
