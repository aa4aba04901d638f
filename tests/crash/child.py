"""A command of timecourse in a process that is killed, or meets a fault, at a chosen step on its way through the lake.

A step is whatever the run does to a path in the lake: it opens a file for writing, renames, removes, makes a folder or
a link, asks for a sync, or has DuckDB or Arrow write a file natively. Python's audit events tell of the steps, so that
nothing in timecourse/ knows of them. A step's name says what is done, the path without what differs from run to run,
and by which function: `os.rename .current.new -> current in publish`; the second one of a name ends in ` #2`. The
fault happens before the step is done; at `torn open ...` after a few bytes were written.

As a command, for looking at one step (the tests start children by `start`, which has the libraries loaded already):
    python -m tests.crash.child --record FILE -- refresh --lake LAKE ...
    python -m tests.crash.child --at STEP --fault kill -- refresh --lake LAKE ...
    python -m tests.crash.child --at STEP --fault EIO -- refresh --lake LAKE ...
"""

import argparse
import errno
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

_PATHS = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.remove": (0,),
    "os.truncate": (0,),
    "os.link": (0, 1),
    "os.rename": (0, 1),  # also os.replace
    "os.symlink": (1,),
    "os.fsync": (0,),
    "duckdb.connect": (0,),
    "pyarrow.write_table": (0,),
}
"""Which arguments of an event are paths. The last three are no events of Python's: _tell_native_steps raises them."""

_FOLDERS = {"os.mkdir": 2, "os.rmdir": 1, "os.remove": 1, "os.rename": 2}
"""Which argument is the opened folder that a relative path is meant from: shutil.rmtree works so."""

_VARYING = (
    (r"build/dbt/.+", "build/dbt/<file>"),
    (r"/site/.+", "/site/<file>"),
    (r"[^/]+\.parquet", "<table>.parquet"),
    (r"^releases/[^/]+", "releases/<release>"),
    (r"^\.incoming/[^/]+", ".incoming/<id>"),
    (r"\d{4}-\d{2}\.jsonl", "<month>.jsonl"),
    (r"-[0-9a-f]{8}\b", ""),  # of a name's slug
    (r"\bstep\d+\b", "<checkpoint>"),
    (r"[0-9a-f]{64}|[0-9a-f]{32}", "<id>"),
)
"""What differs from run to run, or between files that are written alike, and what stands for it in a step's name."""


@dataclass(frozen=True)
class Fault:
    """What happens at a step: the first one in whose name the regular expression `step` is found.

    what: "kill", or the name of an error number such as "ENOSPC". lasts: whether all later steps fail likewise.
    instead: is called at the step, which then goes on as if nothing had happened.
    """

    step: str
    what: str = "kill"
    lasts: bool = False
    instead: Callable[[], object] | None = None


class _Steps:
    """An audit hook that counts steps, writes each one's name into `record`, and lets the fault happen."""

    def __init__(self, lake: Path, record: int | None, fault: Fault | None) -> None:
        self.lake = f"{lake.resolve()}/"
        self.record = record
        self.fault = fault
        self.seen: Counter[str] = Counter()
        self.is_looking = False
        self.is_failing = False

    def __call__(self, event: str, arguments: Sequence[Any]) -> None:
        if event not in _PATHS or self.is_looking:
            return
        self.is_looking = True  # what the hook itself opens is no step
        try:
            self._look(event, arguments)
        finally:
            self.is_looking = False

    def _look(self, event: str, arguments: Sequence[Any]) -> None:
        flags = arguments[2] or 0 if event == "open" else 0
        if event == "open" and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        folder = arguments[_FOLDERS[event]] if event in _FOLDERS else None
        paths = [_path(arguments[index], folder) for index in _PATHS[event]]
        if not all(path.startswith(self.lake) for path in paths):
            return
        name = f"{event} {' -> '.join(_normalised(path.removeprefix(self.lake)) for path in paths)} in {_function()}"
        self._step(name, event, paths[-1])
        if flags & os.O_TRUNC:
            self._step(f"torn {name}", event, paths[-1])

    def _step(self, name: str, event: str, path: str) -> None:
        self.seen[name] += 1
        name = name if self.seen[name] == 1 else f"{name} #{self.seen[name]}"
        if self.record is not None:
            os.write(self.record, f"{name}\n".encode())
        fault = self.fault
        if fault is None or not (self.is_failing or re.search(fault.step, name)):
            return
        self.fault = fault if fault.lasts else None
        self.is_failing = fault.lasts
        if fault.instead is not None:
            fault.instead()
            return
        if name.startswith("torn "):
            Path(path).write_bytes(b'{"')
        if fault.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise _error(event, getattr(errno, fault.what), path)


