"""Raw lakes of the size of OLMo-7B's, without the model: what extractions of a long series would have written.

32 layers of 32 heads and an FFN, 160 facts in 10 relations with one template each, prompts of 16 tokens, about 15 % of
the components active. A component has a kind, as roles do (general, entity, relation, fact, silent), which it keeps for
some checkpoints; its rates lie on wide distributions and drift. Every number depends on the seed and the checkpoint's
place alone, so that a short series is the beginning of a long one. Prompts share no values, although a causal model
gives equal prefixes equal scores: what is written compresses a little worse than the real thing.
"""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from timecourse.extract.raw import SCHEMA_VERSION, write_table
from timecourse.lake import Lake

SERIES = "olmo-7b"
LAYERS, HEADS, TOKENS, VOCABULARY, TAU = 32, 32, 16, 50_304, 0.01
COMPONENTS = LAYERS * (HEADS + 1)
IS_FFN = np.arange(COMPONENTS) % (HEADS + 1) == HEADS
PARTS = [
    *(f"L{layer}{part}" for layer in range(LAYERS) for part in [*(f"H{head}" for head in range(HEADS)), "F"]),
    *(f"L{layer}{residual}" for layer in range(LAYERS) for residual in ("RA", "RF")),
]
"""Components, then the residuals of each layer's two sums."""

RELATIONS = {
    "capital_of_country": "location",
    "city_in_country": "location",
    "continent_of_country": "location",
    "currency_of_country": "location",
    "language_of_country": "location",
    "river_in_country": "location",
    "university_in_city": "location",
    "author_of_book": "name",
    "ceo_of_company": "name",
    "founder_of_company": "name",
}
FACTS_PER_RELATION = 16
FACTS = len(RELATIONS) * FACTS_PER_RELATION
RELATION_OF_FACT = np.repeat(np.arange(len(RELATIONS)), FACTS_PER_RELATION)
SPAN_ROLES = np.array(["template", "subject", "answer"])
NEXT = "next_commit.json"
"""The commit of one more checkpoint, whose files lie in the lake already; `commit_next` puts it in its place."""

GENERAL, ENTITY, RELATION, FACT, SILENT = range(5)
_KINDS, _KIND_SHARES = range(5), (0.24, 0.12, 0.14, 0.15, 0.35)
_BACKGROUND = np.array([-0.5, -4.2, -4.2, -4.4, -7.0])  # log odds to be active anywhere, by kind

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Prompts:
    """One prompt per fact; every prompt has 16 tokens, none of them special. Arrays are by prompt and position."""

    span: Array  # index into SPAN_ROLES
    predicts: Array  # whether the next token is an answer token
    token_ids: Array
    subject_start: Array  # by prompt
    answer_start: Array

    @property
    def answers(self) -> tuple[Array, Array, Array]:
        """Prompt, predicting position and place in the answer of every answer token."""
        prompt, position = np.nonzero(self.predicts)
        return prompt, position, position + 1 - self.answer_start[prompt]


def write_lake(
    root: Path, checkpoint_count: int, seed: int = 0, processes: int = 2, facts_per_relation: int = FACTS_PER_RELATION
) -> None:
    """Fill `root` with that many committed checkpoints, and one more that `commit_next` commits."""
    lake = Lake(root)
    lake.create()
    with ProcessPoolExecutor(processes, initializer=_set_facts, initargs=(facts_per_relation,)) as pool:
        list(pool.map(_write_checkpoint, *zip(*[(root, k, seed) for k in range(checkpoint_count + 1)], strict=True)))
    lake.commit_path(SERIES, _name(checkpoint_count)).rename(root / NEXT)


def _set_facts(per_relation: int) -> None:
    """How many facts every relation has, in this process."""
    global FACTS_PER_RELATION, FACTS, RELATION_OF_FACT
    FACTS_PER_RELATION, FACTS = per_relation, len(RELATIONS) * per_relation
    RELATION_OF_FACT = np.repeat(np.arange(len(RELATIONS)), per_relation)


def commit_next(root: Path) -> None:
    """Commit the checkpoint that write_lake held back."""
    name = json.loads((root / NEXT).read_text(encoding="utf-8"))["checkpoint_name"]
    (root / NEXT).rename(Lake(root).commit_path(SERIES, name))


