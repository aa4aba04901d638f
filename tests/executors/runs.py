"""Runs of timecourse in processes of their own, and the processes that are at work for them, to be killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 600
"""How long is waited for anything, on a machine that has other things to do."""


def start(*arguments: object, said: Path) -> subprocess.Popen[bytes]:
    """A command of timecourse, started as a user starts it; what it says goes into a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    with said.open("wb") as opened:
        return subprocess.Popen(
            [sys.executable, "-m", "timecourse.cli", *map(str, arguments)],
            cwd=said.parent,
            env=environment,
            stdout=opened,
            stderr=opened,
        )


def wait_for(what):
    """The first value that is not None and not False. Raises TimeoutError after SECONDS."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.005)
    raise TimeoutError(f"waited {SECONDS} seconds for {what}")


def at_work(lake: Path) -> dict[str, int]:
    """{lock: process} of those that are writing an extraction right now."""
    found = {}
    for folder in (lake / ".incoming").glob("*"):
        lock = folder.name.rpartition(".")[0]
        holder = lake / ".locks" / f"{lock}.json"
        if lock.count(".") >= 1 and holder.is_file():
            found[lock] = int(json.loads(holder.read_text())["process"])
    return found


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
