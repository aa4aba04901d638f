"""Series for which the claims are true by construction, false, or cannot be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.lakes import PREDICTING, SPANS, Checkpoint, Facts, Series

LAYERS, HEADS = 8, 4
RELATIONS = {**{f"place {n}": "location" for n in range(7)}, **{f"name {n}": "name" for n in range(3)}}
FACTS_PER_RELATION = 12
CHECKPOINTS = 8
TAU = 0.05

Array = NDArray[Any]


@dataclass(frozen=True)
class Course:
    """How a series develops from its first checkpoint to its last."""

    general: tuple[int, int] = (14, 14)
    """Heads that are active everywhere."""
    answering: tuple[int, int] = (10, 10)
    """Heads that are active for the answers of two relations each, and hardly elsewhere."""
    answering_moves: float = 0.0
    """Share of the answering heads that others take the place of, at every checkpoint."""
    general_moves: float = 0.0
    ffns_move: int = 0
    """How many of the four strong FFNs others take the place of, at every checkpoint."""
    heads_shift: float = 0.0
    """How much of the order of the heads' contributions is new at every checkpoint."""
    known_from: tuple[int, int] | None = (2, 2)
    """From which checkpoint on locations and names are recalled; None: each relation from one of its own, 2 to 5."""
    groups: tuple[str, ...] = ("location", "name")
    checkpoints: int = CHECKPOINTS
    general_rate: float = 0.6
    fades: bool = False
    """Whether what heads do never changes, but is weaker at every checkpoint; the other values do not count."""


COURSES = {
    "supporting, it's": Course(
        general=(20, 10), answering=(4, 12), answering_moves=0.5, heads_shift=0.7, known_from=(2, 5)
    ),
    "still": Course(),
    "opposite": Course(general=(10, 20), answering=(12, 4), general_moves=0.3, ffns_move=2, known_from=(5, 2)),
    "restless": Course(
        general=(12, 12),
        answering=(12, 12),
        answering_moves=0.25,
        general_moves=0.25,
        ffns_move=1,
        heads_shift=0.3,
        known_from=None,
    ),
    "short": Course(
        general=(20, 10), answering=(4, 12), answering_moves=0.5, heads_shift=0.7, known_from=(1, 3), checkpoints=5
    ),
    "late": Course(known_from=(2, 2), checkpoints=7),
    "ignorant": Course(known_from=(CHECKPOINTS, CHECKPOINTS), checkpoints=6),
    "places only": Course(groups=("location",), known_from=(0, 0), checkpoints=6),
    "always knowing": Course(known_from=(0, 0), checkpoints=6),
    "quiet": Course(general=(3, 3), general_rate=0.3, known_from=(0, 1), checkpoints=6),
    "fading": Course(fades=True),
}


