"""What a disk, a clock and other people do to a lake: `refresh` names it in one line, loses nothing, and heals it."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Finished, save_checkpoint
from tests.crash.child import Fault, start
from tests.crash.lakes import MODEL, ROOT, differences, leftovers, lost, other_commits, release_problems, sha256_of
from tests.crash.test_failpoints import STEPS


@pytest.fixture
def refresh(lakes, request, tmp_path) -> Callable[..., Finished]:
    """Runs a scenario's refresh in a child."""
    runs = iter(range(10))

    def run(scenario, lake, *more, command="refresh", fault=None, clock=0) -> Finished:
        where = tmp_path / f"run{next(runs)}"
        flags = (lakes if scenario == "first" else request.getfixturevalue("all_lakes")).flags(scenario, lake)
        child = start([command, *flags, *more], where, fault=fault, clock=clock)
        child.join()
        out, err = (where.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".out", ".err"))
        return Finished(child.exitcode, out, err)

    return run


@pytest.fixture
def first(lakes, tmp_path) -> Path:
    """A lake in which everything is done. May be changed."""
    return lakes.copy(lakes.after("first"), tmp_path / "lake")


@pytest.fixture
def following(all_lakes, tmp_path) -> Path:
    """A lake in which the scenario `next` is yet to be done. May be changed."""
    return all_lakes.copy(all_lakes.before("next"), tmp_path / "lake")


def tree(folder: Path) -> dict[str, str]:
    """{path: hash, or target of a link} of every file in a folder."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else sha256_of(path)
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def only(lake: Path, pattern: str) -> Path:
    """The one path in a lake that a pattern means."""
    (path,) = lake.glob(pattern)
    return path


def flip(file: Path, at: float = 0.5) -> None:
    """Flip the lowest bit of the byte that lies at this share of a file."""
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


def flip_in(file: Path, before: bytes) -> None:
    """Flip the lowest bit of the byte behind these."""
    content = bytearray(file.read_bytes())
    content[content.index(before) + len(before)] ^= 1
    file.write_bytes(content)


def tear(file: Path) -> None:
    """Cut a file in the middle."""
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    """Leave nothing in a file."""
    os.truncate(file, 0)


def replace_by_new(file: Path) -> None:
    """Move the file `new`, which lies beside its folder, onto it."""
    (file.parents[1] / "new").replace(file)


STEP1, RELEASE = "commits/*/step1-*.json", "releases/*"
Damages = dict[str, tuple[str, Callable[[Path], object], str]]
EXTRACTIONS: Damages = {
    "a commit's files are gone": ("raw/*/step1-*/*", shutil.rmtree, "step1"),
    "one of them is gone": ("raw/*/step1-*/*/prompts.parquet", os.remove, "prompts.parquet"),
    "a torn parquet file": ("raw/*/step1-*/*/attributions.parquet", tear, "attributions.parquet"),
    **{
        f"a bit of {table}.parquet": (f"raw/*/step1-*/*/{table}.parquet", flip, f"{table}.parquet")
        for table in ("checkpoint", "prompts", "prompt_tokens", "attributions", "contributions", "predictions")
    },
    "a commit file is torn": (STEP1, tear, "step1"),
    "a bit of its extraction": (STEP1, lambda file: flip_in(file, b'"extraction_id": "'), "step1"),
    "a bit of its directory": (STEP1, lambda file: flip_in(file, b'"directory": "'), "step1"),
    "a bit of a hash": (STEP1, lambda file: flip_in(file, b'"sha256": "'), "step1"),
    "a bit of a count": (STEP1, lambda file: flip_in(file, b'checkpoint.parquet",\n   "rows": '), "step1"),
    "a bit of a verdict": (STEP1, lambda file: flip_in(file, b'"result": "'), "step1"),
    "a bit of its syntax": (STEP1, lambda file: flip(file, 0), "step1"),
    "a series file is torn": ("series/*.json", tear, "series/"),
}
"""What happens to a lake in which everything is done: where, what, and what the line must name."""

RELEASES: Damages = {
    "the release is deleted": (RELEASE, shutil.rmtree, "releases/"),
    "release.json is gone": (f"{RELEASE}/release.json", os.remove, "releases/"),
    "release.json is torn": (f"{RELEASE}/release.json", tear, "releases/"),
    "a bit of the warehouse": (f"{RELEASE}/warehouse.duckdb", flip, "warehouse.duckdb"),
    "a bit of a mart": (f"{RELEASE}/marts/dim_checkpoints.parquet", flip, "dim_checkpoints.parquet"),
    "a page is gone": (f"{RELEASE}/site/index.html", os.remove, "index.html"),
}


def is_told(done: Finished, named: str) -> bool:
    """Whether one line says what is damaged."""
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    return any(named in line for line in lines if line.startswith(("found damaged: ", "error: ")))


@pytest.mark.slow
def test_damages_are_named_and_made_anew(lakes, first, refresh):
    """One of each kind at once, so that one build mends them."""
    damages = {
        "step0": "a commit's files are gone",
        "step1": "a bit of predictions.parquet",
        "step2": "a bit of a hash",
    }
    for checkpoint, what in damages.items():
        where, damage, _ = EXTRACTIONS[what]
        damage(only(first, where.replace("step1", checkpoint)))
    tear(only(first, f"{RELEASE}/release.json"))
    done = refresh("first", first)
    assert all(is_told(done, named) for named in (*damages, "releases/")), done
    healed = done if done.returncode == 0 else refresh("first", first)
    assert healed.returncode == 0, healed
    assert differences(first, lakes.after("first")) == []
    assert refresh("first", first).stdout.startswith("nothing to do")


@pytest.mark.slow
@pytest.mark.parametrize("what", EXTRACTIONS)
def test_what_is_damaged_of_an_extraction_is_extracted_anew(lakes, first, refresh, what):
    where, damage, named = EXTRACTIONS[what]
    damage(only(first, where))
    done = refresh("first", first, command="extract")
    assert is_told(done, named), done
    healed = done if done.returncode == 0 else refresh("first", first, command="extract")
    assert healed.returncode == 0, healed
    assert other_commits(first, lakes.after("first")) == []
    assert not [problem for problem in leftovers(first) if "not as committed" in problem]
    assert refresh("first", first, command="extract").stdout.startswith("nothing to do")


@pytest.mark.slow
@pytest.mark.parametrize("what", RELEASES)
def test_what_is_damaged_of_the_release_is_published_anew(lakes, first, refresh, what):
    where, damage, named = RELEASES[what]
    damage(only(first, where))
    done = refresh("first", first)
    assert done.returncode == 0, done
    assert differences(first, lakes.after("first")) == []
    assert refresh("first", first).stdout.startswith("nothing to do")
    assert is_told(done, named), done


def test_files_that_no_commit_names_are_removed(lakes, first, refresh):
    stray = only(first, "raw/*/step1-*/*")
    shutil.copytree(stray, stray.with_name("0" * 64))
    shutil.copytree(stray, first / "raw" / "gone" / "step9" / stray.name)
    (first / ".incoming" / "torn").mkdir()
    assert refresh("first", first).returncode == 0
    assert differences(first, lakes.after("first")) == []


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.9])
def test_a_flipped_bit_in_the_build_database_changes_no_number(all_lakes, following, refresh, at):
    flip(following / "build" / "warehouse.duckdb", at)
    done = refresh("next", following)
    assert (done.returncode, done.stderr) == (0, "")
    assert differences(following, all_lakes.after("next")) == []


def names_the_fault(said: str, number: int, lake: Path) -> bool:
    """Whether what was said is one line, with the system's words and a file of the lake."""
    starts, words = said.startswith("error: "), os.strerror(number) in said
    return starts and words and said.count("\n") == 1 and str(lake) in said


