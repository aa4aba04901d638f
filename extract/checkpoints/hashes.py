"""Hashes of files, remembered: a series of 7B checkpoints is a terabyte, and is looked at before every run."""

import hashlib
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from platformdirs import user_cache_path

REMEMBERED_FROM = 2**26
"""Bytes; smaller files are hashed each time."""

SETTLED = 2.0
"""Seconds that a file must have been left alone: until then it may change without its times showing it."""


def sha256_of(file: Path) -> str:
    """Hash of a file's content; of a large file that has not changed since it was hashed, as it was then."""
    before = file.stat()
    if before.st_size < REMEMBERED_FROM:
        return _hashed(file)
    key = f"{file.resolve()}\0{_state(before)}"
    with suppress(sqlite3.Error, OSError), closing(_memory()) as memory:
        if row := memory.execute("select sha256 from hashes where file = ?", [key]).fetchone():
            return str(row[0])
    sha256 = _hashed(file)
    after = file.stat()
    if _state(after) == _state(before) and time.time() - after.st_ctime > SETTLED:
        with suppress(sqlite3.Error, OSError), closing(_memory()) as memory, memory:
            memory.execute("insert or replace into hashes values (?, ?)", [key, sha256])
    return sha256


def _state(stat: os.stat_result) -> tuple[int, ...]:
    """What changes when a file's content does; its change time cannot be set back."""
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)


def _hashed(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _memory() -> sqlite3.Connection:
    folder = user_cache_path("timecourse", ensure_exists=True)
    memory = sqlite3.connect(folder / "hashes.sqlite", timeout=10)
    memory.execute("create table if not exists hashes (file text primary key, sha256 text not null)")
    return memory
