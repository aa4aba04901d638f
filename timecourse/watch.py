"""Refreshing now and again: a process that waits, and starts a refresh of its own for each run."""

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

from rich.console import Console
from watchfiles import watch as watch_files

from timecourse.config import HUB, Settings
from timecourse.errors import UsageError
from timecourse.lake import LockedError

SETTLING_MS, SETTLED_MS = 2_000, 600_000
"""Milliseconds for which nothing must change before a directory counts as changed, since a checkpoint is many files;
and after which it does anyway."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_interval(text: str) -> timedelta:
    """`90s`, `30m`, `6h` or `1d`. Raises UsageError for anything else and for less than a second."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if match is None or int(match[1]) < 1:
        raise UsageError(f"--every {text!r} is no interval; say 90s, 30m, 6h or 1d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def watch(settings: Settings, every: timedelta, console: Console) -> None:
    """Refresh at once, then every so often and whenever a directory of checkpoints changes; until SIGTERM or SIGINT.

    A refresh that fails is tried again the next time. A signal ends the refresh that is at work, whose commits stay.
    """
    directories = [Path(where) for _, where in settings.phases if not where.startswith(HUB)]
    command = [sys.executable, "-m", "timecourse.cli", "refresh", *_flags()]
    stop, wake = Event(), Event()
    running: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: object) -> None:
        stop.set()
        wake.set()
        for process in running:
            process.terminate()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # From before the first refresh on, so that nothing that arrives during one is missed.
        Thread(target=_look, args=[directories, wake, stop], daemon=True).start()
        while not stop.is_set():
            wake.clear()
            process = subprocess.Popen(command)
            running.append(process)
            if stop.is_set():  # between the last look and the start
                process.terminate()
            code = process.wait()
            running.clear()
            if stop.is_set():
                break
            if code == LockedError.exit_code:
                console.print("another run is at work; looking again later")
            console.print(f"watching; the next refresh is in {every} at the latest", soft_wrap=True)
            wake.wait(every.total_seconds())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    console.print("stopped")


def _look(directories: Sequence[Path], wake: Event, stop: Event) -> None:
    """Set `wake` whenever something changed in one of the directories and then nothing more did; until `stop`."""
    existing = [directory for directory in directories if directory.is_dir()]
    if existing:
        for _ in watch_files(
            *existing, debounce=SETTLED_MS, step=SETTLING_MS, stop_event=stop, raise_interrupt=False
        ):  # fmt: skip
            wake.set()


def _flags() -> list[str]:
    """This command's own flags, less --every."""
    arguments = sys.argv[sys.argv.index("watch") + 1 :] if "watch" in sys.argv else []
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--every="):
            skip = False
        elif argument == "--every":
            skip = True
        else:
            kept.append(argument)
    return kept
