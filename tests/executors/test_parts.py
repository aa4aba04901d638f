"""A checkpoint whose prompts are measured in parts gives the tables of one that was measured whole."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from timecourse.config import Settings
from timecourse.errors import MachineError
from timecourse.extract.parts import BLOCK
from timecourse.extraction import Extracted, ExtractionTask, run_task
from timecourse.lake import Lake
from timecourse.plan import make_plan
from timecourse.refresh import _tasks

PER_TASK = 30


@pytest.fixture
def tasks(series, tmp_path):
    """The parts of a checkpoint, for a lake of its own; batches of a block of prompts, two thresholds."""

    def of(
        name: str,
        per_task: int | None = PER_TASK,
        lake: Path = tmp_path / "lake",
        tau: tuple[str, ...] = ("5x", "0.001"),
    ) -> list[ExtractionTask]:
        settings = Settings.model_validate(
            {
                "series": {"checkpoints": str(series / "checkpoints"), "name": "s", "select": {"names": [name]}},
                "facts": {"directory": series / "facts"},
                "measurement": {"tau": tau},
                "machine": {"batch_size": BLOCK, "threads": 1},
                "executor": {"prompts_per_task": per_task},
                "lake": {"directory": lake},
            }
        )
        Lake(lake).create()
        plan = make_plan(settings)
        return _tasks(settings, plan, [plan.requests[name]], {})

    return of


def tables(lake: Path) -> dict[str, pl.DataFrame]:
    (commit,) = Lake(lake).commits()
    return {
        name: pl.read_parquet(lake / commit.content["directory"] / file["path"])
        for name, file in commit.content["files"].items()
    }


def test_parts_give_what_the_whole_gives(tasks, tmp_path):
    (whole,) = tasks("step0", per_task=None, lake=tmp_path / "whole")
    assert run_task(whole) == Extracted(is_committed=True)
    parts = tasks("step0")
    assert [str(one.part) for one in parts] == ["0-of-4", "1-of-4", "2-of-4", "3-of-4"], "120 prompts in blocks of 32"
    assert [run_task(one).is_committed for one in (parts[2], parts[0], parts[3])] == [False, False, False]
    assert run_task(parts[0]) == Extracted(), "what is measured already is not measured again"
    assert run_task(parts[1]) == Extracted(is_committed=True)
    one, other = tables(tmp_path / "whole"), tables(tmp_path / "lake")
    assert one.keys() == other.keys() and len(one) == 6
    varying = ["seconds_by_phase"]
    assert_frame_equal(one.pop("checkpoint").drop(varying), other.pop("checkpoint").drop(varying), check_exact=True)
    for name in one:
        assert one[name].height > 100
        assert_frame_equal(one[name], other[name], check_exact=True)
    assert not list((tmp_path / "lake" / ".unfinished").iterdir()), "the parts are gone"
    assert run_task(replace(parts[3], before=None)) == Extracted()


def test_the_counts_are_summed_and_not_those_of_a_part(tasks, tmp_path):
    """A share of degenerate sums is that of all sums; the parts' shares differ."""
    parts = tasks("step1")
    for one in parts[:-1]:
        run_task(one)
    (folder,) = (tmp_path / "lake" / ".unfinished").iterdir()
    counts = [json.loads((part / "counts.json").read_text()) for part in folder.iterdir()]
    kept = Path(shutil.copytree(folder, tmp_path / "kept"))
    assert len(counts) == len(parts) - 1 and len({one["sums"] for one in counts}) > 1
    assert run_task(parts[-1]).is_committed
    (row,) = tables(tmp_path / "lake")["checkpoint"].to_dicts()
    rows = [pl.read_parquet(part / "checkpoint.parquet").row(0, named=True) for part in kept.iterdir()]
    assert row["completeness_error_max"] >= max(one["completeness_error_max"] for one in rows)
    assert row["prompt_count"] == 120


def waiting(lake: Path) -> set[str]:
    return {f"{part.parent.name.rpartition('.')[2]}/{part.name}" for part in (lake / ".unfinished").glob("*/*")}


def test_a_commit_leaves_the_parts_of_another_extraction(tasks, tmp_path):
    """Those of an older array of jobs end while the parts of other settings are being made."""
    older, newer = tasks("step0"), tasks("step0", tau=("5x",))
    for one in (*older[:-1], *newer[:2]):
        run_task(one)
    assert run_task(older[-1]).is_committed
    assert waiting(tmp_path / "lake") == {f"{one.opening.extraction_id}/{one.part}" for one in newer[:2]}
    assert [run_task(one).is_committed for one in newer[2:]] == [False, True]
    assert not waiting(tmp_path / "lake")


