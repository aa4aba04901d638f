"""Files that are whole or not there, and names that are safe."""

import hashlib
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from slugify import slugify


def slug(name: str) -> str:
    """A safe folder name that stays unique: the sanitised name and 8 hex digits of its hash."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slugify(name, max_length=60, lowercase=False) or 'name'}-{digest}"


def sha256_of(file: Path) -> str:
    """Hash of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def damage(file: Path, size: int, sha256: str) -> str | None:
    """What is wrong with a file that was written with this size and hash: `missing`, `torn` or `altered`; else None.

    Raises OSError where the disk does not give it back.
    """
    if not file.is_file():
        return "missing"
    if (found := file.stat().st_size) != size:
        return "torn" if found < size else "altered"
    return None if sha256_of(file) == sha256 else "altered"


def row_count(file: Path) -> int | None:
    """How many rows a parquet file has; None for a file of another format."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except pa.ArrowInvalid:
        return None


def sync(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below `folder`, and itself."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them there after a crash as well."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; nothing where it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
