"""Loading: published layouts of weights, dtypes, attention implementations, and a model split over devices."""

import json
import shutil

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from tests.conftest import save_random_checkpoint
from tests.extract.test_job import extracted, request_for
from timecourse.errors import MachineError, UserError
from timecourse.extract import loading
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.families import FAMILIES
from timecourse.extract.loading import load_model
from timecourse.extract.memory import memory_plan

KEYS = ["prompt_id", "position", "component_id"]


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    """A series of one random GPT-NeoX."""
    directory = tmp_path_factory.mktemp("neox") / "checkpoints"
    save_random_checkpoint(directory / "step10", "gpt_neox", num_attention_heads=4, hidden_size=32)
    return directory


@pytest.fixture(scope="module")
def neox_tables(tmp_path_factory, neox, facts_directory):
    return extracted(tmp_path_factory.mktemp("neox_raw"), request_for(neox, facts_directory, "step10", taus=("0.02",)))


def rewrite(folder, change):
    """Change the names and tensors of a checkpoint's weights."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_a_parallel_block_has_one_sum_per_layer(neox_tables):
    checkpoint = neox_tables["checkpoint"].row(0, named=True)
    assert (checkpoint["topology"], checkpoint["family"]) == ("parallel_pre_norm", "GPT-NeoX")
    contributions = neox_tables["contributions"]
    assert not contributions["component_id"].str.ends_with("RF").any()
    layers = contributions.with_columns(layer=pl.col("component_id").str.extract(r"^L(\d+)"))
    totals = layers.group_by("prompt_id", "position", "layer").agg(pl.col("c_direct").sum(), pl.len())
    assert ((totals["c_direct"] - 1).abs() < 1e-5).all()
    assert set(totals["len"]) == {4 + 1 + 1 + 1}, "heads, FFN, residual, bias"


def test_pythias_published_layout_is_read(tmp_path, neox, neox_tables, facts_directory):
    """Pythia's files name the unembedding embed_out and hold masks and rotary frequencies beside the weights."""
    shutil.copytree(neox, tmp_path / "series")

    def published(weights):
        renamed = {name.replace("lm_head", "embed_out"): tensor for name, tensor in weights.items()}
        for layer in range(2):
            attention = f"gpt_neox.layers.{layer}.attention"
            renamed[f"{attention}.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril()
            renamed[f"{attention}.masked_bias"] = torch.tensor(-1e9)
            renamed[f"{attention}.rotary_emb.inv_freq"] = torch.ones(1)
        return renamed

    rewrite(tmp_path / "series" / "step10", published)
    request = request_for(tmp_path / "series", facts_directory, "step10", taus=("0.02",))
    again = extracted(tmp_path / "raw", request)
    for table, keys in {"contributions": KEYS, "predictions": ["prompt_id", "answer_token_index", "readout"]}.items():
        plain = [frame[table].drop("extraction_id").sort(keys) for frame in (again, neox_tables)]
        assert_frame_equal(*plain)


def test_gpt2s_published_layout_is_read(tmp_path, facts_directory):
    """GPT-2's files lack the prefix of the language model and hold causal masks beside the weights."""
    folder = save_random_checkpoint(tmp_path / "series" / "step1", "gpt2", num_attention_heads=4, hidden_size=32)
    config = json.loads((folder / "config.json").read_text())
    assert "n_embd" in config and "hidden_size" not in config
    before = extracted(tmp_path / "before", request_for(tmp_path / "series", facts_directory, "step1"))
    assert before["checkpoint"].row(0, named=True)["hidden_size"] == 32

    def tied(weights):
        assert "lm_head.weight" in weights
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
        return weights

    rewrite(folder, tied)
    untied = extracted(tmp_path / "untied", request_for(tmp_path / "series", facts_directory, "step1"))

    def published(weights):
        bare = {name.removeprefix("transformer."): one for name, one in weights.items() if name != "lm_head.weight"}
        masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(2)}
        return bare | masks | {f"h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}

    rewrite(folder, published)
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    bare = extracted(tmp_path / "bare", request_for(tmp_path / "series", facts_directory, "step1"))
    assert_frame_equal(*(one["predictions"].drop("extraction_id") for one in (bare, untied)))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_types[0])
