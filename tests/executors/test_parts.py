"""A checkpoint whose prompts are measured in parts gives the tables of one that was measured whole."""

import json
import shutil
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

    def of(name: str, per_task: int | None = PER_TASK, lake: Path = tmp_path / "lake") -> list[ExtractionTask]:
        settings = Settings.model_validate(
            {
                "series": {"checkpoints": str(series / "checkpoints"), "name": "s", "select": {"names": [name]}},
                "facts": {"directory": series / "facts"},
                "measurement": {"tau": ["5x", "0.001"]},
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
