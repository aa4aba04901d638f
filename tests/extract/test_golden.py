"""The measurement against what the published pipeline computed on the same checkpoints."""

from pathlib import Path

import polars as pl
import pytest
import torch

from timecourse.extract import contributions, proximities
from timecourse.extract.activations import reading_layers
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.contributions import LayerContributions, layer_contributions
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import prompts_of
from timecourse.extract.loading import load_model

TAUS = ("0.05", "0.15")
STAGES = {"0_pre": -1, "1_pre": 0, "2_pre": 1, "3_pre": 2, "final_post": 4}


def reference(golden: Path, tau: str, table: str) -> pl.DataFrame:
    return pl.read_parquet(golden / f"tau_{tau}" / f"{table}.parquet")


def keyed_prompts(golden: Path, prompts: pl.DataFrame) -> pl.DataFrame:
    """prompt_id with the reference's (relation, idx), matched by sentence."""
    sentences = reference(golden, "0.05", "prompts").select("relation", "idx", "sentence").unique()
    sentence = pl.col("template").str.replace("{}", pl.col("subject"), literal=True) + " " + pl.col("object")
    return prompts.select("prompt_id", sentence=sentence).join(sentences, on="sentence", validate="1:1")


def test_prompts_and_spans_are_the_reference_ones(golden, golden_extractions):
    expected = reference(golden, "0.05", "prompts").select(
        "relation", "idx", "position", "token_id", "span_role", "is_answer_predicting"
    )
    for tables in golden_extractions.values():
        found = tables["prompt_tokens"].join(keyed_prompts(golden, tables["prompts"]), on="prompt_id")
        assert set(found.select(expected.columns).rows()) == set(expected.rows())
        assert found.height == expected.height


@pytest.mark.parametrize("tau", TAUS)
def test_active_components_are_the_reference_ones(golden, golden_extractions, tau):
    component = (
        pl.when(pl.col("kind") == "head")
        .then(pl.format("L{}H{}", "layer", "head"))
        .otherwise(pl.format("L{}F", "layer"))
    )
    expected = reference(golden, tau, "active").with_columns(component_id=component)
    columns = ["relation", "idx", "position", "component_id"]
    differing = set()
    for revision, tables in golden_extractions.items():
        found = tables["attributions"].filter(pl.col("tau_id") == tau)
        found = found.join(keyed_prompts(golden, tables["prompts"]), on="prompt_id").select(columns)
        wanted = expected.filter(pl.col("revision") == revision).select(columns)
        assert wanted.height > 0
        differing |= {(revision, *row) for row in set(found.rows()) ^ set(wanted.rows())}
    # the reference's extra parts move what lies within 4e-4 of τ: one component of step0 at τ = 0.15
    assert len(differing) <= (0 if tau == "0.05" else 1), differing


def test_ranks_are_the_reference_ones_but_for_near_ties(golden, golden_extractions):
    for revision, tables in golden_extractions.items():
        expected = reference(golden, "0.05", "predictions").filter(
            (pl.col("revision") == revision) & pl.col("stage").is_in(list(STAGES))
        )
        expected = expected.with_columns(readout=pl.col("stage").replace_strict(STAGES, return_dtype=pl.Int16))
        found = tables["predictions"].filter(pl.col("answer_token_index") == 0)
        found = found.join(keyed_prompts(golden, tables["prompts"]), on="prompt_id")
        both = expected.join(found, on=["relation", "idx", "readout"], validate="1:1")
        assert both.height == expected.height > 100
        assert both.filter(pl.col("position") != pl.col("position_right")).is_empty()
        assert both.filter(pl.col("rank") != pl.col("first_answer_token_rank")).height <= 1


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("as_published", [True, False])
def test_contributions_after_the_threshold_are_the_reference_ones(
    golden, golden_extractions, monkeypatch, tau, as_published
):
    """Within 3e-6 once the published pipeline's 1e-6 per coordinate is put back in; within 5e-5 as they are defined, in
    float32 and float64 alike.

    At τ = 0.15 at most one contribution more or less than the reference's, of a checkpoint that holds few.
    """
    bound = 3e-6 if as_published else 5e-5
    if as_published:
        for module in (contributions, proximities):
            monkeypatch.setattr(module, "proximity", published_proximity)
    only_one_side = 0
    for checkpoint in find_checkpoints(golden / "models"):
        request = ExtractionRequest("golden", checkpoint, load_relations(golden / "facts"), MeasurementSettings())
        names = keyed_prompts(golden, golden_extractions[checkpoint.name]["prompts"])
        keys = {prompt_id: (relation, idx) for prompt_id, _, relation, idx in names.rows()}
        heads, nodes = {}, {}
        for prompt, layers in contributions_of(request):
            for index, layer in enumerate(layers):
                cut = layer.thresholded(float(tau))
                for query, key, head in cut.attention.heads[0].nonzero().tolist():
                    value = float(cut.attention.heads[0, query, key, head])
                    heads[(*keys[prompt.prompt_id], index, query, key, head)] = value
                for token in range(len(prompt.token_ids)):
                    ended = bool(cut.feed_forward.degenerate[0, token])
                    nodes[(*keys[prompt.prompt_id], index, token)] = (
                        None if bool(cut.attention.degenerate[0, token]) else float(cut.attention.residual[0, token]),
                        None if ended else float(cut.feed_forward.feed_forward[0, token]),
                        None if ended else float(cut.feed_forward.residual[0, token]),
                    )
        this = pl.col("revision") == checkpoint.name
        expected = reference(golden, tau, "attention_contributions").filter(this)
        expected_heads = {tuple(row[:-1]): row[-1] for row in expected.drop("revision").rows()}
        only_one_side += len(expected_heads.keys() ^ heads.keys())
        shared = expected_heads.keys() & heads.keys()
        assert len(shared) > (1000 if tau == "0.05" else 50)
        moved = {key[:4] for key in expected_heads.keys() ^ heads.keys()}
        assert max(abs(expected_heads[key] - heads[key]) for key in shared if key[:4] not in moved) <= bound
        for row in reference(golden, tau, "node_contributions").filter(this).drop("revision").rows():
            if row[:4] in moved:
                continue
            for wanted, found in zip(row[4:], nodes[row[:4]], strict=True):
                is_missing = wanted is None or wanted != wanted
                assert (found is None) == is_missing
                assert is_missing or abs(wanted - found) <= bound
    assert only_one_side <= (0 if tau == "0.05" else 1)


def published_proximity(whole, left, _norm):
    """‖y‖₁ − ‖y − p − 1e-6‖₁: what the published pipeline's distance function computes."""
    return (whole.abs() - (left - 1e-6).abs()).sum(-1)


def contributions_of(request: ExtractionRequest):
    """Each prompt, measured alone, with its layers' contributions before τ."""
    model = load_model(request.checkpoint, "float32", "cpu", "eager")
    for prompt in prompts_of(request):
        layers: list[LayerContributions] = []
        with (
            torch.inference_mode(),
            reading_layers(
                model.network, model.family, lambda _, one, layers=layers: layers.append(layer_contributions(one))
            ),
        ):
            model.network(input_ids=torch.tensor([prompt.token_ids]), use_cache=False)
        yield prompt, layers
