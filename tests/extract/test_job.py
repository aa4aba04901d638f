"""One extraction as a whole: its tables, its independence of the machine's settings, and what it refuses."""

import json
import shutil

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.numpy import load_file, save_file

from tests.conftest import save_checkpoint, save_random_checkpoint
from timecourse.errors import MachineError, UserError
from timecourse.expectations.gate import gate_extraction
from timecourse.extract import measurement
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import load_relations
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings, tau_value
from timecourse.extract.job import Machine, extract
from timecourse.extract.raw import TABLES, write_table


def request_for(directory, facts, name="main", **settings):
    checkpoint = next(one for one in find_checkpoints(directory) if one.name == name)
    return ExtractionRequest("series", checkpoint, load_relations(facts), MeasurementSettings(**settings))


def extracted(tmp_path, request, **machine):
    tmp_path.mkdir(exist_ok=True)
    extract(request, tmp_path, Machine(**machine))
    return {
        name: pl.read_parquet(tmp_path / f"{name}.parquet").with_columns(pl.col(pl.Categorical).cast(pl.String))
        for name in TABLES
    }


def test_a_shape_that_the_library_cannot_run_is_refused(tmp_path, facts_directory):
    """transformers multiplies the experts of a mixture in groups, whose rows must begin at multiples of 16 bytes."""
    folder = tmp_path / "series" / "step1"
    save_random_checkpoint(folder, "olmoe", num_attention_heads=1, hidden_size=14, num_experts=2, num_experts_per_tok=1)
    with pytest.raises(UserError, match=r"'step1' cannot be run: transformers says '.*16 bytes"):
        extracted(tmp_path / "out", request_for(tmp_path / "series", facts_directory, "step1"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory, series_directory, facts_directory):
    request = request_for(series_directory, facts_directory, taus=("0.02", "5x"))
    return extracted(tmp_path_factory.mktemp("extraction"), request)


def test_every_table_is_complete_and_sorted_by_its_key(tables):
    layers, heads, prompts, tokens = 3, 5, 4 * 2 + 2, tables["prompt_tokens"]
    answers = tokens.filter(pl.col("span_role") == "answer").height
    assert tables["prompts"].height == prompts
    assert tokens.filter("is_answer_predicting").height == answers
    assert tables["predictions"].height == answers * (layers + 2)
    assert tables["contributions"].height == answers * (layers * (heads + 1) + 2 * layers)
    for name, schema in TABLES.items():
        key = schema.metadata[b"primary_key"].decode().split(",")
        assert tables[name].select(key).is_unique().all(), name
    plain = tables["predictions"].select("prompt_id", "answer_token_index", "readout")
    assert plain.equals(plain.sort(plain.columns))


def test_the_values_mean_what_they_say(tables):
    checkpoint = tables["checkpoint"].row(0, named=True)
    assert checkpoint["taus"] == [0.02, tau_value("5x", 5)] == [0.02, 5 / 81]
    assert checkpoint["completeness_error_max"] < 1e-5 and checkpoint["lens_error_max"] < 1e-5
    active = tables["attributions"]
    heads = active.filter(pl.col("component_id").str.contains("H"))
    split = sum(heads[f"score_{group}"] for group in ("subject", "answer", "template", "first"))
    assert (split - heads["score"]).abs().max() < 1e-4
    assert active.filter(
        (pl.col("peak") > pl.col("score") + 1e-6) | (pl.col("score_direct") > pl.col("score") + 1e-6)
    ).is_empty()
    per_layer = tables["contributions"].with_columns(
        sum=pl.col("component_id").str.replace(r"H\d+$|RA$", "A").str.replace(r"RF$", "F")
    )
    totals = per_layer.group_by("prompt_id", "position", "sum").agg(pl.col("c_direct").sum())["c_direct"]
    assert ((totals - 1).abs() < 1e-4).all()
    # a smaller threshold keeps all that a larger one keeps at the target itself
    at_target = active.filter(pl.col("score_direct") > 0).select("tau_id", "prompt_id", "position", "component_id")
    strict, loose = (set(at_target.filter(pl.col("tau_id") == tau).drop("tau_id").rows()) for tau in ("5x", "0.02"))
    assert len(strict) > 0 and len(loose) > len(strict)


def test_direct_contributions_follow_from_the_contributions_table(tables):
    """At an answer-predicting target, the direct score is positive only where c_direct exceeds τ somewhere."""
    active = tables["attributions"].filter((pl.col("tau_id") == "5x") & (pl.col("score_direct") > 0))
    both = active.join(tables["contributions"], on=["prompt_id", "position", "component_id"])
    assert both.height > 50
    assert both.filter(pl.col("c_direct") <= 5 / 81).is_empty()


def test_ranks_and_log_probabilities_are_those_of_the_untouched_model(tables, series_directory):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(series_directory / "main", attn_implementation="eager").eval()
    own = tables["predictions"].filter(pl.col("readout") == 3)
    tokens = tables["prompt_tokens"].sort("prompt_id", "position")
    for (prompt_id,), prompt in tokens.group_by("prompt_id", maintain_order=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt["token_id"].to_list()])).logits[0]
        for row in own.filter(pl.col("prompt_id") == prompt_id).iter_rows(named=True):
            answer = prompt["token_id"][row["position"] + 1]
            at = logits[row["position"]]
            assert row["rank"] == int((at > at[answer]).sum())
            assert row["log_prob"] == pytest.approx(float(at.log_softmax(-1)[answer]), abs=1e-4)
            assert row["top1_token_id"] == int(at.argmax())
            assert 0 <= row["rank_in_relation"] <= row["rank"]


