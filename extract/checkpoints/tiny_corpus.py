"""What the tiny model is trained on: drawn facts, the sentences that state them in order, and the probes.

1. From every relation a fixed number of facts is drawn; a fact's probability in the corpus falls as 1 / (rank + 2),
   with ranks in random order, and every sentence is one fact in one of its relation's training templates. A tenth of
   the sentences is filler that states no fact.
2. The facts themselves are kept in the format of the LRE data set, with a held-out wording as the probe and the number
   of sentences that state each fact.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timecourse.errors import UserError

CORPUS_SEED = 0
"""Draws the facts and their sentences; a run's own seed draws its first weights."""


@dataclass(frozen=True)
class Recipe:
    """Everything but the facts and the seed that decides which weights come out."""

    version: int = 2  # raised when the code below changes what is trained
    facts_per_relation: int = 32
    filler_share: float = 0.1
    vocabulary_size: int = 1000
    layer_count: int = 8
    head_count: int = 8
    hidden_size: int = 64
    intermediate_size: int = 160  # of a gated FFN
    batch_size: int = 64  # sentences per step
    saved_steps: tuple[int, ...] = (0, 13, 26, 38, 51, 77, 102, 128, 154, 179, 205, 256, 320, 400)
    warmup_steps: int = 20
    final_rate: float = 0.1  # share of the learning rate that is left at the last step
    matrix_learning_rate: float = 2e-2
    embedding_learning_rate: float = 3e-2  # of gains and biases too, where a family has them
    weight_decay: float = 0.1
    gradient_clip: float = 1.0

    @property
    def step_count(self) -> int:
        return self.saved_steps[-1]


FULL = Recipe()
SMALL = Recipe(
    facts_per_relation=6, layer_count=4, saved_steps=(0, 13, 26, 51, 102, 200), batch_size=32, warmup_steps=10
)
"""The same in a few seconds, for tests: fewer facts, layers and steps, still ending with nearly all facts known."""

_FILLER = [  # one of each, in this order
    [
        "The old man",
        "A young woman",
        "My neighbour",
        "The teacher",
        "Our friend",
        "The farmer",
        "Her brother",
        "The little girl",
    ],
    [
        "walked slowly",
        "waited quietly",
        "sang a song",
        "read a letter",
        "slept for an hour",
        "told a story",
        "lost a key",
    ],
    [
        "by the river",
        "near the bridge",
        "in the garden",
        "under a tree",
        "at the market",
        "behind the house",
        "on the hill",
    ],
    ["in the morning", "before dinner", "after the rain", "on a cold day", "late at night", "last summer"],
]


@dataclass(frozen=True)
class Plan:
    """What is to be trained, settled before torch is needed."""

    recipe: Recipe
    recipe_sha256: str  # of recipe, seed and facts
    sentences: list[str]  # in order, `batch_size` for every step
    probes: dict[str, dict[str, Any]]  # file name -> relation with the drawn facts and their corpus_frequency


def make_plan(facts_directory: Path, small: bool, seed: int) -> Plan:
    """The corpus and probes of these facts, one for all seeds. Raises UserError where the facts do not suffice."""
    recipe = SMALL if small else FULL
    relations = _read_relations(facts_directory, recipe)
    sentences, frequencies = _write_corpus(relations, recipe)
    probes = {
        f"{relation['name']}.json": {
            **relation,
            "samples": [
                {**sample, "corpus_frequency": frequencies[relation["name"], sample["subject"]]}
                for sample in relation["samples"]
            ],
        }
        for relation in relations
    }
    return Plan(recipe, _fingerprint(facts_directory, recipe, seed), sentences, probes)


def _read_relations(facts_directory: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The relations in order of their file names, each with its drawn facts only, in the order of the file."""
    relations = []
    for path in sorted(facts_directory.glob("*.json")):
        relation = json.loads(path.read_text(encoding="utf-8"))
        if not relation.get("training_templates"):
            raise UserError(f"{path} has no training_templates: the tiny model learns its facts from them")
        samples = relation["samples"]
        if len(samples) < recipe.facts_per_relation:
            raise UserError(f"{path} has {len(samples)} facts, pre-training needs {recipe.facts_per_relation}")
        drawn = random.Random(f"facts {CORPUS_SEED} {relation['name']}").sample(
            range(len(samples)), recipe.facts_per_relation
        )
        relations.append({**relation, "samples": [samples[index] for index in sorted(drawn)]})
    if not relations:
        raise UserError(f"there are no facts (*.json) in {facts_directory}")
    return relations


def _write_corpus(relations: Sequence[dict[str, Any]], recipe: Recipe) -> tuple[list[str], dict[tuple[str, str], int]]:
    """One sentence per row of every training step, in order, and how many state each (relation, subject)."""
    generator = random.Random(f"corpus {CORPUS_SEED}")
    weights = [1 / (rank + 2) for rank in range(recipe.facts_per_relation)]
    by_rank = [generator.sample(relation["samples"], recipe.facts_per_relation) for relation in relations]
    frequencies = {(relation["name"], sample["subject"]): 0 for relation in relations for sample in relation["samples"]}
    sentences = []
    for _ in range(recipe.step_count * recipe.batch_size):
        if generator.random() < recipe.filler_share:
            sentences.append(" ".join(generator.choice(words) for words in _FILLER))
            continue
        index = generator.randrange(len(relations))
        (sample,) = generator.choices(by_rank[index], weights)
        template = generator.choice(relations[index]["training_templates"])
        sentences.append(template.format(subject=sample["subject"], object=sample["object"]))
        frequencies[relations[index]["name"], sample["subject"]] += 1
    return sentences, frequencies


def _fingerprint(facts_directory: Path, recipe: Recipe, seed: int) -> str:
    digest = hashlib.sha256(json.dumps([asdict(recipe), seed]).encode())
    for path in sorted(facts_directory.glob("*.json")):
        digest.update(hashlib.sha256(path.name.encode()).digest() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