def test_every_family_is_known_from_its_config_alone(tmp_path, family):
    """What is planned from config.json, before any model is loaded, is what the loaded model has."""
    config = dict(family.examples[-1])
    vocabulary = {"vocab_size": 400}
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], **vocabulary}
        vocabulary = {}
    folder = tmp_path / "series" / "step3"
    save_random_checkpoint(folder, family.model_types[0], **{**config, **vocabulary, "seed": 1})
    (checkpoint,) = find_checkpoints(tmp_path / "series")
    model = load_model(checkpoint, "float32", "cpu", "eager")
    known = checkpoint.architecture
    assert known["layer_count"] == model.layer_count == len(model.network.get_submodule(family.layers))
    assert known["head_count"] == model.head_count and known["hidden_size"] == model.config.hidden_size
    assert known["kv_head_count"] == (getattr(model.config, "num_key_value_heads", None) or model.head_count)
    assert known["topology"].startswith("parallel") == model.is_parallel
    assert checkpoint.context_length == model.config.max_position_embeddings
    assert memory_plan(checkpoint, "float32").vocabulary == model.config.vocab_size


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_types[0])
def test_what_a_config_leaves_out_is_what_the_library_takes(family):
    """gemma-3-4b-pt's text_config states neither heads nor vocabulary; Mistral without key-value heads means 8."""
    from transformers import AutoConfig

    (model_type,) = family.model_types
    whole = AutoConfig.for_model(model_type).get_text_config()
    for key in family.config_defaults:
        assert family.config_value({}, key) == getattr(whole, key)
    stated = {"num_attention_heads": 16, "hidden_size": 64}
    nested = {"text_config": stated} if "text_config" in family.examples[0] else stated
    taken = AutoConfig.for_model(model_type, **nested).get_text_config()
    assert family.config_value(stated, "num_key_value_heads", 16) == getattr(taken, "num_key_value_heads", 16)
    assert family.config_value({"num_key_value_heads": None}, "num_key_value_heads", 16) == 16
    assert family.config_value({"num_key_value_heads": 2}, "num_key_value_heads", 16) == 2


def test_memory_is_planned_for_a_config_that_leaves_its_vocabulary_out(tmp_path):
    (family,) = (one for one in FAMILIES if one.model_types == ("gemma3",))
    folder = save_random_checkpoint(tmp_path / "step1", "gemma3", **family.examples[0], seed=0)
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["vocab_size"]
    (folder / "config.json").write_text(json.dumps(config))
    (checkpoint,) = find_checkpoints(tmp_path)
    assert memory_plan(checkpoint, "float32").vocabulary == 262_208


