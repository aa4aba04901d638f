"""A small extraction that keeps every rule, as rows that a test may spoil, and how to write it."""

import math
import random
from pathlib import Path
from typing import Any

from timecourse.extract.raw import TABLES, write_table

Rows = list[dict[str, Any]]
Tables = dict[str, Rows]

LAYERS, HEADS, VOCABULARY = 2, 2, 20
TAUS = {"0.01": 0.01, "5x": 5 / 33}
SPANS = ("special", "template", "subject", "template", "answer", "answer")
PREDICTING = [position for position in range(len(SPANS) - 1) if SPANS[position + 1] == "answer"]
HEAD_IDS = [f"L{layer}H{head}" for layer in range(LAYERS) for head in range(HEADS)]
FFN_IDS = [f"L{layer}F" for layer in range(LAYERS)]


def valid_extraction(topology: str = "sequential_pre_norm", has_attention_bias: bool = False) -> Tables:
    """Six tables of one checkpoint: 6 prompts of 6 tokens, the first of them special."""
    generator = random.Random(0)
    tables: Tables = {"checkpoint": [{**_checkpoint(), "topology": topology}], "prompts": _prompts()}
    tables["prompt_tokens"] = [
        {
            "prompt_id": prompt["prompt_id"],
            "position": position,
            "token_id": generator.randrange(VOCABULARY),
            "token": f" t{position}",
            "span_role": span,
            "is_answer_predicting": position in PREDICTING,
            "is_special": span == "special",
        }
        for prompt in tables["prompts"]
        for position, span in enumerate(SPANS)
    ]
    tables["attributions"] = _attributions(tables["prompts"], generator)
    sums = [parts for layer in range(LAYERS) for parts in sums_of_layer(layer, topology, has_attention_bias)]
    tables["contributions"] = _contributions(tables["prompts"], sums, generator)
    tables["predictions"] = _predictions(tables["prompt_tokens"], generator)
    for rows in tables.values():
        for row in rows:
            row["extraction_id"] = "e0"
    return tables


def write_extraction(directory: Path, tables: Tables) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_table(directory, name, {column: [row[column] for row in rows] for column in TABLES[name].names})
    return directory


def _checkpoint() -> dict[str, Any]:
    return {
        "schema_version": 2,
        "series_id": "tiny",
        "checkpoint_id": "tiny/step1",
        "checkpoint_name": "step1",
        "model": "tiny",
        "commit_sha": None,
        "phase": "pretraining",
        "stage": None,
        "branch": "main",
        "step": 1,
        "tokens_reported": None,
        "tokens_computed": 100,
        "weights_sha256": "w",
        "facts_sha256": "f",
        "tokenizer_sha256": "t",
        "family": "OLMo",
        "topology": "sequential_pre_norm",
        "layer_count": LAYERS,
        "head_count": HEADS,
        "kv_head_count": HEADS,
        "hidden_size": 8,
        "vocabulary_size": VOCABULARY,
        "parameter_count": 1000,
        "setting_id": "s",
        "tau_ids": list(TAUS),
        "taus": list(TAUS.values()),
        "norm": "l1",
        "dtype": "float32",
        "device": "cpu",
        "completeness_error_max": 1e-6,
        "lens_error_max": 0.0,
        "degenerate_share": 0.01,
        "prompt_count": 6,
        "extractor_version": 1,
        "versions": "{}",
        "seconds_by_phase": "{}",
    }


def _prompts() -> Rows:
    facts = [("capital", 1, "France", "Paris"), ("capital", 1, "Italy", "Rome")]
    facts += [("sport", 2, "Pele", "soccer"), ("sport", 2, "Roger Federer", "tennis")]
    prompts = [
        {
            "relation_id": relation,
            "relation_group": "location",
            "template_id": template_id,
            "template": f"{relation} {template_id} of {{}} is",
            "fact_id": f"{relation}/{subject}",
            "subject": subject,
            "object": answer,
            "covariates": None,
        }
        for relation, template_count, subject, answer in facts
        for template_id in range(template_count)
    ]
    return [{"prompt_id": index, **prompt} for index, prompt in enumerate(prompts)]