@pytest.mark.parametrize("machine", [{"batch_size": 1}, {"batch_size": 3, "threads": 2}])
def test_batch_size_and_threads_change_nothing(tmp_path, tables, series_directory, facts_directory, machine):
    request = request_for(series_directory, facts_directory, taus=("0.02", "5x"))
    other = extracted(tmp_path / "other", request, **machine)
    assert_frame_equal(other["contributions"], tables["contributions"], abs_tol=1e-5, rel_tol=1e-5)
    assert_frame_equal(other["predictions"], tables["predictions"], abs_tol=1e-4, rel_tol=1e-4)
    assert_frame_equal(other["prompt_tokens"], tables["prompt_tokens"])
    key = ["tau_id", "prompt_id", "position", "component_id"]
    differing = set(other["attributions"].select(key).rows()) ^ set(tables["attributions"].select(key).rows())
    assert len(differing) <= 2  # only what lies within rounding of τ may differ


def test_an_attention_bias_is_a_part_of_its_own(tmp_path, facts_directory):
    """Then the shares add up with the bias's, and the gate of the raw tables says so."""
    save_checkpoint(tmp_path / "series/main", attention_bias=True, num_key_value_heads=1, clip_qkv=0.5)
    found = extracted(tmp_path / "extraction", request_for(tmp_path / "series", facts_directory))["contributions"]
    bias = found.filter(pl.col("component_id").str.ends_with("BA"))
    assert bias.height == found.filter(pl.col("component_id").str.ends_with("RA")).height > 0
    assert bias["c_direct"].max() > 1e-3
    assert [check for check in gate_extraction(tmp_path / "extraction") if check.result != "pass"] == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes_its_own_bound(tmp_path, series_directory, facts_directory, dtype):
    found = extracted(tmp_path / "half", request_for(series_directory, facts_directory, dtype=dtype))["checkpoint"]
    error = found["completeness_error_max"][0]
    assert 1e-6 < error <= measurement.COMPLETENESS_BOUND[dtype]
    assert found["dtype"][0] == dtype


def test_a_term_left_out_is_refused(tmp_path, series_directory, facts_directory, monkeypatch):
    """The gate of method section 2, in the job: a head's values as if clip_qkv had not been."""
    original = measurement.layer_contributions

    def unclipped(layer, norm, **options):
        from dataclasses import replace

        return original(replace(layer, value=layer.value * 1.5), norm, **options)

    monkeypatch.setattr(measurement, "layer_contributions", unclipped)
    with pytest.raises(UserError, match="refused: the parts of layer 0's attention sum miss the stream"):
        extracted(tmp_path / "refused", request_for(series_directory, facts_directory))


@pytest.mark.parametrize("change", ["missing", "additional", "shape"])
def test_weights_that_do_not_fit_the_config_are_refused(tmp_path, series_directory, facts_directory, change):
    series = shutil.copytree(series_directory, tmp_path / "series")
    file = series / "main/model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.down_proj.weight"
    if change == "missing":
        del tensors[name]
    elif change == "additional":
        tensors["model.layers.1.mlp.down_proj.bias"] = tensors[name][:, 0].copy()
    else:
        tensors[name] = tensors[name][:, :-1].copy()
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="main") as error:
        extracted(tmp_path / "refused", request_for(series, facts_directory))
    assert "\n" not in str(error.value)