def make_series(series_id: str, course: Course, seed: int = 0) -> Series:
    chance = np.random.default_rng([seed, *series_id.encode()])
    groups = {relation: group for relation, group in RELATIONS.items() if group in course.groups}
    facts = Facts(groups, FACTS_PER_RELATION)
    head_peaks = fading_heads(chance, facts, course) if course.fades else playing_heads(chance, facts, course)
    strong = chance.permutation(LAYERS) < LAYERS // 2
    known_from = first_known(chance, facts, course)
    levels = chance.permutation(LAYERS * HEADS)
    checkpoints = []
    for number in range(course.checkpoints):
        if number:
            places = np.argsort(~strong + chance.random(LAYERS) / 2)  # the strong ones first
            strong = np.isin(
                np.arange(LAYERS), swapped(chance, places, LAYERS // 2, course.ffns_move / 4)[: LAYERS // 2]
            )
            moved = levels + course.heads_shift * chance.normal(0, LAYERS * HEADS / 2, len(levels))
            levels = moved.argsort().argsort()
        ffn_levels = (np.arange(LAYERS) + 10 * strong if course.ffns_move else np.arange(LAYERS)).argsort().argsort()
        contributions = np.concatenate(
            [levels.reshape(LAYERS, HEADS) / (LAYERS * HEADS), ffn_levels[:, None] / LAYERS], axis=1
        )
        noise = chance.uniform(0.8, 1.2, (LAYERS * (HEADS + 1), len(facts.relations)))
        checkpoints.append(
            Checkpoint(
                1000 * 2**number,
                with_ffns(chance, head_peaks[number], strong),
                0.01 * contributions.reshape(-1, 1) * noise,
                ranks(chance, facts, known_from <= number),
            )
        )
    return Series(series_id, LAYERS, HEADS, facts, checkpoints, str(TAU), TAU)


def playing_heads(chance: np.random.Generator, facts: Facts, course: Course) -> list[Array]:
    """Peaks [head, fact, position] of every checkpoint, of heads that play roles."""
    heads = LAYERS * HEADS
    relation_count = len(facts.groups)
    relations_of = np.array([chance.choice(relation_count, 2, replace=False) for _ in range(heads)])
    order = chance.permutation(heads)  # general ones come from the front, answering ones from the back
    peaks = []
    for share in np.linspace(0, 1, course.checkpoints):
        general, answering = (
            round(first + share * (last - first)) for first, last in (course.general, course.answering)
        )
        if peaks:
            order = swapped(chance, order, general, course.general_moves)
            order = swapped(chance, order[::-1], answering, course.answering_moves)[::-1]
        rates = np.full((heads, len(facts.relations), len(SPANS)), 0.001)
        rates[order[:general]] = course.general_rate
        for head in order[heads - answering :]:
            rates[head, np.isin(facts.relations, relations_of[head]), PREDICTING] = 0.7
        active = chance.random(rates.shape) < rates
        peaks.append(np.where(active, chance.uniform(TAU, 0.3, rates.shape), 0))
    return peaks


def swapped(chance: np.random.Generator, order: Array, count: int, share: float) -> Array:
    """The order, in which that share of the first `count` swap with the next ones behind them."""
    moved = round(share * count)
    behind = min(moved, len(order) - count, 8)
    order = order.copy()
    front = chance.choice(count, behind, replace=False) if behind else np.array([], int)
    back = count + chance.permutation(min(len(order) - count, 8))[:behind]
    order[front], order[back] = order[back], order[front]
    return order


def fading_heads(chance: np.random.Generator, facts: Facts, course: Course) -> list[Array]:
    """Peaks of heads that do what they do, everywhere and mostly for two relations' answers, ever more weakly."""
    heads = LAYERS * HEADS
    level = np.exp(chance.normal(0, 0.5, (heads, 1, 1))) * np.ones((heads, len(facts.relations), len(SPANS)))
    for head in range(heads):
        chosen = np.isin(facts.relations, chance.choice(len(facts.groups), 2, replace=False))
        level[head, chosen, PREDICTING] *= 3
    peaks = []
    for number in range(course.checkpoints):
        strength = 0.09 * 0.85**number * level * np.exp(chance.normal(0, 0.7, level.shape))
        peaks.append(np.where(strength > TAU, np.minimum(strength, 1), 0))
    return peaks


def with_ffns(chance: np.random.Generator, head_peaks: Array, strong: Array) -> Array:
    """Peaks of all components: FFNs are nearly always active, and half of them strongly."""
    peaks = np.zeros((LAYERS, HEADS + 1, *head_peaks.shape[1:]))
    peaks[:, :HEADS] = head_peaks.reshape(LAYERS, HEADS, *head_peaks.shape[1:])
    drawn = chance.uniform(0, 0.4, (LAYERS, *head_peaks.shape[1:])) + np.where(strong, 0.5, 0.06)[:, None, None]
    peaks[:, HEADS] = np.where(chance.random(drawn.shape) < 0.9, drawn, 0)
    return peaks.reshape(LAYERS * (HEADS + 1), *head_peaks.shape[1:])


def first_known(chance: np.random.Generator, facts: Facts, course: Course) -> Array:
    """From which checkpoint on each relation is known."""
    if course.known_from is None:
        return chance.integers(2, 6, len(facts.groups))
    starts = dict(zip(("location", "name"), course.known_from, strict=True))
    return np.array([starts[group] for group in facts.groups.values()])


def ranks(chance: np.random.Generator, facts: Facts, is_known: Array) -> Array:
    """Ranks of the answers: of what is known, one fact in twelve is not recalled; of what is not, one is by chance."""
    known = is_known[facts.relations]
    place = np.arange(len(known)) % facts.per_relation
    return np.where(np.where(known, place > 0, place == 1), 0, chance.integers(10, 900, len(known)))


def make_all(names: Sequence[str] = tuple(COURSES), seed: int = 0) -> list[Series]:
    return [make_series(name, COURSES[name], seed) for name in names]
