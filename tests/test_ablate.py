"""The causal check as a user runs it, on a model whose mechanism is known: weights in, marts out."""

import json
import math
import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tests.extract import planted_model
from timecourse.ablate import Ablated, ablate
from timecourse.config import load_settings
from timecourse.errors import UserError
from timecourse.extract.ablations import job
from timecourse.lake import Lake, LockedError
from timecourse.verification import verify


def rows(lake, query):
    with duckdb.connect(str((lake / "current").resolve() / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def released(tmp_path_factory, run):
    """A lake of three checkpoints of the planted model, which knows nothing, a little, and everything; not ablated."""
    directory = tmp_path_factory.mktemp("planted")
    facts = planted_model.save_planted_facts(directory / "facts")
    for step, strength in enumerate((0.0, 3.0, planted_model.STRENGTH)):
        planted_model.save_planted_checkpoint(directory / "checkpoints" / f"step{step}", strength)
    where = ["--series", "planted", "--facts", facts, "--tau", "0.05", "--theta", "0.2"]
    done = run("refresh", "--checkpoints", directory / "checkpoints", "--lake", directory / "lake", *where)
    assert done.returncode == 0, done.stderr
    return directory / "lake", ["--from", directory / "checkpoints", *where]


@pytest.fixture(scope="module")
def ablated(released, tmp_path_factory, run):
    """The same after `timecourse ablate` with its defaults. Copy before changing."""
    lake = tmp_path_factory.mktemp("ablated") / "lake"
    shutil.copytree(released[0], lake, symlinks=True)
    done = run("ablate", "--lake", lake, *released[1])
    assert done.returncode == 0, done.stderr
    return lake, done.stdout


def test_what_it_says(ablated):
    said = ablated[1]
    assert "ablating 3 checkpoints" in said and "runs of a prompt" in said and "minutes" in said
    assert "ablated step0, step1, step2" in said
    assert "released" in said


def test_the_planted_mechanism_is_found(ablated):
    """Capitals need L1H1 alone, languages L0H2 alone: silencing their sets hurts them, and nothing else."""
    matrix = rows(
        ablated[0],
        "select set_relation_id, scored_relation_id, effect from fct_relation_specificities "
        "where checkpoint_id = 'planted/step2' and method = 'mean' and role = 'relation_answer'",
    )
    effects = {(own, scored): effect for own, scored, effect in matrix}
    for relation in ("capital_of", "language_of"):
        assert effects[relation, relation] < -1
        others = [effect for (own, scored), effect in effects.items() if own == relation and scored != relation]
        assert others and max(map(abs, others)) < 1e-3


def test_effects_beat_the_random_sets_beside_them(ablated):
    found = rows(
        ablated[0],
        "select scope_id, method, effect, random_mean, random_count, p_value from fct_role_effects "
        "where checkpoint_id = 'planted/step2' and role = 'relation_answer' and scope_kind = 'relation'",
    )
    assert {method for _, method, *_ in found} == {"mean", "resample"}
    for relation, _, effect, random_mean, random_count, p_value in found:
        if relation in ("capital_of", "language_of") and random_count:
            assert effect < random_mean
            assert p_value >= 1 / (1 + random_count) - 1e-12


def test_every_number_is_that_of_its_raw_rows(ablated):
    """One cell of the matrix by hand: sum over an answer's tokens, mean over a fact's prompts, mean over facts."""
    lake = Lake(ablated[0])
    (ablation,) = [one for one in lake.ablations() if one.checkpoint_id == "planted/step2"]
    (extraction,) = [one for one in lake.commits() if one.checkpoint_id == "planted/step2"]
    folder, source = (lake.root / one.content["directory"] for one in (ablation, extraction))
    sets = pq.read_table(folder / "ablation_sets.parquet").to_pylist()
    own = {one["set_id"] for one in sets if one["set_kind"] == "role" and one["relation_id"] == "capital_of"
           and one["role"] == "relation_answer"}  # fmt: skip
    facts = {
        one["prompt_id"]: one["fact_id"]
        for one in pq.read_table(source / "prompts.parquet").to_pylist()
        if one["relation_id"] == "capital_of"
    }
    by_prompt: dict[int, float] = {}
    for row in pq.read_table(folder / "ablations.parquet").to_pylist():
        if row["method"] == "mean" and row["set_id"] in own and row["prompt_id"] in facts:
            by_prompt[row["prompt_id"]] = by_prompt.get(row["prompt_id"], 0.0) + row["delta_log_prob"]
    by_fact: dict[str, list[float]] = {}
    for prompt, change in by_prompt.items():
        by_fact.setdefault(facts[prompt], []).append(change)
    means = [math.fsum(changes) / len(changes) for changes in by_fact.values()]
    ((effect, fact_count),) = rows(
        ablated[0],
        "select effect, fact_count from fct_role_effects where checkpoint_id = 'planted/step2' and method = 'mean' "
        "and role = 'relation_answer' and scope_kind = 'relation' and scope_id = 'capital_of'",
    )
    assert fact_count == len(means) == 8
    assert effect == pytest.approx(math.fsum(means) / len(means), abs=1e-6)


def test_sets_are_scored_on_the_other_half(ablated):
    lake = Lake(ablated[0])
    halves = dict(rows(ablated[0], "select fact_id, half from fct_fact_halves"))
    assert set(halves.values()) == {"A", "B"}
    for ablation in lake.ablations():
        folder = lake.root / ablation.content["directory"]
        half_of_set = {
            one["set_id"]: one["half"] for one in pq.read_table(folder / "ablation_sets.parquet").to_pylist()
        }
        source = lake.root / "raw" / folder.relative_to(lake.root / "raw").parent / ablation.extraction_id
        facts = {one["prompt_id"]: one["fact_id"] for one in pq.read_table(source / "prompts.parquet").to_pylist()}
        scored = {(one["set_id"], one["prompt_id"]) for one in pq.read_table(folder / "ablations.parquet").to_pylist()}
        assert {half_of_set[number] for number, _ in scored} == {"A", "B", None}
        assert all(halves[facts[prompt]] != half_of_set[number] for number, prompt in scored)


def test_a_second_run_does_nothing(ablated, released, tmp_path, run):
    lake = tmp_path / "lake"
    shutil.copytree(ablated[0], lake, symlinks=True)
    before = {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")}
    done = run("ablate", "--lake", lake, *released[1])
    assert done.returncode == 0, done.stderr
    assert "ablated so before" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")} == before


@pytest.mark.slow
def test_an_interrupted_ablation_goes_on(ablated, released, tmp_path, run, monkeypatch):
    """Killed between two parts, it scores only what is not there whole, and ends with the same rows."""
    lake = tmp_path / "lake"
    shutil.copytree(released[0], lake, symlinks=True)
    monkeypatch.setattr(job, "PAIRS_PER_PART", 500)
    score, scored = job.score, []

    def counting(model, prompts, sets, pairs, method, **how):
        if method != "zero":  # by which the costs are estimated
            scored.append(len(pairs))
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score(model, prompts, sets, pairs, method, **how)

    monkeypatch.setattr(job, "score", counting)
    assert run("ablate", "--lake", lake, "--checkpoints", "last", *released[1]).returncode == 130
    assert Lake(lake).ablations() == []
    _, torn = sorted(lake.glob(".unfinished/*/*.parquet"))
    torn.write_bytes(torn.read_bytes()[:-9])
    monkeypatch.setattr(job, "score", score)
    done = run("ablate", "--lake", lake, "--checkpoints", "last", *released[1])
    assert done.returncode == 0, done.stderr
    assert not list(lake.glob(".unfinished/*"))
    tables = []
    for root in (lake, ablated[0]):
        (ablation,) = [one for one in Lake(root).ablations() if one.checkpoint_id == "planted/step2"]
        tables.append(pq.read_table(root / ablation.content["directory"] / "ablations.parquet").to_pylist())
    keys = ("method", "set_id", "prompt_id", "answer_token_index")
    assert [[row[key] for key in keys] for row in tables[0]] == [[row[key] for key in keys] for row in tables[1]]
    assert all(
        ours["delta_log_prob"] == pytest.approx(whole["delta_log_prob"], abs=1e-5)
        for ours, whole in zip(*tables, strict=True)
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoints", "step7"], "the checkpoint 'step7' is not extracted"),
        (["--roles", "genral"], "ablation.roles"),
        (["--methods", "delete"], "ablation.methods"),
        (["--random-sets", "3"], "ablation.random_sets"),
        (["--theta", "0.3"], "the current release has roles at theta 0.2, not 0.3"),
        (["--norm", "l2"], "no checkpoint of planted is extracted with these settings"),
    ],
)
def test_mistakes_end_in_one_line(released, run, flags, message):
    lake, where = released
    done = run("ablate", "--lake", lake, *where, *flags)
    assert done.returncode != 0
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_lake_without_a_release_says_what_to_do(tmp_path, released, run):
    done = run("ablate", "--lake", tmp_path / "empty", *released[1])
    assert done.returncode == 1
    assert "run `timecourse refresh`" in done.stderr


def test_a_changed_extraction_loses_its_ablation(ablated, tmp_path):
    """What was measured on other weights or facts is not shown beside the new ones."""
    lake = Lake(tmp_path / "lake")
    shutil.copytree(ablated[0], lake.root, symlinks=True)
    commit, *_ = lake.commits()
    (ablation,) = [one for one in lake.ablations() if one.checkpoint_id == commit.checkpoint_id]
    anew = Path(commit.content["directory"]).parent / ("0" * 32)
    shutil.copytree(lake.root / commit.content["directory"], lake.root / anew)
    content = {**commit.content, "extraction_id": anew.name, "directory": str(anew)}
    commit.path.write_text(json.dumps(content))
    assert len(lake.ablations()) == 2 and ablation.path.is_file()
    with lake.locked():
        lake.prune()
    assert not ablation.path.exists() and not (lake.root / ablation.content["directory"]).exists()
    assert len(lake.ablations()) == 2 and verify(lake).problems == []


def settings_of(released, lake, more=None):
    """The settings by which `released` was made, for another lake."""
    named = dict(zip(*[iter(released[1])] * 2, strict=True))
    flags = {
        ("series", "checkpoints"): str(named["--from"]),
        ("series", "name"): named["--series"],
        ("facts", "directory"): named["--facts"],
        ("measurement", "tau"): named["--tau"],
        ("roles", "theta"): named["--theta"],
        ("lake", "directory"): lake,
    }
    return load_settings(None, flags | (more or {}))


def test_a_damaged_ablation_is_named_and_made_anew(ablated, released, tmp_path, run):
    lake = Lake(shutil.copytree(ablated[0], tmp_path / "lake", symlinks=True))
    (ablation,) = [one for one in lake.ablations() if one.checkpoint_id == "planted/step1"]
    lost = lake.root / ablation.content["directory"] / "ablations.parquet"
    lost.unlink()
    done = run("build", "--lake", lake.root, "--theta", "0.2")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{lost.relative_to(lake.root)} is missing" in done.stderr
    assert "timecourse ablate --checkpoints step1" in done.stderr
    done = run("ablate", "--lake", lake.root, *released[1], "--checkpoints", "step1")
    assert done.returncode == 0 and "ablated step1\n" in done.stdout, done.stderr
    assert [lake.damages(one) for one in lake.ablations()] == [[], [], []] and not lost.parent.exists()
    assert run("build", "--lake", lake.root, "--theta", "0.2").returncode == 0


def test_a_torn_ablation_file_says_how_it_is_mended(ablated, tmp_path):
    lake = Lake(shutil.copytree(ablated[0], tmp_path / "lake", symlinks=True))
    lake.ablations()[0].path.write_text("{")
    with pytest.raises(UserError, match="is damaged; remove the file, and ablate its checkpoint again"):
        lake.ablations()


def test_an_ablation_that_is_committed_while_the_lake_is_pruned_stays(released, tmp_path):
    lake = Lake(shutil.copytree(released[0], tmp_path / "lake", symlinks=True))
    (commit, *_), look = lake.commits(), lake.ablations
    names = commit.content["series_id"], commit.content["checkpoint_name"]

    def look_and_be_late():
        found = look()
        with lake.incoming_extraction(*names) as folder:
            shutil.copy(lake.root / commit.content["directory"] / "checkpoint.parquet", folder / "x.parquet")
            lake.commit_ablation(folder, commit, ablation_id="a", inputs={}, rows={"x": 3}, checks=[])
        return found

    lake.ablations = look_and_be_late
    with lake.locked():
        lake.prune()
    (ablation,) = look()
    assert (lake.root / ablation.content["directory"] / "x.parquet").is_file()


def test_what_is_held_or_replaced_meanwhile_does_not_stop_the_others(released, tmp_path, monkeypatch):
    """step0 is extracted anew while step1, which another process is on, is looked at."""
    lake = Lake(shutil.copytree(released[0], tmp_path / "lake", symlinks=True))
    (replaced,) = [one for one in lake.commits() if one.checkpoint_id == "planted/step0"]

    def none_but_first(*_):
        other = {**replaced.content, "extraction_id": "0" * 32}
        replaced.path.write_text(json.dumps(other))

    monkeypatch.setattr("timecourse.ablate.executor_of", none_but_first)
    claim = lake.claim("planted", "step1")
    assert claim is not None
    found = ablate(settings_of(released, lake.root, {("ablation", "methods"): ["zero"]}), Console(quiet=True))
    claim.release()
    assert found.names == ["step2"] and [one.checkpoint_id for one in lake.ablations()] == ["planted/step2"]
    assert found.failed == ["planted/step0 was extracted anew meanwhile; run it again"]
    assert len(found.held) == 1 and found.held[0].startswith("planted/step1 is held by `timecourse")
    with pytest.raises(UserError, match=r"not ablated: planted/step0 was .*; planted/step1 is held") as ended:
        found.raise_if_left()
    assert not isinstance(ended.value, LockedError)


@pytest.mark.slow
def test_what_was_ablated_is_built_although_another_process_is_on_a_checkpoint(released, tmp_path, run):
    lake = Lake(shutil.copytree(released[0], tmp_path / "lake", symlinks=True))
    claim = lake.claim("planted", "step1")
    done = run("ablate", "--lake", lake.root, *released[1])
    assert done.returncode == 75 and done.stderr.count("\n") == 1
    assert "not ablated: planted/step1 is held by `timecourse " in done.stderr
    assert "ablated step0, step2\n" in done.stdout and "released" in done.stdout
    assert rows(lake.root, "select distinct checkpoint_id from fct_role_effects order by all") == [
        ("planted/step0",),
        ("planted/step2",),
    ]
    claim.release()
    again = run("ablate", "--lake", lake.root, *released[1])
    assert again.returncode == 0 and "ablated step1\n" in again.stdout


@pytest.mark.slow
def test_two_processes_ablate_the_same(released, ablated, tmp_path):
    lake = shutil.copytree(released[0], tmp_path / "lake", symlinks=True)
    settings = settings_of(released, lake, {("executor", "workers"): 2})
    assert ablate(settings, Console(quiet=True)) == Ablated(["step0", "step1", "step2"])
    one, other = ({a.checkpoint_id: a.content for a in Lake(where).ablations()} for where in (lake, ablated[0]))
    assert one.keys() == other.keys() and len(one) == 3
    for checkpoint, content in one.items():
        assert content["ablation_id"] == other[checkpoint]["ablation_id"]
        hashes = [
            {name: file["sha256"] for name, file in each["files"].items()} for each in (content, other[checkpoint])
        ]
        assert hashes[0] == hashes[1]
    assert not list((lake / ".incoming").iterdir()) and not list((lake / ".unfinished").iterdir())
