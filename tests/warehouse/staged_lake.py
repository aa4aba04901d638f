"""A series with stages, siblings, post-training and names that are not what they claim; and seeds of a recipe."""

import random
from pathlib import Path
from typing import Any

from tests.warehouse.ablation_lake import commit_ablation, random_ablation
from tests.warehouse.raw_lake import commit, entry
from timecourse.lake import Lake

SERIES = "staged"
SEEDS = {"seed 1": [0, 10, 20, None], "seed 2": [0, 10, 30, None], "seed 3": [0, 10]}
HEADS = 3
STAGE1 = {"stage": "stage1", "stage_index": 1}
STAGE2 = {"stage": "stage2", "stage_index": 2}
SFT = {"phase": "sft", "phase_index": 1}
DPO = {"phase": "dpo", "phase_index": 2}

ENTRIES = [
    entry(position, name, tokens_reported=None if tokens is None else tokens * 10**9, **values)
    for position, (name, tokens, values) in enumerate(
        [
            ("stage1-step0", 0, {**STAGE1, "step": 0}),
            ("stage1-step1000", 4, {**STAGE1, "step": 1000, "commit_sha": "c0ffee", "bytes": 123}),
            ("stage1-step1500", 6, {**STAGE1, "step": 1500, "status": "duplicate",
                                    "same_weights_as": "stage1-step2000", "reason": "has the weights of step 2000"}),
            ("stage1-step2000", 8, {**STAGE1, "step": 2000}),
            ("stage2-ingredient1-step500", 2, {**STAGE2, "branch": "ingredient1", "step": 500}),
            ("stage2-ingredient1-step1000", 4, {**STAGE2, "branch": "ingredient1", "step": 1000}),
            ("stage2-ingredient2-step500", 2, {**STAGE2, "branch": "ingredient2", "step": 500, "status": "left_out"}),
            ("stage2-ingredient2-step1200", 5, {**STAGE2, "branch": "ingredient2", "step": 1200}),
            ("main", None, {}),
            ("sft/step100", None, {**SFT, "step": 100}),
            ("sft/step200", None, {**SFT, "step": 200}),
            ("sft/main", None, {**SFT, "status": "alias", "same_weights_as": "sft/step200", "reason": "another name"}),
            ("dpo/step50", None, {**DPO, "step": 50, "status": "failed", "reason": "<b>the parts</b> miss the stream"}),
            ("dpo/step60", None, {**DPO, "step": 60, "status": "gone"}),
            ("dpo/step70", None, {**DPO, "step": 70, "status": "left_out", "reason": "not selected"}),
            ("dpo/step80", None, {**DPO, "step": 80}),
            ("dpo/torn", None, {**DPO, "step": 90, "status": "unusable", "reason": "no safetensors"}),
        ]
    )
]  # fmt: skip
NOT_COMMITTED = ("dpo/step50", "dpo/step70", "dpo/torn")
ABLATED = ("stage1-step2000", "main")
COMPONENTS = [f"L{layer}{part}" for layer in range(2) for part in (*(f"H{head}" for head in range(HEADS)), "F")]


def commit_staged(lake: Path) -> None:
    """Commit and declare every series. What was extracted says nothing of stages, phases and branches.

    The alias was measured in a setting of its own.
    """
    for number, one in enumerate(ENTRIES):
        if one["name"] not in NOT_COMMITTED:
            setting_id = "older" if one["status"] == "alias" else "setting"
            commit_random(
                lake, SERIES, one["name"], step=number, known=one["name"] == "stage1-step0", setting_id=setting_id
            )
    for number, name in enumerate(ABLATED):
        rows = random_ablation(lake, f"{SERIES}/{name}", number, ["0.05"], COMPONENTS, COMPONENTS)
        commit_ablation(lake, f"{SERIES}/{name}", *rows)
    Lake(lake).declare_series(SERIES, complete=True, checkpoints=ENTRIES)
    for series_id, steps in SEEDS.items():
        names = ["main" if step is None else f"step{step}" for step in steps]
        for name, step in zip(names, steps, strict=True):
            commit_random(lake, series_id, name, step=step)
        entries = [entry(number, name, step=step) for number, (name, step) in enumerate(zip(names, steps, strict=True))]
        Lake(lake).declare_series(
            series_id, complete=True, recipe_id="r" if series_id != "seed 3" else None, checkpoints=entries
        )


def commit_random(
    lake: Path, series_id: str, name: str, *, step: int | None, known: bool = False, setting_id: str = "setting"
) -> None:
    """Commit a checkpoint of two layers with random activity; it knows every fact, some, or none at step 0."""
    ranks = [0] if known else [50] if step == 0 else [0, 50]
    chance = random.Random(f"{series_id}/{name}")
    facts = [(relation, f"{relation}/{number}") for relation in ("capital", "author") for number in range(6)]
    tables: dict[str, list[dict[str, Any]]] = {
        "prompts": [], "prompt_tokens": [], "attributions": [], "predictions": []
    }  # fmt: skip
    often = {
        component: chance.choice([0, 0.1, 0.4, 0.9])
        for layer in range(2)
        for component in (f"L{layer}F", *(f"L{layer}H{head}" for head in range(HEADS)))
    }
    for prompt_id, (relation, fact) in enumerate(facts):
        tables["prompts"].append(
            {"prompt_id": prompt_id, "relation_id": relation, "fact_id": fact, "subject": fact, "object": "o"}
        )
        for position, role in enumerate(("template", "subject", "answer")):
            tables["prompt_tokens"].append(
                {"prompt_id": prompt_id, "position": position, "span_role": role, "token_id": prompt_id,
                 "is_answer_predicting": role == "subject"}
            )  # fmt: skip
            tables["attributions"] += [
                {"tau_id": "0.05", "prompt_id": prompt_id, "position": position, "component_id": component}
                for component, share in often.items()
                if chance.random() < share
            ]
        tables["predictions"] += [
            {"prompt_id": prompt_id, "position": 1, "readout": readout, "rank": chance.choice(ranks)}
            for readout in (-1, 0, 1, 2)
        ]
    shape = {"layer_count": 2, "head_count": HEADS, "kv_head_count": HEADS}
    commit(lake, series_id, name, tables, step=step, setting_id=setting_id, **shape)