@pytest.mark.slow
def test_a_disk_that_fails_while_a_commit_is_made(lakes, refresh, tmp_path):
    lake = lakes.copy(lakes.before("first"), tmp_path / "lake")
    done = refresh("first", lake, command="extract", fault=Fault(STEPS["before a commit counts"], "EIO"))
    assert done.returncode == 1 and names_the_fault(done.stderr, errno.EIO, lake), done
    assert not list(lake.glob("commits/*/*"))
    assert refresh("first", lake, command="extract").returncode == 0
    assert other_commits(lake, lakes.after("first")) == []


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("when", [*STEPS, "at a sync", "at a sync of the release"])
def test_a_disk_that_fails_at_one_step(all_lakes, following, refresh, when, error):
    syncs = {"at a sync": r"^os\.fsync raw/", "at a sync of the release": r"^os\.fsync .*/release\.json"}
    done = refresh("next", following, fault=Fault((STEPS | syncs)[when], error))
    assert done.returncode == 1 and names_the_fault(done.stderr, getattr(errno, error), following), done
    assert lost(following, all_lakes.before("next"), all_lakes.after("next")) == []
    assert release_problems((following / "current").resolve()) == []
    assert refresh("next", following).returncode == 0
    assert differences(following, all_lakes.after("next")) == []


def test_a_lake_that_cannot_be_written_stays_as_it_is(lakes, first, refresh):
    before = tree(first)
    done = refresh("first", first, "--set", "roles.theta=0.4", fault=Fault("", "EROFS", lasts=True))
    assert done.returncode == 1 and names_the_fault(done.stderr, errno.EROFS, first), done
    assert tree(first) == before


