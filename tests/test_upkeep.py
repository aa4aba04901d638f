"""Keeping a lake: verifying, healing, releases, claims of several processes, the watch. On copies of one release."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import save_checkpoint
from timecourse import refresh
from timecourse.errors import UsageError
from timecourse.lake import Lake
from timecourse.watch import parse_interval

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lake(small_release, tmp_path) -> Path:
    return shutil.copytree(small_release.parents[1], tmp_path / "lake", symlinks=True)


@pytest.fixture
def flags(series_directory, facts_directory, lake) -> list[object]:
    named = ["--checkpoints", series_directory, "--facts", facts_directory, "--series", "tiny"]
    return [*named, "--lake", lake, "--tau", "5x", "--complete"]


def second_release(lake: Path, drop: str) -> Path:
    """Another release beside the first: the same marts without the rows of one checkpoint's roles."""
    import duckdb

    from timecourse.lake.files import sha256_of

    first = Lake(lake).current_release()
    later = first.with_name("2099-01-01T00-00-00-later")
    shutil.copytree(first, later)
    with duckdb.connect(str(later / "warehouse.duckdb")) as connection:
        connection.execute(f"update fct_component_histories set primary_role = 'entity' where checkpoint_id = '{drop}'")
        connection.execute(f"delete from dim_checkpoints where checkpoint_id = '{drop}'")
    manifest = json.loads((later / "release.json").read_text())
    file = later / "warehouse.duckdb"
    manifest["files"]["warehouse.duckdb"] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    manifest["sequence"] += 1
    (later / "release.json").write_text(json.dumps(manifest))
    (lake / "current").unlink()
    (lake / "current").symlink_to(Path("releases", later.name))
    return later


def test_a_whole_lake_verifies(run, lake):
    done = run("verify", "--lake", lake)
    assert done.returncode == 0 and done.stdout.endswith(" files read, 0 problems\n"), done.stdout


@pytest.mark.parametrize("what", ["missing", "torn", "altered", "foreign", "release", "commit", "current"])
def test_verify_names_the_file(run, lake, what):
    file = sorted((lake / "raw").glob("*/*/*/predictions.parquet"))[0]
    named = file
    if what == "missing":
        file.unlink()
    elif what == "torn":
        file.write_bytes(file.read_bytes()[:-1])
    elif what == "altered":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif what == "foreign":
        named = lake / "raw" / "stray.parquet"
        named.write_bytes(b"?")
    elif what == "release":
        named = Lake(lake).current_release() / "marts" / "dim_series.parquet"
        named.write_bytes(b"?")
    elif what == "commit":
        named = next((lake / "commits").glob("*/*.json"))
        named.write_text(named.read_text()[:-5])
    else:
        shutil.rmtree(Lake(lake).current_release())
        named = lake / "current"
    done = run("verify", "--lake", lake)
    assert done.returncode == 1
    assert named.name in done.stdout and str(named.parent.relative_to(lake)).strip(".") in done.stdout


@pytest.mark.parametrize("what", ["altered", "missing", "commit"])
def test_a_damaged_extraction_is_named_and_made_anew(run, lake, flags, what):
    """The extraction is the same again, so that the release that was made of it stays the current one."""
    release = Lake(lake).current_release()
    commit = sorted((lake / "commits").glob("*/*.json"))[0]
    content = json.loads(commit.read_text())
    file = lake / content["directory"] / "predictions.parquet"
    if what == "commit":
        commit.write_text("{")
    elif what == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[::-1])
    would = run("refresh", *flags, "--dry-run")
    assert would.returncode == 0 and f"would extract {content['checkpoint_id']}: new" in would.stdout
    done = run("refresh", *flags)
    assert done.returncode == 0, done.stderr
    assert "found damaged: " in done.stdout and "extracted 1 of 3" in done.stdout
    assert Lake(lake).current_release() == release
    assert run("verify", "--lake", lake).returncode == 0


def test_a_damaged_extraction_that_is_offered_no_more_stops_the_release(run, lake, flags, series_directory, tmp_path):
    commit = next(one for one in Lake(lake).commits() if one.content["checkpoint_name"] == "step0")
    (lake / commit.content["directory"] / "prompts.parquet").unlink()
    before = Lake(lake).current_release()
    series = shutil.copytree(series_directory, tmp_path / "series")
    shutil.rmtree(series / "step0")
    done = run("refresh", *flags, "--checkpoints", series)
    assert done.returncode == 1 and "prompts.parquet is missing" in done.stderr and done.stderr.count("\n") == 1
    assert Lake(lake).current_release() == before


def test_current_is_set_right(run, lake, flags):
    release = Lake(lake).current_release()
    (lake / "current").unlink()
    done = run("refresh", *flags)
    assert done.returncode == 0 and Lake(lake).current_release() == release


