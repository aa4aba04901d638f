"""Draws for the statistics: weights and orders of facts, which SQL turns into roles and intervals.

Only draws are made here; what a role is under them, SQL decides. A draw depends on the seed, the relation and how many
facts it has, and on nothing else: every checkpoint, kind of component and setting meets the same draws, and the same
data give the same numbers.

A fact set is the facts of one extraction in the order (relation, fact). Kinds of draws, each a vector of weights:

- `observed`: every fact once.
- `bootstrap`: facts drawn with replacement within their relation (Efron 1979).
- `half`: halves A and B of every relation's facts; where a relation's number is odd, chance decides who gets one more.
- `bootstrap_half`: a bootstrap draw, split into halves so that all draws of one fact stay together.

`presence` says which facts take part in unions over facts. It is all of them but for halves: a bootstrap draw holds
only 64 % of the distinct facts, so that unions would shrink in it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SPLITS = 100
"""Splits into halves, for noise floors."""
BOOTSTRAP_SPLITS = 200
"""Bootstrap draws that are split as well, for intervals of noise-corrected statistics."""
PERMUTATIONS = 200
"""Orders of the facts, for what role counts would be if relations meant nothing."""

_FACTS = pa.schema(
    {
        "fact_set_id": pa.string(),
        "fact_number": pa.int32(),
        "relation_id": pa.string(),
        "fact_id": pa.string(),
    }
)
_EXTRACTIONS = pa.schema({"extraction_id": pa.string(), "fact_set_id": pa.string()})
_WEIGHTS = pa.schema(
    {
        "fact_set_id": pa.string(),
        "resample_kind": pa.string(),
        "resample": pa.int32(),
        "half": pa.string(),
        "weights": pa.list_(pa.float64()),
        "presence": pa.list_(pa.float64()),
    }
)
_LAYERS = pa.schema({"layer_count": pa.int32(), "resample": pa.int32(), "weights": pa.list_(pa.float64())})
_ORDERS = pa.schema({"fact_set_id": pa.string(), "permutation": pa.int32(), "sort_keys": pa.list_(pa.float64())})

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Resample:
    """One draw over a fact set: `weights` and `presence` have one entry per fact."""

    resample_kind: str
    resample: int
    half: str
    weights: Vector
    presence: Vector


def write_draws(
    connection: duckdb.DuckDBPyConnection,
    prompt_files: Sequence[Path | str],
    layer_counts: Iterable[int],
    *,
    replicates: int,
    seed: int,
) -> None:
    """Leave the tables `drawn_facts`, `drawn_extractions`, `drawn_weights`, `drawn_orders` and `drawn_layers`.

    `prompt_files` are the committed extractions' raw prompts, as DuckDB reads them; `layer_counts` the models' numbers
    of layers, which are drawn as well where kinds of components are compared.
    """
    facts_of: dict[str, list[tuple[str, str]]] = {}
    if prompt_files:
        rows = connection.execute(
            "select distinct extraction_id::varchar, relation_id::varchar, fact_id::varchar"
            " from read_parquet(?, hive_partitioning = false) order by all",
            [[str(file) for file in prompt_files]],
        ).fetchall()
        for extraction_id, relation_id, fact_id in rows:
            facts_of.setdefault(extraction_id, []).append((relation_id, fact_id))
    names = {facts: _name(facts) for facts in {tuple(facts) for facts in facts_of.values()}}
    sets = dict(sorted((name, facts) for facts, name in names.items()))
    tables = {
        "drawn_facts": (
            _FACTS,
            [
                {"fact_set_id": name, "fact_number": number, "relation_id": relation, "fact_id": fact}
                for name, facts in sets.items()
                for number, (relation, fact) in enumerate(facts)
            ],
        ),
        "drawn_extractions": (
            _EXTRACTIONS,
            [{"extraction_id": one, "fact_set_id": names[tuple(facts)]} for one, facts in facts_of.items()],
        ),
        "drawn_weights": (
            _WEIGHTS,
            [
                {"fact_set_id": name, **vars(one)}
                for name, facts in sets.items()
                for one in draw_resamples(_sizes(facts), replicates=replicates, seed=seed)
            ],
        ),
        "drawn_orders": (
            _ORDERS,
            [
                {"fact_set_id": name, "permutation": number, "sort_keys": keys}
                for name, facts in sets.items()
                for number, keys in enumerate(draw_orders(_sizes(facts), seed=seed))
            ],
        ),
        "drawn_layers": (
            _LAYERS,
            [
                {"layer_count": count, "resample": number, "weights": weights}
                for count in sorted(set(layer_counts))
                for number, weights in enumerate(draw_layers(count, replicates=replicates, seed=seed))
            ],
        ),
    }
    for table, (schema, content) in tables.items():
        connection.register("drawn", pa.Table.from_pylist(content, schema=schema))
        connection.execute(f"create or replace table {table} as from drawn")
        connection.unregister("drawn")


def draw_resamples(sizes: Mapping[str, int], *, replicates: int, seed: int) -> Iterator[Resample]:
    """Every draw over relations of `sizes` facts (relation -> number), whose facts follow each other in that order."""
    ones = np.ones(sum(sizes.values()))
    yield Resample("observed", 0, "", ones, ones)
    drawn = _bootstrap(sizes, "bootstrap", replicates, seed)
    for number, weights in enumerate(drawn, start=1):
        yield Resample("bootstrap", number, "", weights, ones)
    for number, first in enumerate(_halves(sizes, "half", SPLITS, seed), start=1):
        yield Resample("half", number, "A", first, first)
        yield Resample("half", number, "B", 1 - first, 1 - first)
    count = min(BOOTSTRAP_SPLITS, replicates)
    halves = _halves(sizes, "bootstrap_half", count, seed)
    for number, (weights, first) in enumerate(zip(drawn[:count], halves, strict=True), start=1):
        yield Resample("bootstrap_half", number, "A", weights * first, first)
        yield Resample("bootstrap_half", number, "B", weights * (1 - first), 1 - first)


def draw_orders(sizes: Mapping[str, int], *, seed: int) -> NDArray[np.float64]:
    """[permutation, fact]: numbers in [0, 1) by which facts are sorted anew."""
    return np.concatenate(
        [_generator(seed, "order", relation).random((PERMUTATIONS, size)) for relation, size in sizes.items()], axis=1
    )


def draw_layers(count: int, *, replicates: int, seed: int) -> Vector:
    """[draw, layer]: how often each layer counts; in draw 0 every one does once."""
    drawn = _generator(seed, "layers", str(count)).multinomial(count, np.full(count, 1 / count), replicates)
    return np.concatenate([np.ones((1, count)), drawn.astype(float)])


def _bootstrap(sizes: Mapping[str, int], purpose: str, count: int, seed: int) -> Vector:
    return np.concatenate(
        [
            _generator(seed, purpose, relation).multinomial(size, np.full(size, 1 / size), count).astype(float)
            for relation, size in sizes.items()
        ],
        axis=1,
    )


def _halves(sizes: Mapping[str, int], purpose: str, count: int, seed: int) -> Vector:
    parts = []
    for relation, size in sizes.items():
        generator = _generator(seed, purpose, relation)
        ranks = generator.random((count, size)).argsort(axis=1).argsort(axis=1)
        in_first = size // 2 + (size % 2) * generator.integers(2, size=(count, 1))
        parts.append((ranks < in_first).astype(float))
    return np.concatenate(parts, axis=1)


def _generator(seed: int, purpose: str, relation: str) -> np.random.Generator:
    digest = sha256(f"{purpose}/{relation}".encode()).digest()
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest[:8], "big")]))


def _sizes(facts: Sequence[tuple[str, str]]) -> dict[str, int]:
    relations = [relation for relation, _ in facts]
    return {relation: relations.count(relation) for relation in dict.fromkeys(relations)}


def _name(facts: Sequence[tuple[str, str]]) -> str:
    return sha256("\x00".join(part for fact in facts for part in fact).encode()).hexdigest()[:16]
