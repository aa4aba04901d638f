"""The table of supported families: how each is built, and what was verified of it. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timecourse.extract.families import FAMILIES

VERIFIED = Path(__file__).with_name("verified.json")
"""What `make verify-families` measured: one row per family, see verification.verify."""

_MEASURED = ("attention", "error_float32", "error_float16", "error_bfloat16", "verified_with")


def families_table(measured: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """One row per family; what was verified comes from `measured`, or from the record that comes with the package."""
    rows = json.loads(VERIFIED.read_text(encoding="utf-8")) if measured is None else measured
    by_name = {row["family"]: row for row in rows}
    table = []
    for family in FAMILIES:
        blocks = sorted({family.block(example) for example in family.examples}, key=("parallel", "sequential").index)
        verified = {key: value for key, value in by_name.get(family.name, {}).items() if key in _MEASURED}
        table.append(
            {
                "family": family.name,
                "model_type": ", ".join(family.model_types),
                "block": " or ".join(blocks),
                "norms": f"{family.norms} ({family.norm_kind})",
                **verified,
                "not_verified": ", ".join(family.not_verified) or None,
            }
        )
    return table


def not_verified(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table says about no family at all, in words."""
    elsewhere = "" if any(row.get("verified_with", "").startswith("cuda") for row in rows) else "CUDA, "
    return (
        "Errors: the largest relative difference between the sum of the parts and the stream, on small models whose "
        f"every parameter is random. Not verified for any family: {elsewhere}flash attention, weights of published "
        "checkpoints. Quantised checkpoints are refused."
    )
