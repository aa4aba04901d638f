"""Series whose roles were silenced: what that does is planted, random, or was never tried."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.warehouse.raw_lake import commit
from timecourse.extract.raw import ABLATION_TABLES, write_table
from timecourse.lake import Lake
from timecourse.resampling import draw_resamples

Rows = list[dict[str, Any]]

LAYERS, HEADS = 3, 4
COMPONENTS = [f"L{layer}{part}" for layer in range(LAYERS) for part in (*(f"H{head}" for head in range(HEADS)), "F")]
RELATIONS = ("all", "l'île/of=\"x\" {{ ref('a') }}", "capital", "leader")
FACTS = 6
TAU_IDS = ("0.05", "5x")
THETA = "0.1"
SPANS = ("template", "subject", "answer", "answer")


@dataclass(frozen=True)
class Course:
    """What silencing does to the log-probability of an answer, mean and deviation between facts, in nats.

    own, other: a relation's set to its own facts and to other relations'; beside: random sets to its own.
    """

    own: float = 0.0
    other: float = 0.0
    beside: float = 0.0
    deviation: float = 0.1
    methods: Mapping[str, float] = field(default_factory=lambda: {"mean": 1.0})
    """By method, what the effects are multiplied by."""
    relations: Sequence[str] = RELATIONS
    random_sets: int = 6


COURSES = {
    "needed, it's": Course(-2.0, -0.2, -0.3, methods={"mean": 1.0, "resample": 1.1, "zero": 0.0}),
    "needed by one method": Course(-2.0, -0.2, -0.3, methods={"mean": 1.0, "resample": 0.03}),
    "blunt": Course(-1.0, -1.0, -1.0, deviation=0.05),
    "needed no more than random": Course(-1.0, -0.1, -1.0),
    "helped": Course(1.0, 0.0, 0.0, methods={"mean": 1.0, "resample": 2.0}),
    "unsure": Course(-0.6, -0.2, -0.2, deviation=1.5),
    "two relations": Course(-2.0, -0.2, -0.3, relations=RELATIONS[:2]),
    "nothing beside": Course(-2.0, -0.2, -0.3, random_sets=0),
    "zero only": Course(-2.0, -0.2, -0.3, methods={"zero": 1.0}),
}
"""Series of one checkpoint, by what silencing does to it."""
UNTOUCHED = "never silenced"
RANDOM = "sé'ries {{ var('x') }}"
"""A series of four checkpoints, of which the second and the third were silenced, in one every component alone."""


def commit_ablation(lake: Path, checkpoint_id: str, sets: Rows, ablations: Rows, ablation_id: str = "ablation") -> None:
    """Commit the ablation of a committed checkpoint; what a row of either table leaves out is null."""
    (extraction,) = [one for one in Lake(lake).commits() if one.checkpoint_id == checkpoint_id]
    with Lake(lake).incoming() as folder:
        rows = {}
        for name, content in (("ablation_sets", sets), ("ablations", ablations)):
            defaults = {**dict.fromkeys(ABLATION_TABLES[name].names), "extraction_id": extraction.extraction_id}
            columns = {field: [{**defaults, **row}[field] for row in content] for field in defaults}
            rows[name] = write_table(folder, name, columns)
        Lake(lake).commit_ablation(folder, extraction, ablation_id=ablation_id, inputs={}, rows=rows, checks=[])


def commit_ablation_lake(lake: Path) -> None:
    """Commit every series and its ablations."""
    for name, course in COURSES.items():
        commit_checkpoint(lake, name, "main", random.Random(name))
        commit_ablation(lake, f"{name}/main", *planted(lake, f"{name}/main", course))
    commit_checkpoint(lake, UNTOUCHED, "main", random.Random(0))
    for step in range(4):
        commit_checkpoint(lake, RANDOM, f"step{step}", random.Random(step), step=step)
    for step, singles in ((1, COMPONENTS), (2, ())):
        checkpoint_id = f"{RANDOM}/step{step}"
        commit_ablation(lake, checkpoint_id, *random_ablation(lake, checkpoint_id, step, singles=singles))


def commit_checkpoint(lake: Path, series_id: str, name: str, chance: random.Random, **values: Any) -> None:
    """A checkpoint with random activity, by facts that are asked through one template or two."""
    tables: dict[str, Rows] = {
        "prompts": [], "prompt_tokens": [], "attributions": [], "contributions": [], "predictions": []
    }  # fmt: skip
    asked = [
        (relation, f"{relation}/fact {fact}", template)
        for relation in RELATIONS
        for fact in range(FACTS)
        for template in range(1 + (relation == "capital"))
    ]
    often = {component: chance.choice([0.05, 0.3, 0.9]) for component in COMPONENTS}
    for prompt_id, (relation, fact, template) in enumerate(asked):
        spans = SPANS[: 3 + prompt_id % 2]
        tables["prompts"].append(
            {"prompt_id": prompt_id, "relation_id": relation, "fact_id": fact, "template_id": template,
             "subject": "s", "object": "o"}
        )  # fmt: skip
        for position, span in enumerate(spans):
            is_predicting = spans[position + 1 :][:1] == ("answer",)
            key = {"prompt_id": prompt_id, "position": position}
            tables["prompt_tokens"].append({**key, "span_role": span, "is_answer_predicting": is_predicting})
            tables["attributions"] += [
                {**key, "tau_id": tau_id, "component_id": component, "score": chance.random()}
                for tau_id in TAU_IDS
                for component in COMPONENTS
                if chance.random() < often[component]
            ]
            if is_predicting:
                tables["contributions"] += [
                    {**key, "component_id": component, "c_direct": chance.random()} for component in COMPONENTS
                ]
        tables["predictions"] += [
            {"prompt_id": prompt_id, "answer_token_index": index, "readout": LAYERS, "rank": chance.randrange(9)}
            for index in range(len(spans) - 2)
        ]
    shape: dict[str, Any] = {"layer_count": LAYERS, "head_count": HEADS, "kv_head_count": HEADS}
    taus: dict[str, Any] = {"tau_ids": list(TAU_IDS), "taus": [0.05, 0.08]}
    commit(lake, series_id, name, tables, **shape, **taus, **values)


@dataclass(frozen=True)
class Asked:
    """A prompt that a set can be scored on."""

    prompt_id: int
    relation_id: str
    fact_id: str
    half: str
    answer_tokens: int


def asked(lake: Path, checkpoint_id: str) -> list[Asked]:
    """The prompts of a committed checkpoint, with the halves by which the warehouse splits its facts."""
    (extraction,) = [one for one in Lake(lake).commits() if one.checkpoint_id == checkpoint_id]
    folder = lake / extraction.content["directory"]
    prompts = pq.read_table(folder / "prompts.parquet").to_pylist()
    tokens = pq.read_table(folder / "prompt_tokens.parquet").to_pylist()
    facts = sorted({(row["relation_id"], row["fact_id"]) for row in prompts})
    sizes = {relation: sum(one == relation for one, _ in facts) for relation, _ in facts}
    (split,) = [
        draw
        for draw in draw_resamples(sizes, replicates=1, seed=0)
        if (draw.resample_kind, draw.resample, draw.half) == ("half", 1, "A")
    ]
    halves = {fact: "A" if present else "B" for (_, fact), present in zip(facts, split.presence, strict=True)}
    return [
        Asked(
            row["prompt_id"],
            row["relation_id"],
            row["fact_id"],
            halves[row["fact_id"]],
            sum(token["prompt_id"] == row["prompt_id"] and token["span_role"] == "answer" for token in tokens),
        )
        for row in prompts
    ]


def planted(lake: Path, checkpoint_id: str, course: Course) -> tuple[Rows, Rows]:
    """Relations' sets from both halves, and random ones beside each, at one τ."""
    chance = random.Random(checkpoint_id)
    prompts = asked(lake, checkpoint_id)
    sets: Rows = []
    ablations: Rows = []
    for relation in course.relations:
        for half in "AB":
            for number in (None, *range(course.random_sets)):
                labels = {"role": "relation_answer", "relation_id": relation, "half": half, "random_index": number}
                set_id = add_set(sets, chance.sample(COMPONENTS, 2), tau_id=TAU_IDS[0], theta=THETA, **labels)
                own = course.own if number is None else course.beside + chance.gauss(0, 0.05)
                for prompt in prompts:
                    is_own = prompt.relation_id == relation
                    if prompt.half == half or (number is not None and not is_own):
                        continue
                    effect = chance.gauss(own if is_own else course.other, course.deviation)
                    for method, strength in course.methods.items():
                        ablations += answer_rows(chance, prompt, method, set_id, strength * effect)
    return sets, ablations


