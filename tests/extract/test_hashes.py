"""Remembered hashes: right after every kind of change, and only a help."""

import hashlib
import os
import sqlite3

import pytest

from timecourse.extract.checkpoints import hashes
from timecourse.extract.checkpoints.hashes import sha256_of


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    """A memory of its own, for files of any size."""
    monkeypatch.setattr(hashes, "user_cache_path", lambda *_, **__: tmp_path)
    monkeypatch.setattr(hashes, "REMEMBERED_FROM", 0)
    monkeypatch.setattr(hashes, "SETTLED", -1)
    return tmp_path / "hashes.sqlite"


@pytest.fixture
def counted(monkeypatch):
    """How many files were really read."""
    read, hashed = [], hashes._hashed
    monkeypatch.setattr(hashes, "_hashed", lambda file: (read.append(file.name), hashed(file))[1])
    return read


def true_hash(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_is_read_once(tmp_path, counted):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert sha256_of(file) == sha256_of(file) == true_hash(file)
    assert counted == ["weights"]


def test_a_change_is_seen_even_with_the_old_time_and_size(tmp_path, counted):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first, before = sha256_of(file), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_of(file) == true_hash(file) != first
    (tmp_path / "other").write_bytes(b"six")
    (tmp_path / "other").replace(file)
    assert sha256_of(file) == true_hash(file)
    assert len(counted) == 3


def test_a_file_that_was_just_written_and_a_small_one_are_not_remembered(tmp_path, counted, monkeypatch, memory):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    monkeypatch.setattr(hashes, "SETTLED", 60)
    assert sha256_of(file) == sha256_of(file) == true_hash(file)
    monkeypatch.setattr(hashes, "SETTLED", -1)
    monkeypatch.setattr(hashes, "REMEMBERED_FROM", 4)
    assert sha256_of(file) == sha256_of(file) == true_hash(file)
    assert len(counted) == 4


@pytest.mark.parametrize("damage", ["garbage", "folder", "locked"])
def test_a_memory_that_cannot_be_used_costs_time_and_nothing_else(tmp_path, memory, damage, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    if damage == "garbage":
        memory.write_bytes(b"no database" * 100)
    elif damage == "folder":
        memory.mkdir()
    else:
        sqlite3.connect(memory).execute("pragma locking_mode = exclusive").connection.execute("begin exclusive")
        connect = sqlite3.connect
        monkeypatch.setattr(hashes.sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.05))
    assert sha256_of(file) == true_hash(file)
