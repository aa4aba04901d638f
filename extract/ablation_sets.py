"""Which components are silenced jointly, and the random sets that a role's set is compared with.

A component is an index within one model of L layers and H heads: layer · (H + 1) + head, an FFN counting as head H (the
order of LoadedModel.component_ids).
"""

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

SetKind = Literal["role", "random", "single"]

_TRIES = 1000
"""After so many draws in a row that gave nothing new there is nothing new: few sets are admissible then."""


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


@dataclass(frozen=True)
class MatchQuality:
    """How well a random set matches the set it stands beside.

    share_in_layer: of the set's heads, the share that has its counterpart in its own layer; None for a set of FFNs
    alone. is_disjoint: whether the two share no component.
    """

    share_in_layer: float | None
    is_disjoint: bool


def generator_of(*identity: str | int) -> random.Random:
    """A source of random numbers that depends on these words and numbers, and on nothing else."""
    return random.Random(int.from_bytes(hashlib.sha256(json.dumps(identity).encode()).digest()))


def draw(generator: random.Random, pool: Iterable[int], number: int) -> set[int]:
    """`number` of the pool, or all where it holds fewer; every choice is equally likely.

    Only random() is used, whose values are the same in every version of Python.
    """
    return set(sorted(sorted(pool), key=lambda _: generator.random())[:number])


def match_quality(components: Iterable[int], random_set: Iterable[int], head_count: int) -> MatchQuality:
    """See MatchQuality; `head_count` is per layer."""
    own, drawn = set(components), set(random_set)
    wanted, found = (
        Counter(one // (head_count + 1) for one in chosen if one % (head_count + 1) < head_count)
        for chosen in (own, drawn)
    )
    matched = (wanted & found).total()
    return MatchQuality(matched / wanted.total() if wanted else None, not own & drawn)


def matched_random_sets(
    components: Sequence[int], layer_count: int, head_count: int, count: int, *identity: str | int
) -> list[tuple[int, ...]]:
    """`count` random sets that match a set in number, kind and layer, all different, each sorted.

    Heads, of which the set holds N, and a_l in layer l:

    1. a_l ≤ H / 2 in every layer: a_l of the layer's other heads.
    2. N ≤ L·H / 2: a layer with fewer than a_l other heads gives them all; what it lacks comes from the nearest layers
       with heads that are in neither set (one layer away, then two, ...; layers are filled from the bottom).
    3. N < L·H: no set is disjoint. a_l of all heads of the layer; where that is the same set again (every layer is full
       or empty), N of all heads.
    4. N = L·H: all heads again.

    FFNs, of which the set holds M: M of the other FFNs, whatever their layer; where there are too few (M > L / 2), M of
    all FFNs. Neither kind's draw is the set's own, but where it holds all of that kind.

    Every admissible set is equally likely; in case 2, where more than one layer lacks heads, only every set with the
    same numbers by layer. Where fewer than `count` sets are admissible, each is there once: the caller gets fewer, and
    none for an empty set or one that holds all of every kind that it holds. The draw depends on the set, the model's
    shape and `identity`, and on nothing else.
    """
    own = frozenset(components)
    generator = generator_of("matched random sets", *sorted(own), layer_count, head_count, *identity)
    heads = [
        {one % (head_count + 1) for one in own if one // (head_count + 1) == layer} - {head_count}
        for layer in range(layer_count)
    ]
    feed_forwards = {one // (head_count + 1) for one in own if one % (head_count + 1) == head_count}
    found: dict[tuple[int, ...], None] = {}
    failures = 0
    while len(found) < count and failures < _TRIES:
        drawn_heads = _draw_heads(generator, heads, head_count)
        drawn_feed_forwards = _draw_feed_forwards(generator, feed_forwards, layer_count)
        drawn = tuple(
            sorted(
                [layer * (head_count + 1) + head for layer, chosen in enumerate(drawn_heads) for head in chosen]
                + [layer * (head_count + 1) + head_count for layer in drawn_feed_forwards]
            )
        )
        is_same_kind = (
            drawn_heads == heads and 0 < sum(map(len, heads)) < layer_count * head_count,
            drawn_feed_forwards == feed_forwards and 0 < len(feed_forwards) < layer_count,
        )
        if any(is_same_kind) or own == set(drawn) or drawn in found:
            failures += 1
        else:
            found[drawn] = None
            failures = 0
    return list(found)


def _draw_heads(generator: random.Random, own: Sequence[set[int]], head_count: int) -> list[set[int]]:
    """Head numbers by layer."""
    everything = set(range(head_count))
    wanted = [len(layer) for layer in own]
    if 2 * sum(wanted) <= len(own) * head_count:
        numbers = _numbers_by_layer(generator, wanted, head_count)
        return [draw(generator, everything - layer, number) for layer, number in zip(own, numbers, strict=True)]
    if any(0 < number < head_count for number in wanted):
        return [draw(generator, everything, number) for number in wanted]
    chosen = draw(generator, range(len(own) * head_count), sum(wanted))
    return [{one % head_count for one in chosen if one // head_count == layer} for layer in range(len(own))]


def _draw_feed_forwards(generator: random.Random, own: set[int], layer_count: int) -> set[int]:
    """Layers."""
    others = set(range(layer_count)) - own
    return draw(generator, others if len(own) <= len(others) else range(layer_count), len(own))


def _numbers_by_layer(generator: random.Random, wanted: Sequence[int], head_count: int) -> list[int]:
    """How many other heads to draw in each layer; `wanted` are at most half of all heads."""
    free = [head_count - number for number in wanted]
    numbers = [min(pair) for pair in zip(wanted, free, strict=True)]
    for layer, lacking in enumerate(max(0, one - other) for one, other in zip(wanted, free, strict=True)):
        distance = 0
        while lacking:
            distance += 1
            near = [one for one in (layer - distance, layer + distance) if 0 <= one < len(wanted)]
            rooms = [free[one] - numbers[one] for one in near]
            moved = min(lacking, sum(rooms))
            splits = [split for split in product(*(range(room + 1) for room in rooms)) if sum(split) == moved]
            # as likely as there are sets with these numbers, so that the sets themselves are equally likely
            weights = [
                math.prod(math.comb(free[one], numbers[one] + more) for one, more in zip(near, split, strict=True))
                for split in splits
            ]
            for one, more in zip(near, generator.choices(splits, weights)[0], strict=True):
                numbers[one] += more
            lacking -= moved
    return numbers
