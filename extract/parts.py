"""One extraction that was measured in parts, each by a process of its own: the parts' tables become the whole's.

A part measures every n-th block of the checkpoint's prompts. It holds all prompts, since the choices of an answer and
mismatched subjects depend on all of them. Blocks are the same whatever machine measures the part, and in however large
batches, so that parts fit together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timecourse.extract.prompts import Prompt
from timecourse.extract.raw import TABLES, is_readable, write_table

BLOCK = 32
"""Prompts of like length that go to the same part."""

COUNTS = "counts.json"
"""Of a part, beside its tables: what its share of degenerate sums was computed from."""


@dataclass(frozen=True)
class Part:
    """The index-th of `count` parts of an extraction, from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


WHOLE = Part(0, 1)


def prompts_of_part(prompts: Sequence[Prompt], part: Part) -> list[Prompt]:
    """The prompts that a part measures: every one is in exactly one part."""
    by_length = sorted(prompts, key=lambda prompt: len(prompt.token_ids))
    starts = range(0, len(by_length), BLOCK)[part.index :: part.count]
    return [prompt for start in starts for prompt in by_length[start : start + BLOCK]]


def write_counts(directory: Path, degenerate_sums: Sequence[int], sums: int) -> None:
    """Write how many sums a part's batches had, and how many of them were degenerate at each τ."""
    (directory / COUNTS).write_text(json.dumps({"degenerate_sums": list(degenerate_sums), "sums": sums}))


def is_whole(part: Path) -> bool:
    """Whether every file of a finished part can be read. Raises OSError where the disk does not give one back."""
    try:
        json.loads((part / COUNTS).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return all(is_readable(part / f"{name}.parquet") for name in TABLES)


def merge(parts: Sequence[Path], directory: Path) -> dict[str, int]:
    """Write the tables of an extraction into `directory` from those of all its parts; returns rows by table."""
    checkpoint = _checkpoint(parts)
    tables = {name: pq.read_table(parts[0] / f"{name}.parquet") for name in ("prompts", "prompt_tokens")}
    for name in ("attributions", "contributions", "predictions"):
        joined = pa.concat_tables(pq.read_table(part / f"{name}.parquet") for part in parts).unify_dictionaries()
        keys = [joined.column("prompt_id").to_numpy()]  # the last key counts first; equal rows stay in their order
        if name == "attributions":
            (taus,) = checkpoint["tau_ids"]
            keys.append(pc.index_in(joined.column("tau_id").cast(pa.string()), pa.array(taus)).to_numpy())
        tables[name] = joined.take(np.lexsort(keys))
    rows = {
        name: write_table(directory, name, {one: table.column(one).combine_chunks() for one in table.column_names})
        for name, table in tables.items()
    }
    return rows | {"checkpoint": write_table(directory, "checkpoint", checkpoint)}


def _checkpoint(parts: Sequence[Path]) -> dict[str, list[Any]]:
    """The checkpoint's row: errors are the largest of any part, seconds the sum of all."""
    rows = [pq.read_table(part / "checkpoint.parquet").to_pylist()[0] for part in parts]
    counts = [json.loads((part / COUNTS).read_text()) for part in parts]
    degenerate = np.sum([one["degenerate_sums"] for one in counts], axis=0)
    seconds = [json.loads(row["seconds_by_phase"]) for row in rows]
    whole = rows[0] | {
        "completeness_error_max": max(row["completeness_error_max"] for row in rows),
        "lens_error_max": max(row["lens_error_max"] for row in rows),
        "degenerate_share": int(degenerate.max()) / sum(one["sums"] for one in counts),
        "seconds_by_phase": json.dumps({phase: round(sum(one[phase] for one in seconds), 3) for phase in seconds[0]}),
    }
    return {name: [value] for name, value in whole.items()}