def test_the_identity_follows_every_input(series_directory, facts_directory, tmp_path):
    base = request_for(series_directory, facts_directory, taus=("0.02",))
    other_facts = shutil.copytree(facts_directory, tmp_path / "facts")
    content = json.loads((other_facts / "leader_of.json").read_text())
    content["samples"].pop()
    (other_facts / "leader_of.json").write_text(json.dumps(content))
    others = [
        request_for(series_directory, facts_directory, taus=("0.03",)),
        request_for(series_directory, facts_directory, taus=("0.02",), norm="l2"),
        request_for(series_directory, facts_directory, name="step0", taus=("0.02",)),
        request_for(series_directory, other_facts, taus=("0.02",)),
    ]
    assert len({one.extraction_id for one in [base, *others]}) == 5
    assert request_for(series_directory, facts_directory, taus=("0.02",)).extraction_id == base.extraction_id
    assert base.setting_id == request_for(series_directory, facts_directory, name="step0", taus=("0.02",)).setting_id
    assert len({one.setting_id for one in (base, others[0], others[1], others[3])}) == 4


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    tmp_path, tables, series_directory, facts_directory, monkeypatch
):
    """And nothing of it is counted twice, wherever in the batch the memory ran out."""
    original = measurement.walk_routes
    tried = []

    def walk(layers, tau, targets, key_groups):
        tried.append(len(targets))
        if len(targets) > 3 and tau != 0.02:  # the second of two thresholds
            raise torch.OutOfMemoryError("no memory left")
        return original(layers, tau, targets, key_groups)

    monkeypatch.setattr(measurement, "walk_routes", walk)
    request = request_for(series_directory, facts_directory, taus=("0.02", "5x"))
    found = extracted(tmp_path / "small", request)
    assert max(tried) == 10 and tried[-1] <= 3
    for name in ("contributions", "predictions", "prompt_tokens"):
        assert_frame_equal(found[name], tables[name], abs_tol=1e-4, rel_tol=1e-4)
    assert abs(found["attributions"].height - tables["attributions"].height) <= 2
    assert found["checkpoint"]["degenerate_share"][0] == pytest.approx(tables["checkpoint"]["degenerate_share"][0])


def test_a_prompt_that_does_not_fit_into_memory_is_said(tmp_path, series_directory, facts_directory, monkeypatch):
    def no_room(*_arguments, **_options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(measurement, "layer_contributions", no_room)
    with pytest.raises(MachineError, match=r"a prompt of \d+ tokens does not fit into memory"):
        extracted(tmp_path / "none", request_for(series_directory, facts_directory))


def test_a_limit_below_what_one_prompt_takes_is_refused(tmp_path, series_directory, facts_directory):
    with pytest.raises(MachineError, match=r"memory_gb is 0.001, but 'main' with 1 prompts of \d+ tokens takes"):
        extracted(tmp_path / "none", request_for(series_directory, facts_directory), memory_gb=0.001)


def test_an_error_that_is_not_about_memory_is_not_swallowed(tmp_path, series_directory, facts_directory, monkeypatch):
    def broken(*_arguments, **_options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(measurement, "layer_contributions", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        extracted(tmp_path / "none", request_for(series_directory, facts_directory))


def test_a_word_that_two_tokens_write_stands_once_in_a_file(tmp_path, series_directory, facts_directory):
    """Of a dictionary that holds it twice, pyarrow would write bytes that nobody has set."""
    extract(request_for(series_directory, facts_directory), tmp_path, Machine())
    predictions = pq.read_table(tmp_path / "predictions.parquet").combine_chunks()
    columns = {name: predictions.column(name).chunk(0) for name in predictions.column_names}
    words = columns["top1_token"].dictionary_decode()
    twice = pa.DictionaryArray.from_arrays(pa.array(range(len(words)), pa.int32()), words)
    for name, one in (("plain", words), ("twice", twice)):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name, "predictions", columns | {"top1_token": one})
    assert len({(tmp_path / name / "predictions.parquet").read_bytes() for name in ("", "plain", "twice")}) == 1