def _attributions(prompts: Rows, generator: random.Random) -> Rows:
    groups = ("score_subject", "score_answer", "score_template", "score_first")
    rows = []
    for tau_id in TAUS:
        for prompt in prompts:
            for position in range(1, len(SPANS)):
                for component_id in generator.sample(HEAD_IDS + FFN_IDS, 4):
                    is_head = component_id in HEAD_IDS
                    terms = [
                        (generator.choice(groups), generator.uniform(0.2, 0.4), generator.random() < 0.5)
                        for _ in range(generator.randint(1, 3))
                    ]
                    shares = [share for _, share, _ in terms]
                    split = {
                        group: sum(share for found, share, _ in terms if found == group) if is_head else None
                        for group in groups
                    }
                    rows.append(
                        {
                            "tau_id": tau_id,
                            "prompt_id": prompt["prompt_id"],
                            "position": position,
                            "component_id": component_id,
                            "score": sum(shares),
                            "peak": max(shares),
                            "edges": len(shares),
                            "score_direct": min(1.0, sum(share for _, share, is_direct in terms if is_direct)),
                            **split,
                        }
                    )
    return rows


def sums_of_layer(layer: int, topology: str, has_attention_bias: bool) -> list[list[str]]:
    """The parts of each sum of a layer: two sums in a sequential block, one in a parallel one."""
    attention = [f"L{layer}H{head}" for head in range(HEADS)] + [f"L{layer}BA"] * has_attention_bias + [f"L{layer}RA"]
    if topology.startswith("parallel"):
        return [[*attention, f"L{layer}F"]]
    return [attention, [f"L{layer}F", f"L{layer}RF"]]


def _contributions(prompts: Rows, sums: list[list[str]], generator: random.Random) -> Rows:
    rows = []
    for prompt in prompts:
        for position in PREDICTING:
            for number, parts in enumerate(sums):
                weights = [generator.uniform(0.1, 1) for _ in parts]
                is_degenerate = prompt["prompt_id"] == 0 and number == 0 and position == PREDICTING[0]
                total = math.inf if is_degenerate else sum(weights)
                for component_id, weight in zip(parts, weights, strict=True):
                    rows.append(
                        {
                            "prompt_id": prompt["prompt_id"],
                            "position": position,
                            "component_id": component_id,
                            "c_direct": weight / total,
                            "stream_norm": 3.0 if "R" in component_id else None,
                        }
                    )
    return rows


def _predictions(tokens: Rows, generator: random.Random) -> Rows:
    rows = []
    for prompt_id in sorted({token["prompt_id"] for token in tokens}):
        answers = [token for token in tokens if token["prompt_id"] == prompt_id and token["span_role"] == "answer"]
        for index, answer in enumerate(answers):
            for readout in range(-1, LAYERS + 1):
                logits = [generator.gauss(0, 2) for _ in range(VOCABULARY)]
                if readout == LAYERS and index == 0:
                    logits[answer["token_id"]] = 9.0
                log_total = math.log(sum(math.exp(logit) for logit in logits))
                log_probs = [logit - log_total for logit in logits]
                own = log_probs[answer["token_id"]]
                rank = sum(log_prob > own for log_prob in log_probs)
                top1 = log_probs.index(max(log_probs))
                rows.append(
                    {
                        "prompt_id": prompt_id,
                        "answer_token_index": index,
                        "readout": readout,
                        "position": answer["position"] - 1,
                        "rank": rank,
                        "log_prob": own,
                        "top1_token_id": top1,
                        "top1_token": f" {top1}",
                        "entropy": -sum(math.exp(log_prob) * log_prob for log_prob in log_probs),
                        "rank_in_relation": min(rank, 1),
                        "log_prob_mismatched": generator.uniform(-5, -1) if readout == LAYERS else None,
                    }
                )
    return rows
