"""The memory plan: batches keep within the limit and hold every prompt once; the estimate is above what is measured."""

import json
import subprocess
import sys

import pytest

from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import prompts_of
from timecourse.extract.memory import memory_limit, memory_plan


@pytest.fixture(scope="module")
def request_and_prompts(series_directory, facts_directory):
    checkpoint = find_checkpoints(series_directory)[0]
    request = ExtractionRequest("series", checkpoint, load_relations(facts_directory), MeasurementSettings())
    return request, prompts_of(request)


def test_batches_keep_within_the_limit(request_and_prompts):
    request, prompts = request_and_prompts
    plan = memory_plan(request.checkpoint, "float32", 10**12)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    least = plan.peak(1, longest, 1)
    sizes = []
    for limit in (0, least + 10**5, least + 10**6, 10**12):
        tight = memory_plan(request.checkpoint, "float32", limit)
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
    plans = [memory_plan(request.checkpoint, dtype, 0) for dtype in ("float32", "bfloat16")]
    assert plans[0].weights == request.checkpoint.bytes == 2 * plans[1].weights


def test_the_limit_is_what_is_set_or_what_is_free():
    assert memory_limit("cpu", 1.5) == 1_500_000_000
    assert 10**7 < memory_limit("cpu", None) < 10**14


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
plan = memory_plan(request.checkpoint, "float32", 0)
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
