"""What an extraction takes in memory, and how many prompts fit into one forward pass.

An estimate from the model's shape, on the safe side: docs/cost.md sets it beside what was measured. Nothing here
changes what is measured.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from timecourse.extract.checkpoints.checkpoint import Checkpoint, text_config
from timecourse.extract.contributions import VALUE_ELEMENTS
from timecourse.extract.measurement import LOGIT_ELEMENTS
from timecourse.extract.prompts import Prompt
from timecourse.extract.proximities import BLOCK_ELEMENTS

TOKENS_AT_ONCE = 2048
"""Tokens of a batch beyond which products hardly get faster; one prompt may have more."""

FREE_SHARE = 0.8
"""Share of the memory that is free when an extraction begins that it may take where no limit is set."""

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a model takes for B prompts of n tokens, `answers` answer tokens in all.

    weights: bytes of the model's weights in `dtype`. limit: how many bytes all may take.
    """

    weights: int
    layers: int
    heads: int
    width: int
    attention_width: int
    feed_forward_width: int
    vocabulary: int
    dtype: str
    limit: int

    def activations(self, prompts: int, tokens: int) -> int:
        """Of a plain forward pass: one layer's, the mask, and eager attention's scores in float32."""
        size = _BYTES[self.dtype]
        by_token = (6 * self.width + 3 * self.attention_width + 3 * self.feed_forward_width) * size
        return prompts * tokens * by_token + prompts * tokens**2 * (self.heads * (4 + 2 * size) + 8)

    def attribution(self, prompts: int, tokens: int, answers: int) -> int:
        """Beyond the plain pass: every layer's contributions, and the largest of what is made of them in turn."""
        edges = prompts * tokens**2 * self.heads * 4
        kept = self.layers * (edges + prompts * tokens * 8 * 4)
        streams = answers * self.width * (self.layers + 1) * 4
        values = min(max(VALUE_ELEMENTS, tokens * self.width), prompts * tokens * self.heads * self.width)
        layer = 4 * (self.width * self.attention_width + 10 * prompts * tokens * self.width + values) + 5 * edges
        layer += 4 * 4 * BLOCK_ELEMENTS
        scores = self.layers * prompts * tokens * (self.heads + 1) * 4 * 12
        routes = 6 * edges + scores
        logits = 3 * 4 * max(LOGIT_ELEMENTS, (self.layers + 2) * self.vocabulary)
        lens = logits + answers * self.vocabulary * 8
        return kept + streams + max(layer, routes, lens)

    def peak(self, prompts: int, tokens: int, answers: int) -> int:
        """All of it."""
        return self.weights + self.activations(prompts, tokens) + self.attribution(prompts, tokens, answers)

    def batches(self, prompts: Sequence[Prompt], batch_size: int | None = None) -> Iterator[list[Prompt]]:
        """Prompts of like length together, the shortest first: `batch_size` of them, or as many as fit (at least 1)."""
        batch: list[Prompt] = []
        answers = 0
        for prompt in sorted(prompts, key=lambda prompt: len(prompt.token_ids)):
            tokens, count = len(prompt.token_ids), len(batch) + 1
            answers += len(prompt.answer_positions)
            if batch_size is not None:
                fits = count <= batch_size
            else:
                fits = count * tokens <= TOKENS_AT_ONCE and self.peak(count, tokens, answers) <= self.limit
            if batch and not fits:
                yield batch
                batch, answers = [], len(prompt.answer_positions)
            batch.append(prompt)
        if batch:
            yield batch


def memory_plan(checkpoint: Checkpoint, dtype: str, limit: int, weights: int | None = None) -> MemoryPlan:
    """The plan for a checkpoint, from its config. weights: their bytes in `dtype`, where they are loaded already."""
    config, shape = text_config(checkpoint.config), checkpoint.architecture
    width, heads = int(shape["hidden_size"]), int(shape["head_count"])
    stored = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "float32")
    experts = max(1, int(config.get("num_experts_per_tok") or 1))
    feed_forward = config.get("intermediate_size") or config.get("n_inner") or 4 * width
    return MemoryPlan(
        weights=checkpoint.bytes * _BYTES[dtype] // _BYTES.get(stored, 4) if weights is None else weights,
        layers=int(shape["layer_count"]),
        heads=heads,
        width=width,
        attention_width=heads * int(config.get("head_dim") or width // heads),
        feed_forward_width=experts * int(feed_forward),
        vocabulary=int(config["vocab_size"]),
        dtype=dtype,
        limit=limit,
    )


def memory_limit(device: str, memory_gb: float | None) -> int:
    """How many bytes an extraction may take: what is set, or most of what is free on the device now."""
    if memory_gb is not None:
        return round(memory_gb * 1e9)
    if device == "cpu":
        return round(FREE_SHARE * _free_memory())
    devices = range(torch.cuda.device_count()) if device == "split" else [device]
    return round(FREE_SHARE * sum(torch.cuda.mem_get_info(one)[0] for one in devices))


def _free_memory() -> int:
    """Bytes that this process can still take: what the system has free, or its control group (a container, a job)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with suppress(OSError, ValueError):  # no control group, or none that limits memory
        group = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        most, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, most - taken)
    return free


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed; on a CPU torch raises a plain RuntimeError for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def plan_row(plan: MemoryPlan, prompts: Sequence[Prompt], batch_size: int | None) -> dict[str, Any]:
    """The plan in words and gigabytes, for the batch that takes most."""

    def taken(batch: Sequence[Prompt]) -> tuple[int, int, int]:
        return (
            len(batch),
            max(len(prompt.token_ids) for prompt in batch),
            sum(len(one.answer_positions) for one in batch),
        )

    batches = [taken(batch) for batch in plan.batches(prompts, batch_size)]
    largest = max(batches, key=lambda batch: plan.peak(*batch))
    return {
        "prompts": len(prompts),
        "batches": len(batches),
        "batch": largest[0],
        "tokens": largest[1],
        "weights_gb": plan.weights / 1e9,
        "activations_gb": plan.activations(*largest[:2]) / 1e9,
        "attribution_gb": plan.attribution(*largest) / 1e9,
        "peak_gb": plan.peak(*largest) / 1e9,
        "limit_gb": plan.limit / 1e9,
    }