def _write_checkpoint(root: Path, index: int, seed: int) -> None:
    rng = np.random.default_rng([seed, 1, index])
    prompts = _prompts(seed)
    extraction_id = hashlib.sha256(f"{SERIES} {_name(index)} {seed}".encode()).hexdigest()[:32]
    tables = {
        "prompts": _prompt_columns(prompts),
        "prompt_tokens": _prompt_token_columns(prompts),
        "attributions": _attributions(rng, prompts, _odds(prompts, index, seed)),
        "contributions": _contributions(rng, prompts),
        "predictions": _predictions(rng, prompts, index, seed),
    }
    lake, rows = Lake(root), {}
    with lake.incoming() as folder:
        for table, columns in tables.items():
            count = len(next(iter(columns.values())))
            everywhere = _named(np.zeros(count), [extraction_id])
            rows[table] = write_table(folder, table, {"extraction_id": everywhere, **columns})
        rows["checkpoint"] = write_table(folder, "checkpoint", _checkpoint_row(index, extraction_id))
        lake.commit(
            folder,
            series_id=SERIES,
            checkpoint_name=_name(index),
            extraction_id=extraction_id,
            inputs={"seed": seed},
            rows=rows,
            checks=[],
        )


def _name(index: int) -> str:
    return f"step{1000 * index}-tokens{4 * index}B"


def _prompts(seed: int) -> Prompts:
    """Template, subject of 1 to 4 tokens, template, answer of 1 or 2 tokens; lengths are mixed in each relation."""
    rng = np.random.default_rng([seed, 0])
    prefix = rng.integers(3, 7, len(RELATIONS))[RELATION_OF_FACT]
    subject_length, answer_length = rng.integers(1, 5, FACTS), rng.integers(1, 3, FACTS)
    position = np.arange(TOKENS)
    is_subject = (position >= prefix[:, None]) & (position < (prefix + subject_length)[:, None])
    answer_start = TOKENS - answer_length
    is_answer = position >= answer_start[:, None]
    template_ids = rng.integers(0, VOCABULARY, (len(RELATIONS), TOKENS))[RELATION_OF_FACT]
    own_ids = rng.integers(0, VOCABULARY, (FACTS, TOKENS))
    return Prompts(
        span=is_subject + 2 * is_answer,
        predicts=np.roll(is_answer, -1, axis=1) & (position < TOKENS - 1),
        token_ids=np.where(is_subject | is_answer, own_ids, template_ids),
        subject_start=prefix,
        answer_start=answer_start,
    )


def _odds(prompts: Prompts, index: int, seed: int) -> Array:
    """Log odds that a component is active: by prompt, position and component."""
    rng = np.random.default_rng([seed, 2])

    def drifting(*shape: int) -> Array:
        """Standard normal at every checkpoint, and changing slowly: each component at its own speed."""
        angle = index * rng.gamma(2.0, 0.02, (*shape[:-1], COMPONENTS))
        return np.cos(angle) * rng.standard_normal(shape) + np.sin(angle) * rng.standard_normal(shape)

    kind = rng.choice(_KINDS, COMPONENTS, p=_KIND_SHARES)
    relations = rng.random((len(RELATIONS), COMPONENTS)) < 0.2
    facts = rng.random((FACTS, COMPONENTS)) < 0.04
    level, strength, by_fact = drifting(COMPONENTS), drifting(COMPONENTS), 0.8 * drifting(FACTS, COMPONENTS)
    for step in range(1, index + 1):  # training settles: roles change less and less
        switches = np.random.default_rng([seed, 3, step])
        changes = switches.random(COMPONENTS) < 0.02 + 0.3 / (1 + step)
        kind = np.where(changes, switches.choice(_KINDS, COMPONENTS, p=_KIND_SHARES), kind)

    background = np.where(IS_FFN, 3.5 + level, _BACKGROUND[kind] + 1.3 * level)
    special = strength - 0.3
    never = -np.inf
    at_entity = np.where(kind == ENTITY, special, never)
    at_answer = np.maximum(
        np.where((kind == RELATION) & relations[RELATION_OF_FACT], special + 0.5, never),
        np.where((kind == FACT) & facts, special + 1.0, never),
    )
    is_entity = (prompts.span == 1) | prompts.predicts
    odds = np.where(is_entity[..., None], np.maximum(background, at_entity), background)
    odds = np.where(prompts.predicts[..., None], np.maximum(odds, at_answer[:, None, :]), odds)
    return odds + by_fact[:, None, :]


