"""The memory plan: batches keep within the limit and hold every prompt once; the estimate is above what is measured."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import prompts_of
from timecourse.extract.memory import free_memory, left_in_control_groups, memory_limit, memory_plan
from timecourse.extract.out_of_memory import is_out_of_memory


@pytest.fixture(scope="module")
def request_and_prompts(series_directory, facts_directory):
    checkpoint = find_checkpoints(series_directory)[0]
    request = ExtractionRequest("series", checkpoint, load_relations(facts_directory), MeasurementSettings())
    return request, prompts_of(request)


def test_batches_keep_within_the_limit(request_and_prompts):
    request, prompts = request_and_prompts
    plan = memory_plan(request.checkpoint, "float32")
    longest = max(len(prompt.token_ids) for prompt in prompts)
    least = plan.peak(1, longest, 1)
    sizes = []
    for limit in (0, least + 10**5, least + 10**6, 10**12):
        tight = replace(plan, limit=limit)
        batches = list(tight.batches(prompts))
        assert sorted(one.prompt_id for batch in batches for one in batch) == [one.prompt_id for one in prompts]
        for batch in batches:
            tokens, answers = len(batch[-1].token_ids), sum(len(one.answer_positions) for one in batch)
            assert len(batch) == 1 or tight.peak(len(batch), tokens, answers) <= limit
        lengths = [len(prompt.token_ids) for batch in batches for prompt in batch]
        assert lengths == sorted(lengths)
        sizes.append(len(batches))
    assert sizes[0] == len(prompts) > sizes[1] > sizes[-1] == 1
    assert [len(batch) for batch in plan.batches(prompts, 4)] == [4, 4, 2]


def test_half_precision_takes_half_the_weights(request_and_prompts):
    request, _ = request_and_prompts
    plans = [memory_plan(request.checkpoint, dtype) for dtype in ("float32", "bfloat16")]
    assert plans[0].weights == request.checkpoint.bytes == 2 * plans[1].weights


def test_the_limit_is_what_is_set_or_what_is_free():
    assert memory_limit(1.5, free=10, weights=2 * 10**9) == 1_500_000_000
    assert memory_limit(None, free=20 * 10**9, weights=10 * 10**9) == 18 * 10**9
    assert memory_limit(None, free=10, weights=10**9) == 10**9
    assert 10**7 < free_memory("cpu") < 10**14
    if not torch.cuda.is_available():
        assert free_memory("split") > 10**7, "layers are spread over this machine's memory"


GIB = 2**30


@pytest.mark.parametrize(
    ("membership", "files", "left"),
    [
        pytest.param(
            "0::/system.slice/slurmstepd.scope/job_1/step_0/user/task_0",
            {
                "system.slice/slurmstepd.scope/job_1/step_0/user/task_0": {"max": "max", "current": GIB},
                "system.slice/slurmstepd.scope/job_1": {"max": 4 * GIB, "current": GIB},
            },
            [3 * GIB],
            id="a job's limit stands above the process's own group",
        ),
        pytest.param(
            "0::/",
            {".": {"max": 8 * GIB, "current": 8 * GIB - 5, "active_file": 2 * GIB, "inactive_file": 5 * GIB}},
            [7 * GIB + 5],
            id="a container that is full of cached files",
        ),
        pytest.param(
            "12:cpu,cpuacct:/a\n3:memory:/docker/0123:4\n0::/",
            {"memory": {"limit_in_bytes": 2 * GIB, "usage_in_bytes": GIB, "total_inactive_file": GIB // 2}},
            [3 * GIB // 2],
            id="version 1, seen from inside a container",
        ),
        pytest.param("0::/", {".": {"max": "max", "current": GIB}}, [], id="no limit"),
    ],
)
def test_what_control_groups_leave(tmp_path, membership, files, left):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership + "\n")
    for group, numbers in files.items():
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        counts = {"active_file": 0, "inactive_file": 0, "total_active_file": 0, "total_inactive_file": 0}
        for name, number in numbers.items():
            if name in counts:
                counts[name] = number
            else:
                (folder / f"memory.{name}").write_text(f"{number}\n")
        (folder / "memory.stat").write_text("".join(f"{name} {number}\n" for name, number in counts.items()))
    assert list(left_in_control_groups(tmp_path)) == left


def test_where_there_are_no_control_groups_nothing_is_limited(tmp_path):
    assert list(left_in_control_groups(tmp_path)) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_is_known_however_it_is_said(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


PEAK = """
import json, resource, sys
import torch
from timecourse.extract.contributions import layer_contributions
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract, prompts_of
from timecourse.extract.memory import memory_plan
from pathlib import Path

series, facts, out = map(Path, sys.argv[1:])
request = ExtractionRequest("series", find_checkpoints(series)[0], load_relations(facts), MeasurementSettings())
prompts = prompts_of(request)
extract(request, out, Machine(batch_size=1, threads=1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
extract(request, out, Machine(batch_size=len(prompts), threads=1))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
plan = memory_plan(request.checkpoint, "float32")
tokens = max(len(prompt.token_ids) for prompt in prompts)
answers = sum(len(prompt.answer_positions) for prompt in prompts)
print(json.dumps([after - before, plan.peak(len(prompts), tokens, answers) - plan.weights]))
"""


@pytest.mark.slow
def test_the_plan_is_above_what_is_measured(tmp_path, facts_directory):
    from tests.conftest import save_checkpoint

    save_checkpoint(tmp_path / "series/main", hidden_size=512, intermediate_size=512, num_attention_heads=8, scale=1.0)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", PEAK, str(tmp_path / "series"), str(facts_directory), str(tmp_path / "out")]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    measured, planned = json.loads(found.stdout.splitlines()[-1])
    assert measured <= planned