def _path(argument: Any, folder: int | None) -> str:
    """What an event calls a path, as an absolute path; that of an opened file where it is a number."""
    if isinstance(argument, int):
        return _opened(argument)
    path = os.fsdecode(argument) if isinstance(argument, (str, bytes, os.PathLike)) else ""
    within = Path() if folder is None or folder < 0 else Path(_opened(folder))
    return str((within / path).parent.resolve() / Path(path).name)  # a link is itself, not what it points at


def _opened(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def _normalised(path: str) -> str:
    for varying, name in _VARYING:
        path = re.sub(varying, name, path)
    return path


def _function() -> str:
    """The innermost function of timecourse that is being called."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("timecourse."):
            return frame.f_code.co_qualname.split(".<locals>")[0]
        frame = frame.f_back
    return "a library"


def _error(event: str, number: int, path: str) -> Exception:
    """The error as whoever does the step would raise it."""
    if event == "duckdb.connect":
        import duckdb

        return duckdb.IOException(f'IO Error: Cannot open file "{path}": {os.strerror(number)}')
    if event == "os.fsync":  # of an opened file: the system does not say which
        return OSError(number, os.strerror(number))
    return OSError(number, os.strerror(number), path)


def _tell_native_steps() -> None:
    """Raise audit events for what Python raises none: syncs, and files that DuckDB and Arrow write."""
    import duckdb
    import pyarrow.parquet

    connect: Callable[..., Any] = duckdb.connect
    write_table: Callable[..., Any] = pyarrow.parquet.write_table
    fsync = os.fsync

    def told_connect(database: Any = ":memory:", read_only: bool = False, **options: Any) -> Any:
        if not read_only and database != ":memory:":
            sys.audit("duckdb.connect", database)
        return connect(database, read_only=read_only, **options)

    def told_write_table(table: Any, where: Any, *arguments: Any, **options: Any) -> None:
        sys.audit("pyarrow.write_table", where)
        write_table(table, where, *arguments, **options)

    def told_fsync(descriptor: int) -> None:
        sys.audit("os.fsync", descriptor)
        fsync(descriptor)

    duckdb.connect = told_connect  # type: ignore[assignment]
    pyarrow.parquet.write_table = told_write_table
    os.fsync = told_fsync  # type: ignore[assignment]


def _shift_clock(seconds: float) -> None:
    """Let timecourse believe that it is `seconds` later; earlier where they are negative."""
    import timecourse.refresh  # noqa: F401 (and with it everything that asks for the time)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=seconds)

    for name, module in list(sys.modules.items()):
        if name.startswith("timecourse.") and getattr(module, "datetime", None) is datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]
    real = time.time
    time.time = lambda: real() + seconds


def run(
    arguments: Sequence[str], said: Path | None, record: Path | None, fault: Fault | None = None, clock: float = 0
) -> None:
    """Run a command of timecourse here; ends this process. What it says goes to `said`.out and .err."""
    os.environ["COLUMNS"] = "80"
    if said is not None:
        for number, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(said.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    from timecourse.cli import main

    _tell_native_steps()
    if clock:
        _shift_clock(clock)
    opened = None if record is None else os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    lake = Path(arguments[arguments.index("--lake") + 1])
    sys.addaudithook(_Steps(lake, opened, fault))
    main(list(arguments))


loaded = multiprocessing.get_context("forkserver")
"""Starts children as forks of a process that has loaded the libraries and done nothing else: loading takes longer than
everything that a small refresh does."""
loaded.set_forkserver_preload(["tests.crash.libraries"])


def start(
    arguments: Sequence[object],
    said: Path,
    record: Path | None = None,
    fault: Fault | None = None,
    clock: float = 0,
) -> BaseProcess:
    """Run a command in a child; `exitcode` is -SIGKILL for one that was killed."""
    child = loaded.Process(target=run, args=([str(one) for one in arguments], said, record, fault, clock))
    child.start()
    return child


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write every step's name into it")
    parser.add_argument(
        "--at", metavar="STEP", help="a regular expression: the fault happens at the first step that it is found in"
    )
    parser.add_argument("--fault", default="kill", help="kill, or the name of an error: EIO, ENOSPC, EROFS, ...")
    parser.add_argument("--lasts", action="store_true", help="every later step fails likewise")
    parser.add_argument("arguments", nargs="+", help="of timecourse, behind --")
    given = parser.parse_args()
    fault = None if given.at is None else Fault(given.at, given.fault, given.lasts)
    run(given.arguments, None, given.record, fault)


if __name__ == "__main__":
    main()
