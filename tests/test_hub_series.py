"""A messy public series the whole way, through the real client: what is offered, fetched, flagged and reported."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from tests.conftest import save_checkpoint
from tests.hub_server import HubServer

REPOSITORY = "lab/tiny"
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128]
USED = [f"step{step}" for step in STEPS if step not in (2, 8)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """One small checkpoint per step, and one more for the end of training."""
    root = tmp_path_factory.mktemp("weights")
    for index, name in enumerate([*(f"step{step}" for step in STEPS), "other"]):
        save_checkpoint(root / name, seed=index, num_hidden_layers=1)
    return root


@pytest.fixture
def revisions(weights, tmp_path):
    """Twelve revisions: nine steps, of which step2 serves the last step's weights and step8 lacks its shard; a renamed
    branch that says no step; `main` for the last step; and pickled weights beside the others."""
    root = tmp_path / "repository"
    shutil.copytree(weights, root, ignore=shutil.ignore_patterns("other"))
    shutil.rmtree(root / "step2")
    shutil.copytree(root / "step128", root / "step2")
    shutil.copytree(root / "step128", root / "main")
    shutil.copytree(weights / "other", root / "release-candidate")
    shutil.copytree(weights / "other", root / "fp16")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (root / "step8" / "model.safetensors").rename(root / "step8" / "model-00001-of-00002.safetensors")
    (root / "step8" / "model.safetensors.index.json").write_text(json.dumps(index))
    (root / "step16" / "pytorch_model.bin").write_bytes(b"never read" * 1000)
    return {folder.name: folder for folder in root.iterdir()}


@pytest.fixture
def hub(revisions):
    with HubServer() as server:
        server.add_repository(REPOSITORY, revisions)
        yield server


@pytest.fixture
def refresh(run, hub, tmp_path, facts_directory, monkeypatch):
    """Runs a command on the repository, with the client pointed at the local hub."""
    hub.redirect_client(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr("timecourse.extract.checkpoints.hub.WAIT", lambda _state: 0.01)

    def run_command(*flags, command="refresh", place=f"hf://{REPOSITORY}"):
        named = ["--checkpoints", place, "--series", "tiny", "--lake", tmp_path / "lake"]
        more = ["--facts", facts_directory, "--tau", "5x"] if command != "checkpoints" else []
        return run(command, *named, *more, *flags)

    return run_command


def released(tmp_path, query):
    release = (tmp_path / "lake" / "current").resolve()
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_a_messy_repository_goes_the_whole_way(refresh, hub, revisions, tmp_path):
    listed = refresh("--format", "json", command="checkpoints")
    assert listed.returncode == 0, listed.stderr
    states = {row["name"]: row["state"] for row in json.loads(listed.stdout)}
    new = {name: "new" for name in ("step0", "step1", "step4", "step16", "step32", "step64", "step128")}
    assert states == new | {
        "step2": "duplicate",
        "step8": "unusable",
        "main": "alias",
        "release-candidate": "left out",
        "fp16": "left out",
    }
    assert hub.bytes_sent("*.safetensors") == 0, "listing fetches no weights"

    done = refresh()
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "1 of 12 checkpoints could not be used: checkpoint 'step8' lacks the weights file" in done.stderr
    assert "extracted 7 of 7" in done.stdout
    assert hub.bytes_sent("*.bin") == 0
    size = (revisions["step0"] / "model.safetensors").stat().st_size
    assert hub.bytes_sent("*.safetensors") == 7 * size, "each once, and none for another name of the same weights"

    order = "select checkpoint_name from dim_checkpoints order by checkpoint_index"
    assert [name for (name,) in released(tmp_path, order)] == list(new)
    commits = dict(released(tmp_path, "select checkpoint_name, commit_sha from dim_checkpoints"))
    assert commits == {name: hub.commit(REPOSITORY, name) for name in new}
    offered = {
        name: (status, same)
        for name, status, same in released(
            tmp_path, "select checkpoint_name, status, same_weights_as from dim_revisions"
        )
    }
    assert offered["step2"] == ("duplicate", "step128") and offered["main"] == ("alias", "step128")
    assert offered["step8"][0] == "unusable" and len(offered) == 12
    warned = released(tmp_path, "select failing_rows from fct_check_results where result = 'warn'")
    assert any("step2" in str(rows) for (rows,) in warned) and any("step8" in str(rows) for (rows,) in warned)

    hub.clear_requests()
    again = refresh()
    assert again.returncode == 0 and "step8" in again.stdout, "what was said before is no error"
    assert "released" not in again.stdout
    assert hub.bytes_sent("*.safetensors") == 0

    shutil.copytree(revisions["step8"], tmp_path / "mended")
    shutil.copy(tmp_path / "mended/model-00001-of-00002.safetensors", tmp_path / "mended/model.safetensors")
    for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors"):
        (tmp_path / "mended" / name).unlink()
    hub.add_repository(REPOSITORY, {"step8": tmp_path / "mended"})
    mended = refresh(command="extract")
    assert mended.returncode == 0, mended.stderr
    assert "extracted 1 of 8" in mended.stdout


@pytest.mark.slow
def test_duplicates_can_be_made_to_fail(refresh, tmp_path):
    done = refresh("--set", "series.duplicates=fail", "--set", "series.leave_out=['step8']")
    assert done.returncode == 3 and "step2" in done.stderr
    assert not (tmp_path / "lake" / "current").exists()


def committed(tmp_path):
    files = (tmp_path / "lake" / "commits").glob("*/*.json")
    return {json.loads(file.read_text())["checkpoint_name"] for file in files}


@pytest.mark.slow
def test_one_revision_that_cannot_be_fetched_does_not_stop_the_others(refresh, hub, tmp_path):
    hub.fail(
        f"/{REPOSITORY}/resolve/{hub.commit(REPOSITORY, 'step4')}/model.safetensors", 500, times=None, method="GET"
    )
    hub.cut("*/resolve/*/model.safetensors", after=3000, times=3)
    hub.fail("*/resolve/*/tokenizer.json", 429, times=2, retry_after=0)
    done = refresh("--set", "series.leave_out=['step8']", command="extract")
    assert done.returncode == 1 and "'step4'" in done.stderr and done.stderr.count("\n") == 1
    assert committed(tmp_path) == set(USED) - {"step4"}
    hub.clear_faults()
    assert refresh("--set", "series.leave_out=['step8']", command="extract").returncode == 0
    assert committed(tmp_path) == set(USED)


def test_selection_chooses_what_is_fetched(refresh, hub, revisions, tmp_path):
    done = refresh("--set", "series.select.log_spaced=3", "--set", "series.leave_out=['step8']", command="extract")
    assert done.returncode == 0, done.stderr
    names = committed(tmp_path)
    assert {"step0", "step128"} < names < set(USED) and len(names) <= 4
    size = (revisions["step0"] / "model.safetensors").stat().st_size
    assert hub.bytes_sent("*.safetensors") == len(names) * size


@pytest.mark.slow
def test_the_cache_stays_within_its_limit(refresh, hub, revisions, tmp_path, monkeypatch):
    from timecourse.extract.checkpoints.hub import HubSource

    size = (revisions["step0"] / "model.safetensors").stat().st_size
    fetch, seen = HubSource.fetch, []

    def watched(self, checkpoint):
        fetch(self, checkpoint)
        blobs = [path.stat().st_size for path in (tmp_path / "cache").rglob("blobs/*") if path.is_file()]
        seen.append(sum(one for one in blobs if one >= size))

    monkeypatch.setattr(HubSource, "fetch", watched)
    limit = 2.6 * size / 1e9
    done = refresh("--set", f"machine.max_cache_gb={limit}", "--set", "series.leave_out=['step8']", command="extract")
    assert done.returncode == 0, done.stderr
    assert len(seen) == 7 and max(seen) == 2 * size, "the next one is fetched while one is measured, and no more"

    too_small = refresh("--set", f"machine.max_cache_gb={size / 2e9}", "--set", "measurement.norm=l2")
    assert too_small.returncode == 2 and "max_cache_gb" in too_small.stderr and too_small.stderr.count("\n") == 1


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_fetched_twice(refresh, hub, tmp_path, facts_directory):
    """What the cache holds whole when the run is killed is not sent again; one file may have been on its way."""
    names = {name: f"/{REPOSITORY}/resolve/{hub.commit(REPOSITORY, name)}/model.safetensors" for name in USED}
    hub.slow(names["step128"], delay=600, method="GET")  # so that the run cannot end before it is killed
    without_step8 = ["--set", "series.leave_out=['step8']"]
    arguments = ["extract", "--checkpoints", f"hf://{REPOSITORY}", "--series", "tiny", "--lake", tmp_path / "lake"]
    arguments += ["--facts", facts_directory, "--tau", "5x", *without_step8]
    # the token tells late requests of the first run from those of the second
    own = {**hub.environment(home=tmp_path), "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": hub.token}
    said = tmp_path / "said"
    with (
        said.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "timecourse.cli", *map(str, arguments)],
            env={**os.environ, **own},
            stdout=output,
            stderr=output,
        ) as first,
    ):
        try:
            deadline = time.monotonic() + 240
            while len(committed(tmp_path)) < 3:
                assert first.poll() is None and time.monotonic() < deadline, said.read_text()
                time.sleep(0.02)
        finally:
            first.kill()
    blobs = {path.name for path in (tmp_path / "cache").glob("*/blobs/*")}  # parts end in .incomplete
    whole = {name for name in USED if hub.file(REPOSITORY, name, "model.safetensors").sha256 in blobs}
    assert committed(tmp_path) <= whole < set(USED)

    hub.clear_faults()
    done = refresh(*without_step8, command="extract")
    assert done.returncode == 0, done.stderr
    requests = hub.matching("*.safetensors", "GET")
    before = {one.path for one in requests if one.authorization}
    after = [one.path for one in requests if not one.authorization]
    there = {names[name] for name in whole}
    assert sorted(after) == sorted(set(names.values()) - there), "the rest, each once, and nothing that was there"
    assert there <= before and len(before - there) <= 1
    assert committed(tmp_path) == set(USED)


@pytest.mark.parametrize(
    ("place", "flags", "message"),
    [
        ("hf://lab/nothing", [], "has no lab/nothing"),
        ("hf://lab/tiny/x", [], "owner/name"),
        (f"hf://{REPOSITORY}", ["--set", "series.pattern='epoch(?P<step>\\d+)'"], "none of 12 names"),
        (f"hf://{REPOSITORY}", ["--set", "series.pattern='step(?P<step>\\d)\\d*'"], "both claim step"),
        (f"hf://{REPOSITORY}", ["--set", "series.pattern='step('"], "no valid regular expression"),
        (f"hf://{REPOSITORY}", ["--set", "series.select.names=['step3']"], "the closest is 'step"),
    ],
)
def test_mistakes_are_one_line_and_create_no_lake(refresh, tmp_path, place, flags, message):
    done = refresh(*flags, place=place)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / "lake").exists()


def test_a_gated_repository_and_no_network_are_said(refresh, hub, revisions, tmp_path):
    hub.add_repository(REPOSITORY, revisions, gated=True)
    done = refresh()
    assert done.returncode == 1 and "hf auth login" in done.stderr and done.stderr.count("\n") == 1
    hub.close()
    done = refresh()
    assert done.returncode == 1 and "cannot be reached" in done.stderr and done.stderr.count("\n") == 1
    assert not Path(tmp_path / "lake").exists()