def _attributions(rng: np.random.Generator, prompts: Prompts, odds: Array) -> dict[str, Any]:
    """The active components; where a component is often active, its peaks are high."""
    chances = 1 / (1 + np.exp(-odds))
    prompt, position, component = np.nonzero(rng.random(odds.shape, dtype=np.float32) < chances)
    count = len(prompt)
    is_head = ~IS_FFN[component]
    peak = TAU ** (1 - rng.random(count) ** (3 - 2 * chances[prompt, position, component]))
    edges = np.minimum(rng.geometric(np.where(is_head, 0.8, 0.5)), position + 1)
    score = peak * (1 + (edges - 1) * rng.uniform(0.2, 1, count))
    direct = np.where(edges == 1, score, np.minimum(score * rng.uniform(0, 1, count), 1))
    direct[rng.random(count) < np.where(is_head, 0.3, 0.1)] = 0

    def key_group() -> Array:
        """Subject, answer, template or first; the first position where the target is not behind the drawn one."""
        group = rng.choice(4, count, p=(0.25, 0.05, 0.25, 0.45))
        reached = [position >= prompts.subject_start[prompt], position >= prompts.answer_start[prompt], position > 0]
        return np.where(np.select([group == 0, group == 1, group == 2], reached, True), group, 3)

    main, other = key_group(), key_group()
    share = np.where(edges > 1, rng.uniform(0, 1, count), 0)
    by_key = [score * ((1 - share) * (main == group) + share * (other == group)) for group in range(4)]
    names = ("score_subject", "score_answer", "score_template", "score_first")
    return {
        "tau_id": _named(np.zeros(count), [f"{TAU:g}"]),
        "prompt_id": prompt,
        "position": position,
        "component_id": _named(component, PARTS),
        "score": _floats(score),
        "peak": _floats(peak),
        "edges": edges,
        "score_direct": _floats(direct),
        **{name: _floats(part, absent=~is_head) for name, part in zip(names, by_key, strict=True)},
    }


def _contributions(rng: np.random.Generator, prompts: Prompts) -> dict[str, Any]:
    """Every component's share at every predicting position; what a sum's parts leave is the residual's."""
    prompt, position, _ = prompts.answers
    count = len(prompt)
    heads = np.exp(rng.standard_normal((count, LAYERS, HEADS)) - 4.5)
    heads /= 1 + heads.sum(2, keepdims=True)
    feed_forward = rng.beta(2, 8, (count, LAYERS))
    residuals = np.stack([1 - heads.sum(2), 1 - feed_forward], axis=2)
    components = np.concatenate([heads, feed_forward[..., None]], axis=2)
    shares = np.concatenate([components.reshape(count, -1), residuals.reshape(count, -1)], axis=1)
    norms = np.exp(rng.standard_normal(shares.shape) * 0.1) * np.linspace(50, 2000, shares.shape[1])
    is_residual = np.tile(np.arange(len(PARTS)) >= COMPONENTS, count)
    return {
        "prompt_id": np.repeat(prompt, len(PARTS)),
        "position": np.repeat(position, len(PARTS)),
        "component_id": _named(np.tile(np.arange(len(PARTS)), count), PARTS),
        "c_direct": _floats(shares.ravel()),
        "stream_norm": _floats(norms.ravel(), absent=~is_residual),
    }