@pytest.mark.slow
def test_a_clock_that_goes_backwards(all_lakes, following, refresh):
    old = (following / "current").readlink()
    done = refresh("next", following, clock=-86400)
    assert (done.returncode, done.stderr) == (0, "")
    released = (following / "current").readlink()
    assert released != old
    assert differences(following, all_lakes.after("next")) == []
    assert refresh("next", following).stdout.startswith("nothing to do")
    assert (following / "current").readlink() == released


REPLACEMENTS: dict[str, Callable[[Path], object]] = {
    "replaced": replace_by_new,
    "torn": tear,
    "emptied": empty,
    "removed": os.remove,
}
"""What happens to the weights of a checkpoint; in the child, which must find each by its name."""


@pytest.mark.slow
@pytest.mark.parametrize("what", REPLACEMENTS)
def test_a_checkpoint_that_changes_once_the_run_is_planned(lakes, refresh, tmp_path, what):
    """step1's weights are other ones when they are read than when they were hashed: whose numbers are they?"""
    lake, weights = lakes.copy(lakes.before("first"), tmp_path / "lake"), Path("step1", "model.safetensors")
    there = lakes.folder / "checkpoints" / "first" / weights
    here = Path(shutil.copytree(there.parents[1], tmp_path / "checkpoints"))
    shutil.copyfile(there, here / "new")
    save_checkpoint(here / "step1", seed=9, **MODEL)
    planned = sha256_of(here / weights)
    fault = Fault(r"^os\.mkdir \.incoming/<id> ", instead=partial(REPLACEMENTS[what], here / weights))
    done = refresh("first", lake, "--checkpoints", here, command="extract", fault=fault)
    assert not (here / weights).exists() or sha256_of(here / weights) != planned, "the step was not reached"
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "step1" in done.stderr, done
    assert not list(lake.glob("commits/*/step1-*")), "committed under the hash of other weights"
    assert len(list(lake.glob("commits/*/*"))) == 2
    shutil.copyfile(there, here / weights)
    assert refresh("first", lake, "--checkpoints", here, command="extract").returncode == 0
    assert other_commits(lake, lakes.after("first")) == []


SMALL_DISK = """
set -e
mount -t tmpfs -o size=1g tmpfs "$DISK"
cp -a "$BEFORE" "$DISK/lake"
mount -o "remount,$TROUBLE" "$DISK"
set +e
"$@" > "$SAID.full.out" 2> "$SAID.full.err"; echo $? > "$SAID.full.code"
cp -a "$DISK/lake" "$SAID.full"
mount -o remount,rw,size=1g "$DISK"
"$@" > "$SAID.healed.out" 2> "$SAID.healed.err"; echo $? > "$SAID.healed.code"
cp -a "$DISK/lake" "$SAID.healed"
"""


def may_mount() -> bool:
    """Whether a process may mount a small disk that it alone sees."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="mounting a disk is not allowed here; test_refresh limits the files' size")
@pytest.mark.parametrize("free", [8, 64, 512, 2048, 6144, "ro"])
def test_a_small_disk(all_lakes, tmp_path, free):
    """A disk that has `free` kB left beside the lake, or can only be read; then it has room and can be written."""
    (tmp_path / "disk").mkdir()
    before = all_lakes.before("next")
    used = int(subprocess.run(["du", "-sk", before], capture_output=True, text=True, check=True).stdout.split()[0])
    lake = tmp_path / "disk" / "lake"
    command = [sys.executable, "-m", "timecourse.cli", "refresh", *all_lakes.flags("next", lake)]
    subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh", *command],
        env={
            **os.environ,
            "DISK": str(tmp_path / "disk"),
            "BEFORE": str(before),
            "SAID": str(tmp_path / "said"),
            "TROUBLE": "ro" if free == "ro" else f"size={used + free}k",
            "COLUMNS": "80",
        },
        cwd=ROOT,
        check=True,
    )
    codes = {when: int((tmp_path / f"said.{when}.code").read_text()) for when in ("full", "healed")}
    said = (tmp_path / "said.full.err").read_text()
    assert codes == {"full": 1, "healed": 0}, said
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert os.strerror(errno.EROFS if free == "ro" else errno.ENOSPC) in said, said
    full = tmp_path / "said.full"
    assert lost(full, before, all_lakes.after("next")) == []
    assert release_problems((full / "current").resolve()) == []
    if free == "ro":
        assert tree(full) == tree(before)
    assert differences(tmp_path / "said.healed", all_lakes.after("next")) == []