def test_key_value_heads_that_a_config_leaves_out(tmp_path, facts_directory):
    series = tmp_path / "series"
    folder = save_random_checkpoint(series / "step1", "mistral", num_attention_heads=16, hidden_size=32)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("num_key_value_heads") == 8
    (folder / "config.json").write_text(json.dumps(config))
    request = request_for(series, facts_directory, "step1")
    raw = extracted(tmp_path / "raw", request)
    assert raw["checkpoint"]["kv_head_count"].to_list() == [8] == [request.checkpoint.architecture["kv_head_count"]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_within_its_bound(tmp_path, neox, neox_tables, facts_directory, dtype):
    request = request_for(neox, facts_directory, "step10", taus=("0.02",), dtype=dtype)
    half = extracted(tmp_path, request)
    errors = [tables["checkpoint"]["completeness_error_max"][0] for tables in (neox_tables, half)]
    assert 0 < errors[0] < 1e-6 < errors[1] < {"bfloat16": 2e-2, "float16": 2e-3}[dtype]
    both = half["contributions"].join(neox_tables["contributions"], on=KEYS)
    assert both.height == half["contributions"].height
    assert (both["c_direct"] - both["c_direct_right"]).abs().mean() < 2e-3


def test_sdpa_and_eager_attention_agree(tmp_path, neox, neox_tables, facts_directory):
    request = request_for(neox, facts_directory, "step10", taus=("0.02",), attention="sdpa")
    sdpa = extracted(tmp_path, request)
    assert request.setting_id.startswith("l1-float32-sdpa-0.02-")
    drop = [frame["contributions"].drop("extraction_id") for frame in (sdpa, neox_tables)]
    assert_frame_equal(*drop, abs_tol=1e-5, rel_tol=1e-4)


def test_attention_that_a_family_does_not_have_is_refused(tmp_path):
    save_random_checkpoint(tmp_path / "step0", "gemma2", num_attention_heads=2, hidden_size=16, head_dim=4)
    (checkpoint,) = find_checkpoints(tmp_path)
    with pytest.raises(UserError, match="does not support an attention implementation"):
        load_model(checkpoint, "float32", "cpu", "sdpa")


def test_a_model_split_by_accelerate_gives_the_same(tmp_path, neox, neox_tables, facts_directory):
    split = extracted(tmp_path, request_for(neox, facts_directory, "step10", taus=("0.02",)), device="split")
    assert split["checkpoint"]["device"][0] == "split"
    for table in ("contributions", "attributions", "predictions"):
        assert_frame_equal(*(one[table].drop("extraction_id") for one in (split, neox_tables)), abs_tol=1e-6)


@pytest.mark.parametrize("model_type", ["gpt_neox", "olmo2", "gpt2"])
def test_layers_whose_weights_are_offloaded_are_read(tmp_path, monkeypatch, model_type, facts_directory):
    """Weights that accelerate keeps on disk, and loads for the moment of their use, are there when they are read."""
    series = tmp_path / "series"
    save_random_checkpoint(series / "step10", model_type, num_attention_heads=4, hidden_size=32)
    request = request_for(series, facts_directory, "step10", taus=("0.02",))
    whole = extracted(tmp_path / "whole", request)
    family = request.checkpoint.family
    own = loading.AutoModelForCausalLM.from_pretrained

    def partly_on_disk(*arguments, **options):
        model, report = own(*arguments, **options | {"device_map": None})
        from accelerate import dispatch_model

        names = [name for name, module in model.named_modules() if name and not list(module.children())]
        chosen = {name: "disk" if name.startswith(f"{family.layers}.1.") else "cpu" for name in names}
        return dispatch_model(model, chosen, main_device="cpu", offload_dir=str(tmp_path / "aside")), report

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", partly_on_disk)
    split = extracted(tmp_path / "split", request, device="split")
    assert list((tmp_path / "aside").iterdir()), "nothing was offloaded"
    for table in ("contributions", "attributions", "predictions"):
        assert_frame_equal(*(one[table] for one in (split, whole)), abs_tol=1e-6)


def test_split_without_accelerate_says_what_to_install(neox, monkeypatch):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    (checkpoint,) = find_checkpoints(neox)
    with pytest.raises(UserError, match="pip install"):
        load_model(checkpoint, "float32", "split", "eager")


@pytest.mark.parametrize("where", ["while it is read", "on its way to the device"])
def test_too_little_memory_is_the_machines_fault(neox, monkeypatch, where):
    """A checkpoint that is refused is set aside: one that did not fit into memory must not be."""

    def too_much(*_arguments, **_options):
        return torch.empty(2**60)

    if where == "while it is read":
        monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", too_much)
    else:
        monkeypatch.setattr(torch.nn.Module, "to", too_much)
    (checkpoint,) = find_checkpoints(neox)
    with pytest.raises(MachineError, match="'step10' does not fit into the memory of this machine"):
        load_model(checkpoint, "float32", "cpu", "eager")


@pytest.mark.parametrize("kind", ["config", "text_config", "weights"])
def test_quantised_checkpoints_are_refused(tmp_path, neox, kind):
    shutil.copytree(neox, tmp_path / "series")
    folder = tmp_path / "series" / "step10"
    config = json.loads((folder / "config.json").read_text())
    if kind == "config":
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    elif kind == "text_config":
        config = {"model_type": "gpt_neox", "text_config": {**config, "quantization_config": {"quant_method": "fp8"}}}
    else:
        name = "gpt_neox.layers.0.attention.dense.weight"
        rewrite(folder, lambda weights: weights | {name: weights[name].to(torch.float8_e4m3fn)})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="'step10' is quantised"):
        find_checkpoints(tmp_path / "series")
