"""The extraction job measures a checkpoint of every family, and refuses it where a term was forgotten."""

import dataclasses
import json

import polars as pl
import pytest
import torch

from tests.conftest import train_tokenizer
from tests.extract.families.shapes import EXAMPLES, Shape, measure, prompts
from timecourse.errors import UserError
from timecourse.extract import measurement
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.families.random_models import random_model
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract


@pytest.fixture(scope="module")
def relations(tmp_path_factory):
    """One relation of two facts: the job is run often here."""
    directory = tmp_path_factory.mktemp("facts")
    samples = [{"subject": "France", "object": "Paris"}, {"subject": "New Zealand", "object": "Wellington City"}]
    relation = {"name": "capital_of", "group": "location", "prompt_templates": ["The capital of {} is"]}
    (directory / "capital_of.json").write_text(json.dumps({**relation, "samples": samples}), encoding="utf-8")
    return load_relations(directory)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves a shape's model with a tokenizer, once, and finds it again as the product does."""
    tokenizer, found = train_tokenizer(), {}

    def save(shape):
        if shape not in found:
            directory = tmp_path_factory.mktemp("series")
            size = {"vocab_size": len(tokenizer)}
            text = {"text_config": {**shape.config["text_config"], **size}} if "text_config" in shape.config else size
            model = random_model(shape.model_type, {**shape.config, **text})
            model.save_pretrained(directory / "main")
            tokenizer.save_pretrained(directory / "main")
            (found[shape],) = find_checkpoints(directory)
        return found[shape]

    return save


def measured_by_the_job(checkpoint, relations, directory, **settings):
    extract(
        ExtractionRequest("series", checkpoint, relations, MeasurementSettings(**settings)), directory, Machine("cpu")
    )
    return pl.read_parquet(directory / "checkpoint.parquet").row(0, named=True)


@pytest.mark.parametrize("shape", EXAMPLES, ids=str)
def test_the_job_measures_every_family(shape, saved, relations, tmp_path):
    row = measured_by_the_job(saved(shape), relations, tmp_path)
    assert row["family"] == shape.family.name
    assert row["completeness_error_max"] < 1e-5 and row["lens_error_max"] < 1e-5
    config = shape.config.get("text_config", shape.config)
    assert row["head_count"] == config["num_attention_heads"]
    assert row["hidden_size"] == config["hidden_size"]
    assert row["kv_head_count"] == config.get("num_key_value_heads", row["head_count"])


def example(name):
    return next(shape for shape in EXAMPLES if str(shape) == name)


FORGOTTEN_BY_THE_FAMILY = [
    ("olmo2-example0", {"attention_norm": None}, "miss the stream"),
    ("olmo3-example1", {"feed_forward_output": "mlp"}, "miss the stream"),
    ("gemma2-example0", {"gain_offset": 0.0}, "miss the stream"),
    ("gemma3_text-example1", {"attention_norm": None}, "miss the stream"),
    ("gemma3-example0", {"feed_forward_output": "mlp"}, "miss the stream"),
    ("granite-example1", {"residual_multiplier": None}, "miss the stream"),
    ("gpt_neox-example0", {"is_parallel": lambda _: False}, "miss the stream"),
    ("gemma2-example0", {"logits_softcap": None}, "logit lens"),
    ("gemma3_text-example1", {"logits_softcap": None}, "logit lens"),
    ("granite-example0", {"logits_divisor": None}, "logit lens"),
]


@pytest.mark.parametrize(("name", "change", "message"), FORGOTTEN_BY_THE_FAMILY)
def test_a_family_that_forgets_a_term_is_refused(name, change, message, saved, relations, tmp_path):
    checkpoint = saved(example(name))
    forgetful = dataclasses.replace(checkpoint.family, **change)
    with pytest.raises(UserError, match=message):
        measured_by_the_job(dataclasses.replace(checkpoint, family=forgetful), relations, tmp_path)


def without_bias(layer):
    return {"output_bias": None}


def without_clip(layer):
    return {"value": layer.value * 1.5}


def without_window(layer):
    uniform = torch.ones_like(layer.pattern).tril()
    return {"pattern": uniform / uniform.sum(-1, keepdim=True)}


def without_ffn(layer):
    return {"feed_forward": torch.zeros_like(layer.feed_forward)}


FORGOTTEN_IN_A_LAYER = [
    ("llama-example1", without_bias),
    ("gpt2-example0", without_bias),
    ("olmo2-example1", without_bias),
    ("gpt_neox-example0", without_bias),
    ("olmo-example0", without_clip),
    ("olmoe-example0", without_clip),
    ("mistral-example1", without_window),
    ("olmoe-example1", without_ffn),
    ("gpt2-example1", without_ffn),
]


@pytest.mark.parametrize(("name", "change"), FORGOTTEN_IN_A_LAYER)
def test_a_layer_without_a_term_is_refused(name, change, saved, relations, tmp_path, monkeypatch):
    original = measurement.layer_contributions
    monkeypatch.setattr(
        measurement,
        "layer_contributions",
        lambda layer, norm, **options: original(dataclasses.replace(layer, **change(layer)), norm, **options),
    )
    with pytest.raises(UserError, match="miss the stream"):
        measured_by_the_job(saved(example(name)), relations, tmp_path)


def test_attention_to_later_tokens_is_refused():
    shape = example("gemma3_text-example0")
    both_ways = Shape(shape.family, "both-ways", {**shape.config, "use_bidirectional_attention": True})
    with pytest.raises(UserError, match="only causal attention"):
        measure(both_ways.build(), both_ways.family, *prompts())
