"""Writes raw lakes for the tests: real parquet files through the extraction's own writer, and their commits."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from timecourse.extract.raw import SCHEMA_VERSION, TABLES, write_table
from timecourse.lake.files import sha256_of

GOLDEN = Path(__file__).parents[1] / "golden"
Rows = Sequence[Mapping[str, Any]]

CHECKPOINT: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "model": "local",
    "commit_sha": None,
    "phase": "pretraining",
    "stage": None,
    "branch": "main",
    "step": None,
    "tokens_reported": None,
    "tokens_computed": None,
    "facts_sha256": "facts",
    "tokenizer_sha256": "tokenizer",
    "family": "olmo",
    "topology": "sequential_pre_norm",
    "layer_count": 4,
    "head_count": 4,
    "kv_head_count": 4,
    "hidden_size": 128,
    "vocabulary_size": 512,
    "parameter_count": 1_000_000,
    "setting_id": "setting",
    "tau_ids": ["0.05"],
    "taus": [0.05],
    "norm": "l1",
    "dtype": "float32",
    "device": "cpu",
    "completeness_error_max": 1e-6,
    "lens_error_max": 1e-6,
    "degenerate_share": 0.0,
    "extractor_version": 1,
    "versions": "{}",
    "seconds_by_phase": "{}",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "prompts": {"relation_group": "group", "template_id": 0, "template": "{} is", "covariates": None},
    "prompt_tokens": {"token_id": 0, "token": "x", "is_special": False, "is_answer_predicting": False},
    "attributions": {
        "score": 0.5,
        "peak": 0.5,
        "edges": 1,
        "score_direct": 0.5,
        "score_subject": None,
        "score_answer": None,
        "score_template": None,
        "score_first": None,
    },
    "contributions": {"stream_norm": None},
    "predictions": {
        "answer_token_index": 0,
        "position": 0,
        "log_prob": -1.0,
        "top1_token_id": 0,
        "top1_token": "x",
        "entropy": 1.0,
        "rank_in_relation": 0,
        "log_prob_mismatched": None,
    },
}


def commit(
    lake: Path,
    series_id: str,
    checkpoint_name: str,
    tables: Mapping[str, Rows],
    *,
    edition: str = "",
    **checkpoint: Any,
) -> Path:
    """Write one extraction and commit it; returns its directory. Another `edition` is another extraction of the same.

    `tables` holds rows of the raw tables; what a row or `checkpoint` leaves out gets a plain value. A table that is
    left out has no rows.
    """
    setting_id = checkpoint.get("setting_id", CHECKPOINT["setting_id"])
    key = json.dumps([series_id, checkpoint_name, setting_id, edition])
    extraction_id = hashlib.sha256(key.encode()).hexdigest()
    series_slug = "series-" + hashlib.sha256(series_id.encode()).hexdigest()[:8]
    slug = "checkpoint-" + hashlib.sha256(json.dumps([checkpoint_name, setting_id]).encode()).hexdigest()[:8]
    directory = lake / "raw" / series_slug / slug / extraction_id
    directory.mkdir(parents=True)
    row = {
        **CHECKPOINT,
        "series_id": series_id,
        "checkpoint_id": f"{series_id}/{checkpoint_name}",
        "checkpoint_name": checkpoint_name,
        "weights_sha256": f"weights of {series_id}/{checkpoint_name}",
        "prompt_count": len(tables.get("prompts", [])),
        **checkpoint,
    }
    files = {}
    for name, schema in TABLES.items():
        rows: Rows = [row] if name == "checkpoint" else tables.get(name, [])
        defaults = {"extraction_id": extraction_id, **DEFAULTS.get(name, {})}
        columns = {field: [{**defaults, **each}[field] for each in rows] for field in schema.names}
        count = write_table(directory, name, columns)
        file = directory / f"{name}.parquet"
        files[name] = {"path": file.name, "rows": count, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
    path = commit_path(lake, series_id, checkpoint_name, setting_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "schema_version": SCHEMA_VERSION,
        "series_id": series_id,
        "checkpoint_id": f"{series_id}/{checkpoint_name}",
        "checkpoint_name": checkpoint_name,
        "extraction_id": extraction_id,
        "committed_at": "2026-01-01T00:00:00+00:00",
        "directory": str(directory.relative_to(lake)),
        "files": files,
        "inputs": {},
        "checks": [],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return directory


def entry(position: int, name: str, **values: Any) -> dict[str, Any]:
    """One entry of a declaration: a used checkpoint of pretraining's only stage and branch, but for `values`."""
    return {
        "name": name,
        "position": position,
        "phase": "pretraining",
        "phase_index": 0,
        "stage": None,
        "stage_index": 1,
        "branch": "main",
        "step": None,
        "tokens_reported": None,
        "tokens_computed": None,
        "commit_sha": None,
        "weights_sha256": None,
        "bytes": None,
        "status": "used",
        "same_weights_as": None,
        "reason": None,
        **values,
    }