def test_releases_differ_roll_back_and_are_found_by_how_they_begin(run, lake, flags):
    first = Lake(lake).current_release()
    later = second_release(lake, "tiny/main")
    listed = json.loads(run("releases", "--lake", lake, "--format", "json").stdout)
    assert [(row["release"], row["current"]) for row in listed] == [(later.name, "current"), (first.name, "")]
    said = run("diff", "--lake", lake).stdout
    assert "1 checkpoint removed: tiny/main" in said and "primary roles changed" in said
    assert "no checkpoint, accuracy" in run("diff", first.name, first.name, "--lake", lake).stdout
    assert "no release is called 'x'" in run("diff", "x", "--lake", lake).stderr
    assert run("rollback", "--lake", lake).returncode == 0
    assert Lake(lake).current_release() == first
    assert run("refresh", *flags).returncode == 0
    assert Lake(lake).current_release() == first, "nothing is new: the rollback holds"
    (later / "site" / "index.html").unlink()
    refused = run("rollback", later.name[:10], "--lake", lake)
    assert refused.returncode == 1 and "index.html is missing" in refused.stderr


def test_old_releases_go_and_the_current_one_stays(lake):
    from timecourse.releases import list_releases, prune_releases, roll_back

    first = Lake(lake).current_release()
    for number in range(4):
        copy = shutil.copytree(first, first.with_name(f"copy{number}"))
        manifest = json.loads((copy / "release.json").read_text())
        (copy / "release.json").write_text(json.dumps(manifest | {"sequence": 10 + number}))
    with Lake(lake).locked(), (first / "release.json").open() as opened:
        roll_back(Lake(lake), "copy0")
        removed = prune_releases(Lake(lake), 2)
        assert json.loads(opened.read())["sequence"] == 1, "who has it open keeps it"
    assert set(removed) == {first.name, "copy1"}
    assert [release.path.name for release in list_releases(Lake(lake))] == ["copy3", "copy2", "copy0"]


def test_a_checkpoint_that_another_process_is_on_is_left_to_it(
    run, lake, flags, series_directory, tmp_path, monkeypatch
):
    series = shutil.copytree(series_directory, tmp_path / "series")
    for number, name in enumerate(("step200", "step300")):
        save_checkpoint(series / name, seed=20 + number)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/timecourse", "refresh", "--lake", str(lake)])
    claim = Lake(lake).claim("tiny", "step200")
    assert claim is not None
    done = run("extract", *flags, "--checkpoints", series)
    assert done.returncode == 0 and "extracted 1 of 4" in done.stdout
    assert f"tiny/step200 is left to `timecourse refresh`, process {os.getpid()} on " in done.stdout
    claim.release()
    assert "extracted 1 of 5" in run("extract", *flags, "--checkpoints", series).stdout


def test_a_new_lake_whose_checkpoints_are_all_held_says_by_whom(run, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["timecourse", "extract"])
    lake = Lake(tmp_path / "new")
    lake.create()
    claims = [lake.claim("tiny", name) for name in ("step0", "step100-tokens1B", "main")]
    done = run("refresh", *flags, "--lake", lake.root)
    assert done.returncode == 75 and done.stderr.count("\n") == 1
    assert f"tiny/step0 is left to `timecourse extract`, process {os.getpid()} on " in done.stderr
    assert "run it again" in done.stderr
    for claim in claims:
        claim.release()


def test_parts_that_are_of_no_more_use_are_removed(lake):
    """Those of what is committed, and those that waited when another extraction was; never under a claim."""
    lake = Lake(lake)
    for commit in lake.commits():
        os.utime(commit.path, (1e9, 1e9))
    (first, *_), name = lake.commits(), "step100-tokens1B"
    committed, before, after, held, elsewhere = (
        lake.parts("tiny", first.content["checkpoint_name"], first.extraction_id),
        lake.parts("tiny", first.content["checkpoint_name"], "b" * 32),
        lake.parts("tiny", first.content["checkpoint_name"], "a" * 32),
        lake.parts("tiny", name, "b" * 32),
        lake.parts("tiny", "step200", "b" * 32),
    )
    assert first.content["checkpoint_name"] != name
    for place in (committed, before, after, held, elsewhere):
        (place / "0-of-4").mkdir(parents=True)
        if place not in (committed, after):
            os.utime(place, (9e8, 9e8))
    claim = lake.claim("tiny", name, "3-of-4")
    with lake.locked():
        lake.prune()
    assert {*lake.root.glob(".unfinished/*")} == {after, held, elsewhere}
    claim.release()
    with lake.locked():
        lake.prune()
    assert {*lake.root.glob(".unfinished/*")} == {after, elsewhere}