def _predictions(rng: np.random.Generator, prompts: Prompts, index: int, seed: int) -> dict[str, Any]:
    """Relations are learnt one after another and facts around their relation's time; late layers know more."""
    fixed = np.random.default_rng([seed, 4])
    learnt_at = fixed.uniform(1, 30, len(RELATIONS))[RELATION_OF_FACT] * np.exp(0.5 * fixed.standard_normal(FACTS))
    ceiling = fixed.uniform(0.85, 1.25, FACTS)
    prompt, position, answer_index = prompts.answers
    readout = np.arange(-1, LAYERS + 1)
    depth = 1 / (1 + np.exp(-(readout - 20) / 3.0))
    depth[-1] = depth[-2]
    skill = (ceiling / (1 + np.exp(-2 * (np.log1p(index) - np.log1p(learnt_at)))))[prompt, None]
    log_rank = np.log(VOCABULARY) * (0.95 - skill * depth) + rng.standard_normal((len(prompt), len(readout)))
    rank = np.exp(np.clip(log_rank, 0, np.log(VOCABULARY - 1))).astype(np.int64) - 1
    rank[:, -1] = rank[:, -2]
    answer_token = prompts.token_ids[prompt, position + 1][:, None]
    wrong = (answer_token + rng.zipf(1.5, rank.shape) % (VOCABULARY - 1) + 1) % VOCABULARY
    top1 = np.where(rank == 0, answer_token, wrong).ravel()
    columns = {
        "prompt_id": np.repeat(prompt, len(readout)),
        "answer_token_index": np.repeat(answer_index, len(readout)),
        "readout": np.tile(readout, len(prompt)),
        "position": np.repeat(position, len(readout)),
        "rank": rank.ravel(),
        "log_prob": _floats((-np.log1p(rank) - rng.exponential(0.7, rank.shape)).ravel()),
        "top1_token_id": top1,
        "top1_token": _named(*_tokens(top1)),
        "entropy": _floats(rng.uniform(0.1, 0.9, rank.size) * np.log(VOCABULARY)),
        "rank_in_relation": (rank * (FACTS_PER_RELATION - 1) // VOCABULARY).ravel(),
        "log_prob_mismatched": _floats(-rng.exponential(5, rank.size), np.tile(readout != LAYERS, len(prompt))),
    }
    order = np.lexsort([columns["readout"], columns["answer_token_index"], columns["prompt_id"]])
    return {name: values.take(order) for name, values in columns.items()}


def _prompt_columns(prompts: Prompts) -> dict[str, list[Any]]:
    relation_ids = [list(RELATIONS)[relation] for relation in RELATION_OF_FACT]
    return {
        "prompt_id": list(range(FACTS)),
        "relation_id": relation_ids,
        "relation_group": [RELATIONS[relation_id] for relation_id in relation_ids],
        "template_id": [0] * FACTS,
        "template": [f"The {relation_id.replace('_', ' ')} {{}} is" for relation_id in relation_ids],
        "fact_id": [f"{relation_id}/{fact % FACTS_PER_RELATION}" for fact, relation_id in enumerate(relation_ids)],
        "subject": [f"Subject {fact}" for fact in range(FACTS)],
        "object": [f"Object {fact}" for fact in range(FACTS)],
        "covariates": [json.dumps({"popularity": int(token)}) for token in prompts.token_ids[:, -1]],
    }


def _prompt_token_columns(prompts: Prompts) -> dict[str, Any]:
    token_ids = prompts.token_ids.ravel()
    return {
        "prompt_id": np.repeat(np.arange(FACTS), TOKENS),
        "position": np.tile(np.arange(TOKENS), FACTS),
        "token_id": token_ids,
        "token": _named(*_tokens(token_ids)),
        "span_role": _named(prompts.span.ravel(), SPAN_ROLES),
        "is_answer_predicting": prompts.predicts.ravel(),
        "is_special": np.zeros(FACTS * TOKENS, dtype=bool),
    }


def _checkpoint_row(index: int, extraction_id: str) -> dict[str, list[Any]]:
    row = {
        "extraction_id": extraction_id,
        "schema_version": SCHEMA_VERSION,
        "series_id": SERIES,
        "checkpoint_id": f"{SERIES}/{_name(index)}",
        "checkpoint_name": _name(index),
        "model": SERIES,
        "commit_sha": None,
        "phase": "pretraining",
        "stage": None,
        "branch": "main",
        "step": 1000 * index,
        "tokens_reported": 4_000_000_000 * index,
        "tokens_computed": None,
        "weights_sha256": hashlib.sha256(f"weights {index}".encode()).hexdigest(),
        "facts_sha256": hashlib.sha256(b"facts").hexdigest(),
        "tokenizer_sha256": hashlib.sha256(b"tokenizer").hexdigest(),
        "family": "OLMo",
        "topology": "sequential_pre_norm",
        "layer_count": LAYERS,
        "head_count": HEADS,
        "kv_head_count": HEADS,
        "hidden_size": 4096,
        "vocabulary_size": VOCABULARY,
        "parameter_count": 6_888_095_744,
        "setting_id": "l1-float32-0.01-benchmark",
        "tau_ids": [f"{TAU:g}"],
        "taus": [TAU],
        "norm": "l1",
        "dtype": "float32",
        "device": "cpu",
        "completeness_error_max": 1e-6,
        "lens_error_max": 0.0,
        "degenerate_share": 0.0,
        "prompt_count": FACTS,
        "extractor_version": 1,
        "versions": "{}",
        "seconds_by_phase": "{}",
    }
    return {name: [value] for name, value in row.items()}


def _tokens(token_ids: Array) -> tuple[Array, list[str]]:
    """Codes and texts of tokens."""
    distinct, codes = np.unique(token_ids, return_inverse=True)
    return codes, [f" token{token}" for token in distinct]


def _named(codes: Array, names: Any) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, type=pa.int32()), pa.array(names, type=pa.string()))


def _floats(values: Array, absent: Array | None = None) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=absent)
