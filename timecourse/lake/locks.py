"""Who may write what: one run at a time builds and releases, one process at a time extracts a checkpoint.

The locks are the system's own (flock), on files that stay where they are: a process that dies lets go of its locks, on
a shared file system as well where that supports them. What a process is writing lies in a folder named after the lock
that it holds, so that whoever gets the lock knows that the folder was left behind.
"""

import json
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from timecourse.errors import UserError
from timecourse.lake.files import make_folder, remove

WRITER = "lake"
"""The lock that whoever builds, releases or prunes holds."""


class LockedError(UserError):
    """Another run holds the lake."""

    exit_code = 75


class Locks:
    """The locks of a lake, each a file in `.locks`, and the folders in `.incoming` that belong to them."""

    def __init__(self, root: Path) -> None:
        self._locks = root / ".locks"
        self._incoming = root / ".incoming"

    def take(self, name: str) -> FileLock | None:
        """Hold a lock until `release` is called on it; None where another process holds it."""
        make_folder(self._locks)
        lock = FileLock(self._locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        holder = {
            "process": os.getpid(),
            "host": platform.node(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["timecourse", *sys.argv[1:2]]),
        }
        with suppress(OSError):  # only words: a full disk is met where it matters
            (self._locks / f"{name}.json").write_text(json.dumps(holder), encoding="utf-8")
        return lock

    def is_any_held(self, pattern: str) -> bool:
        """Whether another process holds one of the locks whose names match."""
        for path in sorted(self._locks.glob(f"{pattern}.lock")):
            lock = self.take(path.stem)
            if lock is None:
                return True
            lock.release()
        return False

    def holder(self, name: str) -> str:
        """Who took a lock last, in words."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            one = json.loads((self._locks / f"{name}.json").read_text(encoding="utf-8"))
            return f"`{one['command']}`, process {one['process']} on {one['host']} since {one['since']}"
        return "another process"

    @contextmanager
    def writer(self, lake: str) -> Iterator[None]:
        """Hold the lake for building and releasing. Raises LockedError at once where another run holds it."""
        lock = self.take(WRITER)
        if lock is None:
            raise LockedError(
                f"another run is writing to the lake {lake!r} ({self.holder(WRITER)}); wait for it to end"
            )
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Hold a lock that others hold for moments only: wait for it."""
        make_folder(self._locks)
        with FileLock(self._locks / f"{name}.lock"):
            yield

    @contextmanager
    def incoming(self, name: str) -> Iterator[Path]:
        """A new folder for something that is being written under a lock; gone afterwards unless it was moved away."""
        folder = self._incoming / f"{name}.{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Remove what processes that died were writing. Call it as the writer."""
        for path in sorted(self._incoming.iterdir()):
            name = path.name.rpartition(".")[0]
            lock = None if name in ("", WRITER) else self.take(name)
            if lock is not None or name in ("", WRITER):
                remove(path)
            if lock is not None:
                lock.release()