def test_what_is_committed_while_a_run_is_planned_is_not_made_again(
    run, lake, flags, series_directory, tmp_path, monkeypatch
):
    """Another run commits a checkpoint when this one has just looked at what is committed."""
    series = shutil.copytree(series_directory, tmp_path / "series")
    save_checkpoint(series / "step200", seed=20)
    copy = shutil.copytree(lake, tmp_path / "copy", symlinks=True)
    look = refresh._sound_commits

    def look_and_be_late(lake):
        found = look(lake)
        monkeypatch.setattr(refresh, "_sound_commits", look)
        assert "extracted 1 of 4" in run("extract", *flags, "--checkpoints", series).stdout
        return found

    for more in ((), ("--set", "executor.prompts_per_task=32", "--executor", "local", "--workers", "2")):
        monkeypatch.setattr(refresh, "_sound_commits", look_and_be_late)
        done = run("extract", *flags, "--checkpoints", series, *more)
        assert done.returncode == 0 and done.stdout.startswith("nothing to do"), done
        shutil.rmtree(lake)
        shutil.copytree(copy, lake, symlinks=True)


@pytest.mark.slow
def test_two_processes_share_the_work(lake, flags, series_directory, tmp_path):
    series = shutil.copytree(series_directory, tmp_path / "series")
    for number in range(4):
        save_checkpoint(series / f"step{200 + number}", seed=30 + number)
    command = [sys.executable, "-m", "timecourse.cli", "extract", *map(str, flags), "--checkpoints", str(series)]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate()[0] for one in runs]
    assert [one.returncode for one in runs] == [0, 0]
    logged = [json.loads(line) for file in (lake / "logs").glob("*.jsonl") for line in file.read_text().splitlines()]
    committed = [
        line["checkpoint"] for line in logged if line["event"] == "committed" and "step20" in line["checkpoint"]
    ]
    assert sorted(committed) == [f"tiny/step{200 + number}" for number in range(4)], (said, committed)


def test_only_and_dry_run(run, lake, flags, series_directory, tmp_path):
    series = shutil.copytree(series_directory, tmp_path / "series")
    save_checkpoint(series / "step200", seed=9)
    before = sorted(path for path in lake.rglob("*"))
    would = run("refresh", *flags, "--checkpoints", series, "--tau", "4x", "--dry-run")
    assert "would extract tiny/step200: new" in would.stdout
    assert "would extract tiny/main: changed settings" in would.stdout and "4 of the series'" in would.stdout
    memory = run("extract", *flags, "--checkpoints", series, "--tau", "4x", "--plan", "--memory-gb", "2")
    assert "4 of the series'" in memory.stdout and memory.stdout.count("peak_gb") == 1
    assert sorted(path for path in lake.rglob("*")) == before
    unknown = run("refresh", *flags, "--checkpoints", series, "--only", "step7")
    assert unknown.returncode == 2 and "'step7'" in unknown.stderr
    done = run("extract", *flags, "--checkpoints", series, "--only", "main", "--full")
    assert "extracted 1 of 3" in done.stdout


@pytest.mark.parametrize("kind", ["commits/*/*.json", "series/*.json"])
def test_a_lake_of_a_newer_version_is_refused_and_left_as_it_is(run, lake, flags, series_directory, kind):
    file = next(lake.glob(kind))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    before = file.read_text()
    for command in (
        ["build", "--lake", lake],
        ["refresh", *flags, "--checkpoints", series_directory],
        ["extract", *flags, "--checkpoints", series_directory],
        *([["status", "--lake", lake]] if kind.startswith("commits") else []),
    ):
        done = run(*command)
        assert done.returncode == 1 and "schema version 99" in done.stderr, command
        assert done.stderr.count("\n") == 1 and file.read_text() == before


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1d", 86400)])
def test_intervals(text, seconds):
    assert parse_interval(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "30", "0m", "-5m", "5 weeks", "9999999d"])
def test_no_interval(text):
    with pytest.raises(UsageError, match="--every"):
        parse_interval(text)


def test_the_watch_takes_what_arrives_and_ends_on_sigterm(lake, flags, series_directory, tmp_path):
    series = shutil.copytree(series_directory, tmp_path / "series")
    command = [sys.executable, "-m", "timecourse.cli", "watch", "--every", "1h", *map(str, flags)]
    command += ["--set", "statistics.replicates=50"]
    output = tmp_path / "said"
    with output.open("w") as said:
        process = subprocess.Popen([*command, "--checkpoints", str(series)], cwd=ROOT, stdout=said, stderr=said)

    def wait_for(text: str, times: int) -> None:
        deadline = time.monotonic() + 240
        while output.read_text().count(text) < times:
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)

    try:
        wait_for("watching; the next refresh is in 1:00:00", times=1)
        (series / "notes.txt").write_text("whatever changes is looked at")
        wait_for("nothing to do", times=2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0 and output.read_text().endswith("stopped\n")
    finally:
        process.kill()
