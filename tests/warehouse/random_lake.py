"""Random activities under awkward names: series, settings, phases, stages, branches, shapes, blocks and taus."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warehouse.raw_lake import commit, entry
from tests.warehouse.roles_twin import Checkpoint, Prompt
from timecourse.lake import Lake

SILENT = {("two", "step1", "0.01"), ("two", "step1", "5x"), ("three", "step100", "5x")}
"""Where nothing is active: a checkpoint whole, as one whose branches start at zero; and one at the larger τ only."""

THETA = "0.25"  # few positions and a coarse threshold: many rates equal it exactly
TAU_IDS = ("0.01", "5x")
RELATIONS = ("all", "l'île/of=\"x\" {{ ref('a') }}", "entity")


@dataclass
class Partition:
    """What is comparable: a series under one setting. Its checkpoints are (name, phase, stage, branch, step), in order.

    A declared one's places stand in its declaration only; what was extracted says otherwise.
    """

    series_id: str
    setting_id: str
    layer_count: int
    head_count: int
    kv_head_count: int
    checkpoints: list[tuple[str, str, str | None, str, int | None]]
    topology: str = "sequential_pre_norm"
    has_attention_bias: bool = False
    is_declared: bool = False

    @property
    def block(self) -> str:
        return self.topology.split("_")[0]

    def checkpoint_id(self, name: str) -> str:
        return f"{self.series_id}/{name}"

    @property
    def components(self) -> list[str]:
        layers = range(self.layer_count)
        heads = [f"L{layer}H{head}" for layer in layers for head in range(self.head_count)]
        return heads + [f"L{layer}F" for layer in layers]

    @property
    def sums(self) -> list[list[str]]:
        """The parts of every sum: two sums per layer in a sequential block, one in a parallel one."""
        sums: list[list[str]] = []
        for layer in range(self.layer_count):
            attention = [f"L{layer}H{head}" for head in range(self.head_count)] + [f"L{layer}RA"]
            attention += [f"L{layer}BA"] * self.has_attention_bias
            if self.block == "parallel":
                sums.append([*attention, f"L{layer}F"])
            else:
                sums += [attention, [f"L{layer}F", f"L{layer}RF"]]
        return sums


def plain(*steps: int) -> list[tuple[str, str, str | None, str, int | None]]:
    return [(f"step{step}", "pretraining", None, "main", step) for step in steps]


STAGED: list[tuple[str, str, str | None, str, int | None]] = [
    ("step9", "pretraining", "1", "main", 9),
    ("step10", "pretraining", "1", "main", 10),
    ("fi'nal {% raw %}", "pretraining", "1", "main", None),
    ("bling", "pretraining", "2", "sibling", 3),
    ("an=neal", "pretraining", "2", "side/branch", 11),
    ("anneal2", "pretraining", "2", "side/branch", 12),
    ("cold", "pretraining", "3", "cold", 1),
    ("anneal3", "pretraining", "3", "side/branch", 2),
    ("main", "pretraining", None, "main", None),
    ("tuned", "a later phase", "1", "main", 1),
]
STAGED.sort(key=lambda row: (row[1] != "pretraining", row[2] or "9", row[3]))

PARTITIONS = [
    Partition("sé'ries \"one\" {{ var('x') }} %", "setting", 2, 4, 2, STAGED),
    Partition("sé'ries \"one\" {{ var('x') }} %", "other", 2, 4, 2, plain(9)),
    Partition("two", "setting", 5, 1, 1, plain(1, 2, 4, 8)),
    Partition("three", "setting", 1, 6, 6, plain(0, 100)),
    Partition("declared {{ 'é' }}", "setting", 1, 5, 5, STAGED, is_declared=True),
    Partition("post", "setting", 2, 3, 3, plain(1, 2), "sequential_post_norm", has_attention_bias=True),
    Partition("side", "setting", 2, 6, 2, plain(1, 2), "parallel_pre_norm", has_attention_bias=True),
    Partition("side 2", "other", 1, 6, 3, plain(1), "parallel_pre_norm"),
]


def commit_random_lake(lake: Path) -> dict[tuple[str, str, str], list[Checkpoint]]:
    """Commit every partition; returns its checkpoints for the twin, by series, setting and tau."""
    twins: dict[tuple[str, str, str], list[Checkpoint]] = {}
    for number, partition in enumerate(PARTITIONS):
        chance = random.Random(number)
        prompts, tables = random_prompts(chance)
        for index, (name, phase, stage, branch, _) in enumerate(partition.checkpoints):
            in_phase = [each for each, other, *_ in partition.checkpoints if other == phase]
            attributions: list[dict[str, Any]] = []
            for tau_id in TAU_IDS:
                silent = (partition.series_id, name, tau_id) in SILENT
                active = random_activity(chance, partition.components, prompts, attributions, tau_id, silent)
                checkpoint = Checkpoint(partition.checkpoint_id(name), (phase, stage or ""), branch, prompts, active)
                checkpoint.reference_id = partition.checkpoint_id(in_phase[-1])
                twins.setdefault((partition.series_id, partition.setting_id, tau_id), []).append(checkpoint)
            commit_random(lake, partition, index, {**tables, "attributions": attributions})
            if (name, branch) == ("step9", "main"):  # between two checkpoints, one with its predictions only
                commit_random(lake, partition, index, tables, checkpoint_name="step9.5", step=9)
        if partition.is_declared:
            declare(lake, partition)
    return twins


def declare(lake: Path, partition: Partition) -> None:
    entries = [
        entry(position, name, phase=phase, phase_index=3 * (phase != "pretraining"), stage=stage,
              stage_index=int(stage or 1), branch=branch, step=step)
        for position, (name, phase, stage, branch, step) in enumerate(partition.checkpoints)
    ]  # fmt: skip
    entries.append(entry(99, "step9.5", step=10, stage="1", status="failed"))
    Lake(lake).declare_series(partition.series_id, complete=False, checkpoints=entries)


def random_prompts(chance: random.Random) -> tuple[list[Prompt], dict[str, list[dict[str, Any]]]]:
    """Prompts of three relations with unequal facts and templates; and their raw tables, predictions included."""
    prompts: list[Prompt] = []
    tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "prompt_tokens": [], "predictions": []}
    for relation_number, relation_id in enumerate(RELATIONS):
        for fact_number in range(2 + relation_number):
            fact_id = f"{relation_id}/fact '{fact_number}' {{{{ }}}}"
            for template_id in range(1 + relation_number % 2):
                prompt_id = len(prompts)
                special, template, subject, answer = (chance.randint(low, 2) for low in (0, 0, 1, 1))
                spans = ["special"] * special + ["template"] * template + ["subject"] * subject + ["answer"] * answer
                predicting = {at - 1 for at, span in enumerate(spans) if span == "answer"}
                prompts.append(
                    Prompt(
                        relation_id,
                        fact_id,
                        {at for at, span in enumerate(spans) if span != "special"},
                        {at for at, span in enumerate(spans) if span == "subject"},
                        predicting,
                    )
                )
                tables["prompts"].append(
                    {
                        "prompt_id": prompt_id,
                        "relation_id": relation_id,
                        "template_id": template_id,
                        "fact_id": fact_id,
                        "subject": "sub'ject",
                        "object": "{{ object }}",
                    }
                )
                tables["prompt_tokens"] += [
                    {
                        "prompt_id": prompt_id,
                        "position": at,
                        "span_role": span,
                        "is_answer_predicting": at in predicting,
                        "is_special": span == "special",
                    }
                    for at, span in enumerate(spans)
                ]
                tables["predictions"].append({"prompt_id": prompt_id, "readout": 0, "rank": chance.choice([0, 5, 50])})
    return prompts, tables


def random_activity(
    chance: random.Random,
    components: list[str],
    prompts: list[Prompt],
    attributions: list[dict[str, Any]],
    tau_id: str,
    is_silent: bool = False,
) -> dict[str, list[set[int]]]:
    """Active positions of every component in every prompt, some of it concentrated on few prompts or on answers."""
    active = {}
    for component in components:
        often = chance.choice([0, 0.1, 0.25, 0.5, 0.9]) * (not is_silent)
        spots = chance.choice(["everywhere", "answers", "one relation", "one fact"])
        relation_id, fact_id = (lambda prompt: (prompt.relation_id, prompt.fact_id))(chance.choice(prompts))
        active[component] = []
        for prompt_id, prompt in enumerate(prompts):
            where = prompt.target_positions if spots == "everywhere" else prompt.answer_predicting_positions
            if (spots == "one relation" and prompt.relation_id != relation_id) or (
                spots == "one fact" and prompt.fact_id != fact_id
            ):
                where = set()
            positions = {at for at in sorted(where) if chance.random() < often}
            active[component].append(positions)
            attributions += [
                {"tau_id": tau_id, "prompt_id": prompt_id, "position": at, "component_id": component}
                for at in sorted(positions)
            ]
    return active


def commit_random(lake: Path, partition: Partition, index: int, tables: dict[str, Any], **changes: Any) -> None:
    name, phase, stage, branch, step = partition.checkpoints[index]
    values: dict[str, Any] = {
        "checkpoint_name": name,
        "phase": phase,
        "stage": stage,
        "branch": branch,
        "step": step,
        "setting_id": partition.setting_id,
        "tau_ids": list(TAU_IDS),
        "taus": [0.01, 5 / (1 + 16 * partition.head_count)],
        "layer_count": partition.layer_count,
        "head_count": partition.head_count,
        "kv_head_count": partition.kv_head_count,
        "topology": partition.topology,
        **({"phase": "old", "stage": "7", "branch": "old", "step": index % 2} if partition.is_declared else {}),
        **changes,
    }
    predictions = [{**row, "readout": partition.layer_count} for row in tables["predictions"]]
    contributions: list[dict[str, Any]] = [
        {
            "prompt_id": row["prompt_id"],
            "position": row["position"],
            "component_id": part,
            "c_direct": 1 / len(parts),
            "stream_norm": 1.0 if "R" in part else None,
        }
        for row in tables["prompt_tokens"]
        if row["is_answer_predicting"]
        for parts in partition.sums
        for part in parts
        if "attributions" in tables
    ]
    tables = {**tables, "predictions": predictions, "contributions": contributions}
    commit(lake, partition.series_id, tables=tables, **values)
