"""Raw tables of simulated series: components that are active with given peaks, and ranks of answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from timecourse.extract.raw import SCHEMA_VERSION, TABLES

Array = NDArray[Any]

SPANS = ("subject", *("template",) * 8, "answer")
"""Tokens of every prompt; the last one before the answer predicts it."""
SUBJECT, PREDICTING = 0, 8


@dataclass(frozen=True)
class Facts:
    """Relations of equally many facts, each asked in one prompt; `groups` has one entry per relation."""

    groups: Mapping[str, str]
    per_relation: int

    @property
    def relations(self) -> Array:
        """The number of each fact's relation."""
        return np.repeat(np.arange(len(self.groups)), self.per_relation)


@dataclass(frozen=True)
class Checkpoint:
    """`peaks` are [component, fact, position], 0 where it is not active; `contributions` [component, fact]; `ranks` of
    the facts' answers. A layer's components are its heads, then its FFN."""

    step: int | None
    peaks: Array
    contributions: Array | None = None
    ranks: Array | None = None


@dataclass(frozen=True)
class Series:
    """Checkpoints in the order of training."""

    series_id: str
    layers: int
    heads: int
    facts: Facts
    checkpoints: Sequence[Checkpoint]
    tau_id: str = "0.05"
    tau: float = 0.05


def component_ids(layers: int, heads: int) -> list[str]:
    names = [*(f"H{head}" for head in range(heads)), "F"]
    return [f"L{layer}{name}" for layer in range(layers) for name in names]


def fill_raw(connection: duckdb.DuckDBPyConnection, series: Iterable[Series]) -> None:
    """Make the tables `raw_<table>` of every series."""
    parts: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
    for one in series:
        for number, checkpoint in enumerate(one.checkpoints):
            for name, columns in _tables(one, number, checkpoint).items():
                parts[name].append(_table(name, f"{one.series_id}/{number}", columns))
    for name, tables in parts.items():
        rows = pa.concat_tables(tables) if tables else TABLES[name].empty_table()
        connection.register("rows", rows)
        connection.execute(f"create or replace table raw_{name} as from rows")
        connection.unregister("rows")


def _tables(series: Series, number: int, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Columns of each raw table; a value that is no array stands for every row."""
    relations = series.facts.relations
    facts = np.arange(len(relations))
    component, fact, position = np.nonzero(checkpoint.peaks)
    peak = checkpoint.peaks[component, fact, position]
    ids = component_ids(series.layers, series.heads)
    relation_names = list(series.facts.groups)
    name = f"step{checkpoint.step}" if checkpoint.step is not None else "main"
    tables: dict[str, dict[str, Any]] = {
        "checkpoint": {
            "schema_version": SCHEMA_VERSION,
            "series_id": series.series_id,
            "checkpoint_id": f"{series.series_id}/{name}",
            "checkpoint_name": name,
            "model": "simulated",
            "phase": "pretraining",
            "branch": "main",
            "step": checkpoint.step,
            "weights_sha256": f"{series.series_id}/{number}",
            "facts_sha256": "facts",
            "tokenizer_sha256": "tokenizer",
            "family": "simulated",
            "topology": "sequential_pre_norm",
            "layer_count": series.layers,
            "head_count": series.heads,
            "kv_head_count": series.heads,
            "hidden_size": 64,
            "vocabulary_size": 1000,
            "parameter_count": 1_000_000,
            "setting_id": "setting",
            "tau_ids": [series.tau_id],
            "taus": [series.tau],
            "norm": "l1",
            "dtype": "float32",
            "device": "cpu",
            "completeness_error_max": 0.0,
            "lens_error_max": 0.0,
            "degenerate_share": 0.0,
            "prompt_count": len(facts),
            "extractor_version": 1,
            "versions": "{}",
            "seconds_by_phase": "{}",
        },
        "prompts": {
            "prompt_id": facts,
            "relation_id": [relation_names[relation] for relation in relations],
            "relation_group": [series.facts.groups[relation_names[relation]] for relation in relations],
            "template_id": 0,
            "template": "{} is",
            "fact_id": [f"{relation_names[relation]}/{fact}" for fact, relation in zip(facts, relations, strict=True)],
            "subject": "subject",
            "object": [f"object {fact}" for fact in facts],
        },
        "prompt_tokens": {
            "prompt_id": np.repeat(facts, len(SPANS)),
            "position": np.tile(np.arange(len(SPANS)), len(facts)),
            "token_id": np.repeat(facts, len(SPANS)),
            "token": "x",
            "span_role": list(SPANS) * len(facts),
            "is_answer_predicting": np.tile(np.arange(len(SPANS)) == PREDICTING, len(facts)),
            "is_special": False,
        },
        "attributions": {
            "tau_id": series.tau_id,
            "prompt_id": fact,
            "position": position,
            "component_id": pa.DictionaryArray.from_arrays(component.astype(np.int32), ids),
            "score": peak,
            "peak": peak,
            "edges": 1,
            "score_direct": peak,
        },
    }
    if checkpoint.contributions is not None:
        component, fact = np.indices(checkpoint.contributions.shape).reshape(2, -1)
        tables["contributions"] = {
            "prompt_id": fact,
            "position": PREDICTING,
            "component_id": pa.DictionaryArray.from_arrays(component.astype(np.int32), ids),
            "c_direct": checkpoint.contributions.ravel(),
        }
    if checkpoint.ranks is not None:
        tables["predictions"] = {
            "prompt_id": facts,
            "answer_token_index": 0,
            "readout": series.layers,
            "position": PREDICTING,
            "rank": checkpoint.ranks,
            "log_prob": -1.0,
            "top1_token_id": 0,
            "top1_token": "x",
            "entropy": 1.0,
            "rank_in_relation": 0,
        }
    return tables


def _table(name: str, extraction_id: str, columns: Mapping[str, Any]) -> pa.Table:
    """Rows of one extraction; columns that are left out are null."""
    rows = 1 if name == "checkpoint" else len(columns["prompt_id"])
    arrays = []
    for field in TABLES[name]:
        value = extraction_id if field.name == "extraction_id" else columns.get(field.name)
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if isinstance(value, pa.DictionaryArray):
            arrays.append(value)
        elif isinstance(value, np.ndarray) or (isinstance(value, list) and name != "checkpoint"):
            arrays.append(pa.array(value, kind))
        else:
            arrays.append(
                pa.array([value] * rows, kind) if name == "checkpoint" else pa.repeat(pa.scalar(value, kind), rows)
            )
    return pa.table(arrays, names=TABLES[name].names)