def commit_path(lake: Path, series_id: str, checkpoint_name: str, setting_id: str = "setting") -> Path:
    """Where `commit` puts the commit file."""
    series_slug = "series-" + hashlib.sha256(series_id.encode()).hexdigest()[:8]
    slug = "checkpoint-" + hashlib.sha256(json.dumps([checkpoint_name, setting_id]).encode()).hexdigest()[:8]
    return lake / "commits" / series_slug / f"{slug}.json"


GOLDEN_SERIES = "golden"
GOLDEN_TAUS = ("0.05", "0.15")
GOLDEN_CHECKPOINTS = {  # name -> step
    "step0-tokens0B": 0,
    "step60-tokens1B": 60,
    "step200-tokens2B": 200,
    "main": None,
}


def commit_golden(
    lake: Path,
    checkpoint_names: Sequence[str] = tuple(GOLDEN_CHECKPOINTS),
    *,
    edition: str = "",
    active_tau_ids: Sequence[str] = GOLDEN_TAUS,
) -> dict[str, Path]:
    """Commit the reference results' checkpoints as one series with two taus; returns their directories.

    Nothing is active at a tau that `active_tau_ids` leaves out.
    """
    prompt_rows = _records(
        f"select relation, idx, any_value(sentence) as sentence from '{GOLDEN}/tau_0.05/prompts.parquet' "
        "group by all order by all"
    )
    prompt_ids = {(row["relation"], row["idx"]): number for number, row in enumerate(prompt_rows)}
    facts = {path.stem: json.loads(path.read_text())["samples"] for path in (GOLDEN / "facts").glob("*.json")}
    answers = {
        key: next(
            fact for fact in facts[key[0]] if fact["subject"] in row["sentence"] and fact["object"] in row["sentence"]
        )
        for key, row in zip(prompt_ids, prompt_rows, strict=True)
    }
    prompts = [
        {
            "prompt_id": number,
            "relation_id": relation,
            "relation_group": "name" if relation in ("book_author", "company_ceo") else "location",
            "fact_id": golden_fact_id(relation, index),
            "subject": answers[relation, index]["subject"],
            "object": answers[relation, index]["object"],
        }
        for (relation, index), number in prompt_ids.items()
    ]
    tokens = [
        {
            "prompt_id": prompt_ids[row["relation"], row["idx"]],
            "is_special": row["span_role"] == "special",
            **{name: row[name] for name in ("position", "token_id", "token", "span_role", "is_answer_predicting")},
        }
        for row in _records(f"from '{GOLDEN}/tau_0.05/prompts.parquet' order by relation, idx, position")
    ]
    directories = {}
    for name in checkpoint_names:
        attributions = [
            {
                "tau_id": tau_id,
                "prompt_id": prompt_ids[row["relation"], row["idx"]],
                "position": row["position"],
                "component_id": golden_component_id(row),
                "score": 0.25 + (row["layer"] + 1) / (row["position"] + 1),
            }
            for tau_id in active_tau_ids
            for row in _records(f"from '{GOLDEN}/tau_{tau_id}/active.parquet' where revision = '{name}'")
        ]
        # `l_pre` is the stream before block l, which is the readout after block l - 1.
        predictions = [
            {
                "prompt_id": prompt_ids[row["relation"], row["idx"]],
                "readout": 4 if row["stage"] == "final_post" else int(row["stage"][0]) - 1,
                "position": row["position"],
                "rank": row["first_answer_token_rank"],
            }
            for row in _records(
                f"from '{GOLDEN}/tau_0.05/predictions.parquet' where revision = '{name}' and stage not like '%mid'"
            )
        ]
        tables = {
            "prompts": prompts,
            "prompt_tokens": tokens,
            "attributions": attributions,
            "predictions": predictions,
        }
        directories[name] = commit(
            lake,
            GOLDEN_SERIES,
            name,
            tables,
            edition=edition,
            step=GOLDEN_CHECKPOINTS[name],
            tau_ids=list(GOLDEN_TAUS),
            taus=[float(tau_id) for tau_id in GOLDEN_TAUS],
        )
    return directories


def golden_fact_id(relation: str, index: int) -> str:
    return f"{relation}/fact-{index}"


def golden_component_id(row: Mapping[str, Any]) -> str:
    return f"L{row['layer']}F" if row["kind"] == "ffn" else f"L{row['layer']}H{row['head']}"


def _records(sql: str) -> list[dict[str, Any]]:
    relation = duckdb.sql(sql)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