def test_damaged_parts_are_removed_and_made_again(tasks, tmp_path, monkeypatch):
    parts = tasks("step0")
    for one in parts[:-1]:
        run_task(one)
    (folder,) = (tmp_path / "lake" / ".unfinished").iterdir()
    (folder / "0-of-4" / "predictions.parquet").unlink()
    torn = folder / "1-of-4" / "attributions.parquet"
    torn.write_bytes(torn.read_bytes()[:-100])
    (folder / "2-of-4" / "counts.json").write_text("")
    extracted = run_task(parts[-1])
    assert not extracted.is_committed and "(0-of-4, 1-of-4, 2-of-4); the next run makes them again" in extracted.reason
    assert [part.name for part in folder.iterdir()] == ["3-of-4"], "the whole one stays"
    assert not Lake(tmp_path / "lake").quarantined(), "that says nothing about the checkpoint"
    assert [run_task(one).is_committed for one in parts[:2]] == [False, False]

    def failing(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        patched.setattr("timecourse.extract.parts.pq.read_table", failing)
        run_task(parts[2])
    assert len(waiting(tmp_path / "lake")) == 4, "what the disk does not give back is not damaged"
    assert run_task(parts[-1]).is_committed


class _Forgetful:
    """Calls every task in this process but one, which then is as if its part had been taken away."""

    def run(self, function, tasks):
        for task in tasks:
            yield task, Extracted() if task.part.index == 1 else function(task)


def test_a_checkpoint_without_all_of_its_parts_is_no_success(flags, run, tmp_path, monkeypatch):
    in_parts = ("--only", "step0", "--batch-size", BLOCK, "--set", f"executor.prompts_per_task={PER_TASK}")
    with monkeypatch.context() as patched:
        patched.setattr("timecourse.refresh.executor_of", lambda *_: _Forgetful())
        for _ in range(2):  # said again as long as it is so
            done = run("extract", *flags(tmp_path / "lake"), *in_parts)
            assert done.returncode == 1 and "nothing to do" not in done.stdout
            assert "'step0': not all of its parts were made; the next run goes on" in done.stderr
            assert done.stderr.count("\n") == 1
    assert len(waiting(tmp_path / "lake")) == 3


def test_parts_are_kept_and_removed_by_several_at_once(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.create()
    place = lake.parts("s", "step0", "a" * 32)

    def keep(index: int) -> None:
        with lake.incoming_extraction("s", "step0", str(index)) as folder:
            (folder / "prompts.parquet").write_bytes(b"?")
            lake.keep_part(folder, place / str(index))

    def remove(_: int) -> None:
        lake.remove_parts("s", "step0", "a" * 32)

    with ThreadPoolExecutor(4) as pool:
        for round_ in range(15):
            list(pool.map(keep, range(8 * round_, 8 * round_ + 4)))
            both = [pool.submit(remove, 0), pool.submit(keep, 8 * round_ + 5), pool.submit(remove, 0)]
            assert [one.result() for one in both] == [None] * 3
    remove(0)
    assert not place.exists() and not list((lake.root / ".incoming").iterdir())


def test_a_checkpoint_that_cannot_be_measured_is_set_aside_by_its_first_part(tasks, tmp_path):
    first, *_ = tasks("step2")
    extracted = run_task(first)
    assert not extracted.is_committed and "NaN" in str(extracted.reason)
    (aside,) = Lake(tmp_path / "lake").quarantined()
    assert aside.checkpoint_name == "step2" and not list((tmp_path / "lake" / ".unfinished").iterdir())


def test_a_part_that_another_process_is_on_is_left_to_it(tasks, tmp_path):
    first, second, *_ = tasks("step0")
    claim = Lake(tmp_path / "lake").claim("s", "step0", str(first.part))
    assert claim is not None
    assert "process" in str(run_task(first).holder)
    assert run_task(second) == Extracted(), "another part is not"
    claim.release()


def test_what_was_changed_since_the_plan_is_left_to_the_next_run(tasks, series, tmp_path, monkeypatch):
    (whole,) = tasks("step0", per_task=None)
    changed = replace(whole, opening=replace(whole.opening, extraction_id="0" * 32))
    extracted = run_task(changed)
    assert not extracted.is_committed and "changed after the run began" in str(extracted.reason)
    assert not Lake(tmp_path / "lake").quarantined(), "that says nothing about the checkpoint"


def test_a_machine_that_lacks_what_was_asked_for_stops_the_run(tasks, tmp_path):
    (whole,) = tasks("step0", per_task=None)
    settings = whole.opening.settings
    machine = settings.machine.model_copy(update={"device": "cuda:99"})
    opening = replace(whole.opening, settings=settings.model_copy(update={"machine": machine}))
    with pytest.raises(MachineError, match="cuda:99"):
        run_task(replace(whole, opening=opening))
    assert not Lake(tmp_path / "lake").quarantined() and not list((tmp_path / "lake" / ".incoming").iterdir())


def test_a_model_split_over_memory_and_disk_gives_the_same(tasks, tmp_path, monkeypatch):
    """accelerate's own device map, as transformers loads by it, with the first layer and the output layer on disk."""
    from timecourse.extract import loading

    own = loading.AutoModelForCausalLM.from_pretrained
    maps = []

    def on_two_devices(folder, **options):
        assert options["device_map"] == "auto"
        parts = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
        parts |= {"model.layers.0": "disk", "model.layers.1": "cpu"}
        loaded = own(folder, **options | {"device_map": parts, "offload_folder": str(tmp_path / "aside")})
        maps.append(loaded[0].hf_device_map)
        return loaded

    (whole,) = tasks("step0", per_task=None, lake=tmp_path / "whole")
    assert run_task(whole).is_committed
    (split,) = tasks("step0", per_task=None)
    settings = split.opening.settings
    machine = settings.machine.model_copy(update={"device": "split"})
    opening = replace(split.opening, settings=settings.model_copy(update={"machine": machine}))
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", on_two_devices)
    assert run_task(replace(split, opening=opening)).is_committed
    assert set(maps[0].values()) == {"cpu", "disk"}
    one, other = tables(tmp_path / "whole"), tables(tmp_path / "lake")
    assert other["checkpoint"]["device"].to_list() == ["split"]
    assert one["checkpoint"]["parameter_count"].equals(other["checkpoint"]["parameter_count"])
    for name in ("prompts", "prompt_tokens", "attributions", "contributions", "predictions"):
        assert_frame_equal(one[name], other[name], abs_tol=1e-6)
