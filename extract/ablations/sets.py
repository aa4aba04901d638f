"""Which components are silenced jointly, and the random sets that a role's set is compared with.

A component is an index within one model of L layers and H heads: layer · (H + 1) + head, an FFN counting as head H (the
order of LoadedModel.component_ids).
"""

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

SetKind = Literal["role", "random", "single"]


@dataclass(frozen=True)
class AblationSet:
    """Some components, silenced jointly.

    role, relation_id: whose set it is, or whose set a random one is matched to; relation_id for roles of one relation.
    half: the half of the facts (A or B) that the set was chosen from. random_index: counts from 0; None where not
    random. components: sorted, each once; ValueError otherwise.
    """

    set_id: int
    set_kind: SetKind
    role: str | None
    relation_id: str | None
    half: str | None
    random_index: int | None
    components: tuple[int, ...]

    def __post_init__(self) -> None:
        if list(self.components) != sorted(set(self.components)):
            raise ValueError(f"the components of set {self.set_id} are not sorted, or one occurs twice")


def generator_of(*identity: str | int) -> random.Random:
    """A source of random numbers that depends on these words and numbers, and on nothing else."""
    return random.Random(int.from_bytes(hashlib.sha256(json.dumps(identity).encode()).digest()))


def draw(generator: random.Random, pool: Iterable[int], number: int) -> set[int]:
    """`number` of the pool, or all where it holds fewer; every choice is equally likely.

    Only random() is used, whose values are the same in every version of Python.
    """
    return set(sorted(sorted(pool), key=lambda _: generator.random())[:number])


def permutations(layer_count: int, head_count: int, count: int, *identity: str | int) -> list[tuple[int, ...]]:
    """`count` permutations of a model's components: where each goes. Heads stay in their layer, FFNs are FFNs.

    All are equally likely. They depend on the model's shape and `identity`, and number i not on `count`.
    """
    found = []
    for index in range(count):
        generator = generator_of("permutation", index, layer_count, head_count, *identity)
        heads = [_shuffled(generator, head_count) for _ in range(layer_count)]
        feed_forwards = _shuffled(generator, layer_count)
        found.append(
            tuple(
                (feed_forwards[layer] if part == head_count else layer) * (head_count + 1)
                + (head_count if part == head_count else heads[layer][part])
                for layer in range(layer_count)
                for part in range(head_count + 1)
            )
        )
    return found


def _shuffled(generator: random.Random, number: int) -> list[int]:
    """The numbers below `number` in random order; only random() is used, as in `draw`."""
    return sorted(range(number), key=lambda _: generator.random())


def image(components: Iterable[int], permutation: Sequence[int]) -> tuple[int, ...]:
    """Where a set goes: the random set that stands beside it. As many heads of the same layers, as many FFNs.

    One permutation takes the sets of all roles, relations and halves to the random sets of one number. They have in
    common what the roles' sets have in common, so that the roles' sets are one draw among the random ones if it does
    not matter which components hold a role: p-values are uniform then. A random set may share members with the role's
    set; sets that may not would be closer to each other than to the role's, and p too small (docs/statistics.md).
    """
    return tuple(sorted(permutation[one] for one in components))