def random_ablation(
    lake: Path,
    checkpoint_id: str,
    seed: int,
    tau_ids: Sequence[str] = TAU_IDS,
    components: Sequence[str] = COMPONENTS,
    singles: Sequence[str] = (),
) -> tuple[Rows, Rows]:
    """Sets of all roles, some empty and some with few random ones beside them; and `singles`, each alone."""
    chance = random.Random(seed)
    prompts = asked(lake, checkpoint_id)
    relations = sorted({prompt.relation_id for prompt in prompts})
    sets: Rows = []
    ablations: Rows = []
    for tau_id in tau_ids:
        for role in ("general", "entity", "relation_answer", "fact_answer"):
            asked_of: list[str | None] = [*relations] if role.endswith("answer") else [None]
            for relation in asked_of:
                for half in "AB":
                    if chance.random() < 0.15:
                        continue  # no component holds the role by this half
                    count = chance.randint(1, 3)
                    for number in (None, *range(chance.choice([0, 3, 4, 4, 4]))):
                        labels = {"role": role, "relation_id": relation, "half": half, "random_index": number}
                        members = chance.sample(components, count)
                        set_id = add_set(sets, members, tau_id=tau_id, theta=THETA, **labels)
                        for prompt in prompts:
                            if prompt.half != half and (number is None or relation in (None, prompt.relation_id)):
                                for method in ("mean", "zero"):
                                    effect = chance.choice([-0.5, chance.gauss(-0.5, 1)])  # ties, too
                                    ablations += answer_rows(chance, prompt, method, set_id, effect)
    for component in singles:
        set_id = add_set(sets, [component])
        for prompt in prompts:
            ablations += answer_rows(chance, prompt, "mean", set_id, chance.choice([-0.5, chance.gauss(-0.5, 1)]))
    return sets, ablations


def add_set(sets: Rows, components: Sequence[str], **labels: Any) -> int:
    """Add a set's rows and return its number; without labels it is a single component's."""
    set_id = 1 + max((row["set_id"] for row in sets), default=-1)
    kind = "single" if not labels else "role" if labels["random_index"] is None else "random"
    sets += [
        {"set_id": set_id, "set_kind": kind, "component_id": component, **labels} for component in sorted(components)
    ]
    return set_id


def answer_rows(chance: random.Random, prompt: Asked, method: str, set_id: int, effect: float) -> Rows:
    """Rows of the answer's tokens, whose changes add up to the effect. Every fifth prompt has no template token."""
    template = None if prompt.prompt_id % 5 == 0 else effect / 4
    return [
        {
            "method": method,
            "set_id": set_id,
            "prompt_id": prompt.prompt_id,
            "answer_token_index": index,
            "delta_log_prob": effect / prompt.answer_tokens,
            "delta_rank": chance.randint(-2, 8),
            "delta_template_log_prob": template,
        }
        for index in range(prompt.answer_tokens)
    ]
