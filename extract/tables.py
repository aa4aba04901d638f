"""What a measurement has found, as the columns of the raw tables: collected batch by batch, written at the end.

Nothing here needs the model or the checkpoint's files: while these tables are written the next one can be loaded.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from timecourse.extract.identity import ExtractionRequest
from timecourse.extract.loading import load_tokenizer
from timecourse.extract.prompts import Prompt
from timecourse.extract.raw import write_table
from timecourse.extract.routes import KEY_GROUPS


@dataclass
class _Columns:
    """Columns of one raw table, collected batch by batch."""

    chunks: dict[str, list[np.ndarray[Any, Any]]] = field(default_factory=dict)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Keep a batch's rows; numbers in four bytes, which none of them exceeds."""
        for name, values in columns.items():
            kept = np.asarray(values)
            self.chunks.setdefault(name, []).append(kept.astype(np.int32) if kept.dtype == np.int64 else kept)

    def joined(self, sorted_by: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """All columns, rows sorted by the named ones. Batches are let go of column by column: it can be called once."""
        order = np.lexsort([np.concatenate(self.chunks[name]) for name in reversed(sorted_by)])
        return {name: np.concatenate(self.chunks.pop(name))[order] for name in list(self.chunks)}


class MeasuredTables:
    """The five raw tables below the checkpoint's.

    component_ids: of heads and FFNs; residual_ids: of what else a stream's parts are, in the order in which a
    measurement numbers them after the components.
    """

    def __init__(
        self,
        request: ExtractionRequest,
        prompts: Sequence[Prompt],
        component_ids: Sequence[str],
        residual_ids: Sequence[str],
    ) -> None:
        self.request, self.prompts = request, prompts
        self.tokenizer = load_tokenizer(request.checkpoint)
        self.component_ids, self.residual_ids = component_ids, residual_ids
        self.attributions, self.contributions, self.predictions = _Columns(), _Columns(), _Columns()

    def write(self, directory: Path) -> dict[str, int]:
        """Write the tables as parquet files; returns rows by table."""
        extraction_id = self.request.extraction_id
        attributions = self.attributions.joined(["tau_id", "prompt_id", "position", "component_id"])
        contributions = self.contributions.joined(["prompt_id", "position", "component_id"])
        predictions = self.predictions.joined(["prompt_id", "answer_token_index", "readout"])
        top1_ids = np.unique(predictions["top1_token_id"])
        top1_tokens = [self.tokenizer.decode([token]) for token in top1_ids.tolist()]
        tables: dict[str, dict[str, Any]] = {
            "prompts": _prompt_columns(self.prompts),
            "prompt_tokens": _prompt_token_columns(self.prompts),
            "attributions": {
                **attributions,
                "tau_id": _named(attributions["tau_id"], self.request.settings.taus),
                "component_id": _named(attributions["component_id"], self.component_ids),
                **{f"score_{group}": _nullable(attributions[f"score_{group}"]) for group in KEY_GROUPS},
            },
            "contributions": {
                **contributions,
                "component_id": _named(contributions["component_id"], [*self.component_ids, *self.residual_ids]),
                "stream_norm": _nullable(contributions["stream_norm"]),
            },
            "predictions": {
                **predictions,
                "top1_token": _named(np.searchsorted(top1_ids, predictions["top1_token_id"]), top1_tokens),
                "log_prob_mismatched": _nullable(predictions["log_prob_mismatched"]),
            },
        }
        rows = {}
        for table, columns in tables.items():
            count = len(next(iter(columns.values())))
            everywhere = _named(np.zeros(count, dtype=np.int32), [extraction_id])
            rows[table] = write_table(directory, table, {"extraction_id": everywhere, **columns})
        return rows


def _prompt_columns(prompts: Sequence[Prompt]) -> dict[str, list[Any]]:
    return {
        "prompt_id": [prompt.prompt_id for prompt in prompts],
        "relation_id": [prompt.relation.relation_id for prompt in prompts],
        "relation_group": [prompt.relation.group for prompt in prompts],
        "template_id": [prompt.template_id for prompt in prompts],
        "template": [prompt.relation.prompt_templates[prompt.template_id] for prompt in prompts],
        "fact_id": [prompt.relation.fact_id(prompt.fact) for prompt in prompts],
        "subject": [prompt.fact.subject for prompt in prompts],
        "object": [prompt.fact.object for prompt in prompts],
        "covariates": [json.dumps(prompt.fact.covariates) if prompt.fact.covariates else None for prompt in prompts],
    }


def _prompt_token_columns(prompts: Sequence[Prompt]) -> dict[str, Any]:
    lengths = np.array([len(prompt.token_ids) for prompt in prompts])
    starts = np.concatenate([[0], lengths.cumsum()])
    predicting = np.zeros(starts[-1], dtype=bool)
    predicting[
        [start + at for start, prompt in zip(starts[:-1], prompts, strict=True) for at in prompt.predicting_positions]
    ] = True
    roles = pa.array(list(chain.from_iterable(prompt.roles for prompt in prompts))).dictionary_encode()
    return {
        "prompt_id": np.repeat([prompt.prompt_id for prompt in prompts], lengths),
        "position": np.arange(starts[-1]) - np.repeat(starts[:-1], lengths),
        "token_id": list(chain.from_iterable(prompt.token_ids for prompt in prompts)),
        "token": list(chain.from_iterable(prompt.tokens for prompt in prompts)),
        "span_role": roles,
        "is_answer_predicting": predicting,
        "is_special": pc.equal(roles, "special"),
    }


def _named(codes: "np.ndarray[Any, Any]", names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, type=pa.int32()), pa.array(names, type=pa.string()))


def _nullable(values: "np.ndarray[Any, Any]") -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
