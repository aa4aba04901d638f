"""The run as a user sees it: nothing twice, nothing half-written, and what comes out of the release."""

import hashlib
import importlib
import json
import math
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from tests.conftest import save_checkpoint, save_random_checkpoint
from timecourse.build import BuildResult
from timecourse.lake import Lake
from timecourse.lake.files import sha256_of


def tree(lake: Path) -> dict[str, str]:
    """{path: hash} of everything in a lake but locks, logs and dbt's own build folder."""
    return {
        str(file.relative_to(lake)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(lake.rglob("*"))
        if file.is_file() and not file.is_symlink() and not {"build", ".locks", "logs"} & {*file.parts}
    }


def rows(lake: Path, query: str) -> list[tuple]:
    with duckdb.connect(str((lake / "current").resolve() / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, series_directory, facts_directory, run):
    """A lake after one refresh. Copy before changing."""
    lake = tmp_path_factory.mktemp("finished") / "lake"
    flags = [
        "--checkpoints",
        series_directory,
        "--facts",
        facts_directory,
        "--lake",
        lake,
        "--series",
        "s",
        "--tau",
        "0.03",
    ]
    done = run("refresh", *flags)
    assert done.returncode == 0, done.stderr
    return lake, done.stdout


@pytest.fixture
def lake(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "lake", symlinks=True)
    return tmp_path / "lake"


@pytest.fixture
def series(series_directory, tmp_path):
    return shutil.copytree(series_directory, tmp_path / "series")


@pytest.fixture
def refresh(run, facts_directory, series, lake):
    def refresh_lake(*flags, command="refresh"):
        named = ["--checkpoints", series, "--facts", facts_directory, "--series", "s", "--tau", "0.03"]
        return run(command, *(named if command != "build" else []), "--lake", lake, *flags)

    return refresh_lake


def test_a_release_holds_what_it_promises(finished):
    lake, said = finished
    release = (lake / "current").resolve()
    assert (lake / "current").readlink() == Path("releases", release.name)
    assert f"{lake}/current/site/index.html" in said and "3 checkpoints, step0 to main" in said
    manifest = json.loads((release / "release.json").read_text())
    for name, entry in manifest["files"].items():
        content = (release / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
        assert connection.execute("select count(*) from duckdb_views() where not internal").fetchone() == (0,)
        for name in tables:
            count = connection.execute(f"select count(*) from {name}").fetchone()[0]
            copied = connection.execute(f"select count(*) from '{release}/marts/{name}.parquet'").fetchone()[0]
            assert count == copied == manifest["rows"][name], name
    assert tables == set(manifest["rows"])
    assert {"dim_checkpoints", "fct_role_memberships", "fct_check_results"} <= tables
    (reference,) = manifest["reference_checkpoints"]
    assert (reference["phase"], reference["reference_checkpoint_id"]) == ("pretraining", "s/main")
    assert reference["is_provisional"] is True
    assert not list(release.rglob("*.wal"))
    assert not list((lake / ".incoming").iterdir())


def test_the_release_lists_every_check(finished):
    checks = rows(
        finished[0], "select home, stage, count(*), count(distinct table_name) from fct_check_results group by all"
    )
    found = {(home, stage): (count, tables) for home, stage, count, tables in checks}
    assert found["great_expectations", "raw"][0] >= 3 * 10 and found["great_expectations", "raw"][1] == 6
    assert found["great_expectations", "release"][0] > 3
    assert found["dbt", "warehouse"][0] > 50
    assert rows(finished[0], "select count(*) from fct_check_results where result = 'fail'") == [(0,)]


def test_intervals_are_wilsons_over_facts(finished):
    """Recomputed from the formula (Wilson 1927, 95 %); null where one fact says nothing about others."""
    found = rows(
        finished[0],
        """
        select top1_accuracy, fact_count, top1_low, top1_high from fct_relation_accuracies
        union all
        select rate, fact_count, rate_low, rate_high from fct_component_activities""",
    )
    z = 1.959963984540054
    for share, count, low, high in found:
        if count < 2:
            assert low is high is None
            continue
        centre = share + z * z / (2 * count)
        half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
        bounds = [(centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)]
        assert [low, high] == pytest.approx([max(0, bounds[0]), min(1, bounds[1])], abs=1e-12)
    assert {count < 2 for _, count, _, _ in found} == {True, False}


def test_a_second_refresh_does_nothing_and_imports_no_torch(lake, series, facts_directory):
    before = tree(lake)
    script = (
        "import sys\nfrom timecourse.cli import app\n"
        "try:\n    app(sys.argv[1:])\nfinally:\n"
        "    print({'torch', 'dbt', 'great_expectations', 'altair'} & set(sys.modules))"
    )
    flags = ["--checkpoints", series, "--facts", facts_directory, "--lake", lake, "--series", "s", "--tau", "0.03"]
    flags += ["--set", "statistics.replicates=50"]
    done = subprocess.run(
        [sys.executable, "-c", script, "refresh", *map(str, flags)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout and "set()" in done.stdout
    assert tree(lake) == before


@pytest.fixture(scope="module")
def changed(finished, series_directory, facts_directory, run, tmp_path_factory):
    """The lake after a checkpoint was added and one changed; extracted, then with one more tau, then released with
    another theta. Read only. Yields it, its files before and in between, and what was said."""
    folder = tmp_path_factory.mktemp("changed")
    lake = shutil.copytree(finished[0], folder / "lake", symlinks=True)
    series = shutil.copytree(series_directory, folder / "series")
    save_checkpoint(series / "step200", seed=7, clip_qkv=0.8)
    save_checkpoint(series / "step0", seed=8, clip_qkv=0.8)
    flags = ["--checkpoints", series, "--facts", facts_directory, "--series", "s", "--lake", lake, "--tau", "0.03"]
    files, said = [tree(lake)], []
    for command, *more in (
        ("extract",),
        ("extract", "--tau", "0.05"),
        ("refresh", "--tau", "0.05", "--theta", "0.4"),
    ):
        done = run(command, *flags, *more)
        assert done.returncode == 0, done.stderr
        files.append(tree(lake))
        said.append(done.stdout)
    return lake, files, said


def test_only_what_is_new_or_changed_is_extracted(finished, changed):
    lake, (before, after, _, released), (said, *_) = changed
    assert "extracted 2 of 4" in said
    kept = {path for path in before if path.startswith(("raw", "commits", "releases"))}
    replaced = {path for path in kept if path.startswith(("raw", "commits")) and "step0" in path}
    replaced_commits = {path for path in replaced if path.startswith("commits")}
    assert replaced_commits and all(after[path] != before[path] for path in replaced_commits)
    assert not [path for path in replaced - replaced_commits if path in released], "the old extraction is gone"
    assert all(after[path] == before[path] for path in kept - replaced_commits), "until a refresh, for who reads it"
    names = rows(lake, "select checkpoint_name from dim_checkpoints order by checkpoint_index")
    assert names == [("step0",), ("step100-tokens1B",), ("step200",), ("main",)]
    predictions = "select fact_id, first_token_rank, mean_log_prob from fct_fact_predictions"
    for name, is_same in (("step0", False), ("main", True)):
        of_name = f"{predictions} where checkpoint_id = 's/{name}' order by all"
        assert (rows(lake, of_name) == rows(finished[0], of_name)) == is_same


def test_a_checkpoint_is_committed_while_the_next_is_measured(run, series, facts_directory, tmp_path, monkeypatch):
    """The first commit waits here until the second measurement has begun: one after the other, it would never end."""
    import timecourse.refresh as module

    measure, finish, names, second_began = module.measured, module.finish, [], threading.Event()

    def measured(source, request, *others):
        names.append(request.checkpoint.name)
        if len(names) == 2:
            second_began.set()
        return measure(source, request, *others)

    def finished_beside_it(*arguments):
        assert second_began.wait(60), "the next checkpoint is not measured before this one is committed"
        return finish(*arguments)

    monkeypatch.setattr(module, "measured", measured)
    monkeypatch.setattr(module, "finish", finished_beside_it)
    flags = ["--checkpoints", series, "--facts", facts_directory, "--series", "s", "--tau", "0.03"]
    done = run("extract", *flags, "--lake", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    committed = {commit.checkpoint_id for commit in Lake(tmp_path / "new").readable_commits()[0]}
    assert committed == {f"s/{name}" for name in names} and len(names) > 1


def test_other_settings_extract_anew_and_theta_only_builds(changed):
    lake, (before, _, extracted, released), (_, of_tau, of_theta) = changed
    assert "extracted 4 of 4" in of_tau
    assert "extracted" not in of_theta and "θ = 0.4" in of_theta
    named = {commit.content["directory"] for commit in Lake(lake).commits()}
    raw = {path for path in released if path.startswith("raw")}
    assert raw == {path for path in extracted if str(Path(path).parent) in named}
    assert all(released[path] == before[path] for path in before if path.startswith("releases")), "the last one stays"
    assert rows(lake, "select distinct tau_id from fct_role_memberships order by 1") == [("0.03",), ("0.05",)]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["corrupt", "lost"])
def test_a_lost_or_corrupt_build_database_gives_the_same_marts(refresh, lake, damage, tmp_path):
    query = "select * from fct_component_histories order by all"
    before = rows(lake, query), rows(lake, "select * from fct_role_stabilities order by all")
    database = lake / "build" / "warehouse.duckdb"
    database.unlink()
    if damage == "corrupt":
        database.write_bytes(b"no database" * 1000)
    (lake / "current").unlink()
    settings = tmp_path / "timecourse.toml"
    settings.write_text("[statistics]\nreplicates = 50\n")
    assert refresh("--settings", settings, command="build").returncode == 0
    assert (rows(lake, query), rows(lake, "select * from fct_role_stabilities order by all")) == before


def test_a_failed_gate_keeps_the_last_release_and_exits_3(refresh, lake, series, run):
    release = (lake / "current").readlink()
    (commit,) = [file for file in (lake / "commits").glob("*/*.json") if "step0" in file.name]
    directory = lake / json.loads(commit.read_text())["directory"]
    with duckdb.connect() as connection:  # a copy of every prediction: keys are no longer unique
        file = directory / "predictions.parquet"
        connection.execute(f"create table rows as from '{file}' union all from '{file}'")
        connection.execute(f"copy rows to '{file}' (format parquet)")
    content = json.loads(commit.read_text())  # as if it had been committed so: a damaged file would be made anew
    now = {"bytes": file.stat().st_size, "sha256": sha256_of(file), "rows": 2 * content["files"]["predictions"]["rows"]}
    content["files"]["predictions"] |= now
    commit.write_text(json.dumps(content))
    checked = run("check", "--lake", lake)
    assert checked.returncode == 3 and "fail: predictions of s/step0" in checked.stdout
    shutil.rmtree(lake / "build")
    (series / "main").rename(series / "step300")
    done = refresh()
    assert done.returncode == 3, done.stdout + done.stderr
    assert "failing rows" in done.stderr and done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert (lake / "current").readlink() == release


def test_a_checkpoint_that_fails_its_gate_is_set_aside(refresh, lake, series, facts_directory, monkeypatch, run):
    """The gate stands between extraction and commit: an extraction with a wrong peak is never committed, the others
    are, and it is tried again when its weights change."""
    from timecourse.extract import job

    def broken_write(measured, directory):
        name = measured.checkpoint["checkpoint_name"]
        tried.append(name)
        rows = write(measured, directory)
        if name == "step200":
            with duckdb.connect() as connection:
                file = directory / "attributions.parquet"
                connection.execute(f"create table rows as select * replace (2::float as peak) from '{file}'")
                connection.execute(f"copy rows to '{file}' (format parquet)")
        return rows

    tried, write = [], job.Measured.write
    monkeypatch.setattr(job.Measured, "write", broken_write)
    save_checkpoint(series / "step150", seed=3)
    save_checkpoint(series / "step200", seed=7)
    before = {path: content for path, content in tree(lake).items() if path.startswith(("raw", "commits"))}
    done = refresh(command="extract")
    assert done.returncode == 3 and "extracted 1 of 4" in done.stdout, done.stdout
    assert done.stderr.startswith("error: 1 of 5 ") and "step200" in done.stderr and done.stderr.count("\n") == 1
    after = tree(lake)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.startswith(("raw", "commits")) and "step200" in path]
    status = run("status", "--lake", lake).stdout
    assert "set aside: s/step200" in status and "peak" in status
    (row,) = [
        one
        for one in json.loads(run("checkpoints", "--checkpoints", series, "--lake", lake, "--series", "s", "--set",
                                  f"facts.directory={facts_directory}", "--set", "measurement.tau=0.03",
                                  "--format", "json").stdout)
        if one["name"] == "step200"
    ]  # fmt: skip
    assert row["state"] == "set aside" and "peak" in row["reason"]

    tried.clear()
    again = refresh(command="extract")
    assert again.returncode == 0 and not tried and "as before, 1 of 5" in again.stdout, "it is known"
    named = refresh("--only", "step200", command="extract")
    assert named.returncode == 3 and tried == ["step200"], "what is asked for by name is tried, and its failure is news"
    monkeypatch.setattr(job.Measured, "write", write)
    save_checkpoint(series / "step200", seed=8)
    mended = refresh(command="extract")
    assert mended.returncode == 0 and "extracted 1 of 5" in mended.stdout
    assert Lake(lake).quarantined() == []


def test_facts_that_do_not_fit_leave_the_lake_as_it_was(refresh, lake, tmp_path):
    before = tree(lake)
    (tmp_path / "facts").mkdir()
    fact = {"name": "x", "prompt_templates": ["{} " + "is " * 70], "samples": [{"subject": "a", "object": "b"}]}
    (tmp_path / "facts" / "x.json").write_text(json.dumps(fact))
    done = refresh("--facts", tmp_path / "facts")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    assert tree(lake) == before


@pytest.mark.parametrize("damage", ["nan", "torn", "changed for nan"])
def test_a_checkpoint_that_cannot_be_used_does_not_stop_the_others(refresh, lake, series, damage):
    commits = {path: content for path, content in tree(lake).items() if path.startswith(("commits", "raw"))}
    save_checkpoint(series / "step150", seed=3)
    broken = "step100-tokens1B" if damage == "changed for nan" else "step200"
    save_checkpoint(series / broken, seed=4, scale=1.0 if damage == "torn" else float("nan"))
    if damage == "torn":
        weights = series / broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    done = refresh(command="extract")
    assert done.returncode == 1 and "extracted 1 of 4" in done.stdout
    assert done.stderr.startswith("error: 1 of ") and done.stderr.count("\n") == 1 and broken in done.stderr
    after = tree(lake)
    assert {path: after.get(path) for path in commits} == commits, "what was committed stays"
    (declared,) = Lake(lake).declarations()
    statuses = {one["name"]: one["status"] for one in declared["checkpoints"]}
    assert statuses[broken] == ("unusable" if damage == "torn" else "failed")
    again = refresh(command="extract")
    assert again.returncode == 0 and broken in again.stdout, "what was said before is no error"
    shutil.rmtree(series / broken)
    mended = refresh(command="extract")
    assert mended.returncode == 0 and mended.stdout == "nothing to do: every checkpoint is committed\n"


def test_two_architectures_are_no_series(refresh, lake, series, tmp_path):
    """Neither among the checkpoints that are new, nor with one that the lake holds and that is not replaced."""
    before = tree(lake)
    save_checkpoint(series / "step150", seed=3)
    save_checkpoint(series / "step200", seed=4, num_attention_heads=4)
    done = refresh()
    assert done.returncode == 1 and tree(lake) == before
    assert done.stderr.startswith(
        "error: s/step150 and s/step200 differ in head_count 5 and 4, kv_head_count 5 and 4; "
    )
    assert done.stderr.count("\n") == 1

    save_checkpoint(tmp_path / "other" / "step0", seed=4, num_hidden_layers=2)
    done = refresh("--checkpoints", tmp_path / "other")
    assert done.returncode == 1 and tree(lake) == before
    assert "s/step0 and s/main (in the lake) differ in layer_count 2 and 3; " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_withdrawn_checkpoint_disappears_and_makes_room(lake, run, facts_directory, tmp_path):
    for name in ("step100-tokens1B", "main"):
        done = run("withdraw", f"s/{name}", "--lake", lake)
        assert done.returncode == 0, done.stderr
    assert "no committed checkpoint is called" in run("withdraw", "s/main", "--lake", lake).stderr
    save_checkpoint(tmp_path / "other" / "step0", seed=4, num_hidden_layers=2)
    flags = ["--checkpoints", tmp_path / "other", "--facts", facts_directory, "--lake", lake, "--series", "s"]
    done = subprocess.run(
        [sys.executable, "-m", "timecourse.cli", "refresh", *flags, "--tau", "0.03"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")  # the libraries keep quiet
    assert rows(lake, "select layer_count, checkpoint_count from dim_series") == [(2, 1)]
    assert rows(lake, "select checkpoint_id from dim_checkpoints") == [("s/step0",)]
    for table in ("fct_component_histories", "fct_fact_predictions", "fct_check_results"):
        assert rows(lake, f"select count(*) from {table} where checkpoint_id in ('s/main', 's/step100-tokens1B')") == [
            (0,)
        ]


@pytest.fixture
def small_files(monkeypatch):
    """Lets no file grow beyond 20 kB from the first call of the named function on, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit_from(module, function):
        original = getattr(importlib.import_module(module), function)

        def limited(*arguments):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # Python ignores the signal
            return original(*arguments)

        monkeypatch.setattr(f"{module}.{function}", limited)

    yield limit_from
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("module", "function"), [("timecourse.extract.tables", "write_table"), ("timecourse.release", "_copy_marts")]
)
def test_a_full_disk_loses_nothing(refresh, lake, series, small_files, monkeypatch, module, function):
    """From the named step on, the extraction, or the release, cannot be written."""
    built = BuildResult(
        lake / "build" / "warehouse.duckdb", (), (), (), False
    )  # the last one: what it holds is no matter
    monkeypatch.setattr("timecourse.refresh.build_warehouse", lambda *_, **__: built)
    before = tree(lake)
    save_checkpoint(series / "step200", seed=7, clip_qkv=0.8)
    small_files(module, function)
    done = refresh()
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1 and "File too large" in done.stderr, done.stderr
    after = tree(lake)
    kept = {path for path in before if not path.startswith("series")}  # what is offered may have been written down
    assert {path: after.get(path) for path in kept} == {path: before[path] for path in kept}
    added = {path.split("/")[0] for path in after.keys() - before.keys()}
    assert added == (set() if function == "write_table" else {"raw", "commits"})


def test_a_second_run_at_the_same_time_is_told_so(refresh, lake):
    from filelock import FileLock

    with FileLock(lake / ".locks" / "lake.lock"):
        done = refresh()
    assert done.returncode == 75 and "another run is writing" in done.stderr


def test_leftovers_of_a_killed_run_are_removed(refresh, lake):
    (lake / ".incoming" / "torn").mkdir()
    (lake / ".incoming" / "torn" / "prompts.parquet").write_bytes(b"PAR1")
    orphan = lake / "raw" / "x" / "y" / "z"
    orphan.mkdir(parents=True)
    assert refresh().returncode == 0
    assert not (lake / ".incoming" / "torn").exists() and not orphan.exists()


@pytest.fixture(scope="module")
def several(finished, series_directory, facts_directory, run, tmp_path_factory):
    """The lake with four more series: the same checkpoints under a hostile name, and other architectures. Read only."""
    folder = tmp_path_factory.mktemp("several")
    lake = shutil.copytree(finished[0], folder / "lake", symlinks=True)
    flags = ["--facts", facts_directory, "--lake", lake, "--tau", "0.03"]
    for model_type in ("gpt_neox", "gpt2", "olmo2"):
        save_random_checkpoint(folder / model_type / "step1", model_type, num_attention_heads=4, hidden_size=32)
        done = run("extract", "--checkpoints", folder / model_type, "--series", model_type, *flags)
        assert done.returncode == 0, done.stderr
    done = run("refresh", "--checkpoints", series_directory, "--series", "o'ther/=<b>", "--complete", *flags)
    assert done.returncode == 0, done.stderr
    return lake


@pytest.mark.slow
def test_two_series_in_one_lake(run, several, series_directory, facts_directory):
    provisional = dict(rows(several, "select distinct series_id, is_provisional from dim_checkpoints"))
    assert provisional["s"] is True and provisional["o'ther/=<b>"] is False
    # equal weights in two series are no news; and the first series' refresh keeps what the second declared
    flags = ["--checkpoints", series_directory, "--facts", facts_directory, "--lake", several, "--tau", "0.03"]
    assert run("refresh", *flags, "--series", "s").stdout.startswith("nothing to do")
    pairs = rows(
        several,
        """select series_id, other_series_id, is_comparable, reason from dim_series_pairs
        where series_id in ('s', 'o''ther/=<b>') and other_series_id in ('s', 'o''ther/=<b>') order by all""",
    )
    assert pairs == [("o'ther/=<b>", "s", True, None), ("s", "o'ther/=<b>", True, None)]
    columns = "* exclude (series_id, checkpoint_id, relation_id)"
    mine, other = (
        rows(several, f"select {columns} from fct_role_memberships where series_id = {name}")
        for name in ("'s'", "'o''ther/=<b>'")
    )
    assert sorted(map(str, mine)) == sorted(map(str, other)) and mine


@pytest.mark.slow
def test_series_of_other_blocks_are_not_compared(several):
    """A GPT-NeoX, a GPT-2 (pre-norm, biases) and an OLMo 2 (post-norm) beside the OLMo: each passes its gate."""
    assert dict(rows(several, "select series_id, block from dim_series")) == {
        "s": "sequential",
        "o'ther/=<b>": "sequential",
        "gpt_neox": "parallel",
        "gpt2": "sequential",
        "olmo2": "sequential",
    }
    pairs = rows(several, "select list_sort([series_id, other_series_id]), is_comparable, reason from dim_series_pairs")
    assert len(pairs) == 20
    for names, is_comparable, reason in pairs:
        assert is_comparable == ("gpt_neox" not in names)
        assert is_comparable or "gpt_neox has parallel blocks" in reason or "and gpt_neox parallel ones" in reason
    (neox,) = (several / "current").resolve().glob("site/gpt-neox-*/index.html")
    said = " ".join(neox.read_text(encoding="utf-8").split())
    assert said.count("Not to be compared: gpt_neox has parallel blocks and ") == 4
