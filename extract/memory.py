"""What an extraction takes in memory, and how many prompts fit into one forward pass.

An estimate from the model's shape, on the safe side: docs/cost.md sets it beside what was measured. Nothing here
changes what is measured.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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
"""Share of the memory free beside the weights that an extraction may take where no limit is set."""

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a model takes for B prompts of n tokens, `answers` answer tokens in all.

    weights: bytes of the model's weights in `dtype`. limit: how many bytes all may take; no matter how many by default.
    """

    weights: int
    layers: int
    heads: int
    width: int
    attention_width: int
    feed_forward_width: int
    vocabulary: int
    dtype: str
    limit: int = 2**63

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


def memory_plan(checkpoint: Checkpoint, dtype: str, weights: int | None = None) -> MemoryPlan:
    """The plan for a checkpoint, from its config, without a limit.

    weights: their bytes in `dtype`, where they are loaded already.
    """
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
        vocabulary=int(checkpoint.family.config_value(config, "vocab_size")),
        dtype=dtype,
    )


def memory_limit(memory_gb: float | None, free: int, weights: int) -> int:
    """How many bytes an extraction may take: what is set, or its weights and most of what is free beside them.

    free: before the weights are loaded, because on a CPU they are mapped files, which count as free.
    """
    if memory_gb is not None:
        return round(memory_gb * 1e9)
    return weights + round(FREE_SHARE * max(0, free - weights))


def free_memory(device: str) -> int:
    """Bytes that this process can still take on the device now; `split`: on all GPUs together."""
    devices = range(torch.cuda.device_count()) if device == "split" else [device]
    return _free_here() if device == "cpu" or not devices else sum(map(_free_on_gpu, devices))


def _free_on_gpu(device: str | int) -> int:
    """Bytes that torch can still take, those included that it keeps from tensors which are gone."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _free_here() -> int:
    """What the system has free, or its control groups (a container, a job)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return max(0, min([free, *left_in_control_groups()]))


def left_in_control_groups(system: Path = Path("/")) -> Iterator[int]:
    """Bytes that each control group above or of this process may still take, of those that have a limit.

    A limit may stand at any level: Slurm sets it for the job, some levels above the process's own group. Cached files
    count as taken there, but the system drops them. system: the root of the file system.
    """
    try:
        memberships = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, own = membership.split(":", 2)
        if not controllers:  # version 2: one tree
            tree, names, prefix = system / "sys/fs/cgroup", ("memory.max", "memory.current"), ""
        elif "memory" in controllers.split(","):
            tree, prefix = system / "sys/fs/cgroup/memory", "total_"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        for level in (PurePosixPath(own), *PurePosixPath(own).parents):
            group = tree / str(level).lstrip("/")
            with suppress(OSError, ValueError, KeyError):  # seen from inside a container, or "max": no limit
                most, taken = (int((group / name).read_text()) for name in names)
                counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                cached = sum(int(counts[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
                yield most - taken + cached


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
