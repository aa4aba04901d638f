"""A real series through the real models: what OLMo-7B-0424's checkpoints answer to "The capital city of X is".

Takes the path of a parquet file with one row per checkpoint, country and residual stage (`revision`, `step`,
`tokens_billions`, `prompt`, `subject`, `first_answer_token`, `stage`, `rank`, `prob`), as the paper's authors publish
it. Writes a lake of predictions without attributions, builds and releases it, compares its accuracies with a direct
computation, and prints what the warehouse says of convergence. The predictions are of first answer tokens only.
"""

import argparse
import sys
import tempfile
from math import log
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from timecourse.build import build_warehouse
from timecourse.extract.raw import SCHEMA_VERSION, write_table
from timecourse.lake import Lake
from timecourse.release import publish

SERIES, RELATION, LAYERS = "olmo-7b-0424", "capital_of_country", 32
PLACE, OUTPUT = 1, "final_post"
"""Position of the prompt's last token, which stands for the whole prompt; the stage of the model's own logits."""


def main() -> None:
    """Convert, build, release, compare, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readouts", type=Path, help="the parquet file")
    parser.add_argument("--lake", type=Path, help="where to leave the lake; a temporary folder by default")
    options = parser.parse_args()
    rows = pl.read_parquet(options.readouts)
    with tempfile.TemporaryDirectory() as folder:
        root: Path = options.lake or Path(folder) / "lake"
        write_lake(root, rows)
        built = build_warehouse(root, theta="0.1", complete_series=[SERIES])
        release = publish(Lake(root), Lake(root).contents(), {"theta": "0.1"}, built.checks).path
        with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as warehouse:
            compare(warehouse, rows)
            sys.stdout.write(summary(warehouse, rows))


def write_lake(root: Path, rows: pl.DataFrame) -> None:
    """Commit one extraction per checkpoint: prompts, what stands for their tokens, and predictions."""
    lake = Lake(root)
    lake.create()
    numbers = {prompt: number for number, prompt in enumerate(rows["prompt"].unique().sort())}
    answers = {answer: number for number, answer in enumerate(rows["first_answer_token"].unique().sort())}
    for (name,), of_checkpoint in rows.group_by("revision", maintain_order=True):
        tables = _tables(str(name), of_checkpoint, numbers, answers)
        with lake.incoming() as folder:
            counts = {table: write_table(folder, table, columns) for table, columns in tables.items()}
            lake.commit(
                folder,
                series_id=SERIES,
                checkpoint_name=str(name),
                extraction_id=f"capitals-{name}",
                inputs={},
                rows=counts,
                checks=[],
            )
    lake.declare_series(SERIES, complete=True)


def _tables(
    name: str, rows: pl.DataFrame, numbers: dict[str, int], answers: dict[str, int]
) -> dict[str, dict[str, list[Any]]]:
    first = rows.row(0, named=True)
    extraction = f"capitals-{name}"
    prompts = rows.unique("prompt").sort("prompt").rows(named=True)
    tokens = first["tokens_billions"]
    shape = {"layer_count": LAYERS, "head_count": 32, "kv_head_count": 32, "hidden_size": 4096}
    checkpoint = {
        "schema_version": SCHEMA_VERSION, "series_id": SERIES, "checkpoint_id": f"{SERIES}/{name}",
        "checkpoint_name": name, "model": "allenai/OLMo-7B-0424-hf", "commit_sha": None, "phase": "pretraining",
        "stage": None, "branch": "main", "step": first["step"], "tokens_computed": None,
        "tokens_reported": None if tokens is None else 1_000_000_000 * tokens, "weights_sha256": f"unknown, of {name}",
        "facts_sha256": "capitals", "tokenizer_sha256": "unknown", "family": "olmo", "topology": "sequential_pre_norm",
        **shape, "vocabulary_size": 50_304, "parameter_count": 6_888_095_744, "setting_id": "published",
        "tau_ids": ["0.01"], "taus": [0.01], "norm": "l1", "dtype": "float16", "device": "unknown",
        "completeness_error_max": 0.0, "lens_error_max": 0.0, "degenerate_share": 0.0, "prompt_count": len(prompts),
        "extractor_version": 1, "versions": "{}", "seconds_by_phase": "{}",
    }  # fmt: skip
    prompt_rows = [
        {
            "prompt_id": numbers[row["prompt"]], "relation_id": RELATION, "relation_group": "location",
            "template_id": 0, "template": "The capital city of {} is", "subject": country, "covariates": None,
            "fact_id": f"{RELATION}/{country}", "object": row["first_answer_token"].strip(),
        }
        for row in prompts
        for country in [row["prompt"].removeprefix("The capital city of ").removesuffix(" is")]
    ]  # fmt: skip
    token_rows = [
        {
            "prompt_id": numbers[row["prompt"]], "position": position, "token_id": token_id, "token": token,
            "span_role": role, "is_special": False, "is_answer_predicting": position == PLACE,
        }
        for row in prompts
        for position, token_id, token, role in (
            (0, len(answers), row["subject"], "subject"),
            (PLACE, len(answers) + 1, " is", "template"),
            (PLACE + 1, answers[row["first_answer_token"]], row["first_answer_token"], "answer"),
        )
    ]  # fmt: skip
    prediction_rows = [
        {
            "prompt_id": numbers[row["prompt"]], "answer_token_index": 0, "readout": readout, "position": PLACE,
            "rank": row["rank"], "log_prob": log(max(row["prob"], 1e-12)), "top1_token_id": -1, "top1_token": "",
            "entropy": float("nan"), "rank_in_relation": 0, "log_prob_mismatched": None,
        }
        for row in rows.rows(named=True)
        for readout in _readouts(row["stage"])
    ]  # fmt: skip
    raw = {
        "checkpoint": [checkpoint], "prompts": prompt_rows, "prompt_tokens": token_rows, "predictions": prediction_rows
    }  # fmt: skip
    return {
        table: {"extraction_id": [extraction] * len(records), **_columns(records)} for table, records in raw.items()
    }


def _readouts(stage: str) -> tuple[int, ...]:
    """The readouts that a stage is: the stream before block l is the one after block l - 1; none between sublayers."""
    if stage == OUTPUT:
        return (LAYERS - 1, LAYERS)
    layer, place = stage.split("_")
    return (int(layer) - 1,) if place == "pre" else ()


def _columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in records[0]}


def accuracies(rows: pl.DataFrame) -> pl.DataFrame:
    """Top-1 and top-10 accuracy of every checkpoint, straight from the ranks."""
    return (
        rows.filter(pl.col("stage") == OUTPUT)
        .group_by("revision")
        .agg(
            step=pl.col("step").first(),
            top1=(pl.col("rank") == 0).mean(),
            top10=(pl.col("rank") < 10).mean(),
        )
        .sort("step", nulls_last=True)
    )


def compare(warehouse: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> None:
    """Raises SystemExit where the warehouse's accuracies are not those of the direct computation."""
    built = warehouse.sql(
        """select checkpoint_name as revision, top1_accuracy as top1, top10_accuracy as top10
        from fct_relation_accuracies join dim_checkpoints using (series_id, setting_id, checkpoint_id)
        where scope_kind = 'relation' order by checkpoint_index"""
    ).pl()
    direct = accuracies(rows).drop("step")
    close = built["revision"].equals(direct["revision"]) and all(
        (built[metric] - direct[metric]).abs().max() <= 1e-9  # type: ignore[operator]  # typed for any column
        for metric in ("top1", "top10")
    )
    if not close:
        raise SystemExit("the warehouse's accuracies are not those of the direct computation")


def summary(warehouse: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> str:
    """How the accuracies run, and what the warehouse says of convergence, as Markdown."""
    direct = accuracies(rows)
    lines = [f"{direct.height} checkpoints; accuracies equal those of a direct computation.", ""]
    for metric in ("top1", "top10"):
        values = direct[metric]
        falls = (values.diff() < -0.3).sum()
        lines.append(
            f"{metric}: {values.min():.3f} to {values.max():.3f}, last {values[-1]:.3f}, {falls} falls by > 0.3"
        )
    convergences = warehouse.sql("from fct_relation_convergences where fact_subset = 'all' order by all")
    names = convergences.columns
    lines += ["", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in convergences.fetchall()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
