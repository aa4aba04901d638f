"""A directory as a series: order by name, and every way in which a checkpoint can be broken."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from timecourse.errors import FetchError, UserError
from timecourse.extract.checkpoints.checkpoint import refusing_what_is_gone
from timecourse.extract.checkpoints.directory import find_checkpoints


@pytest.fixture
def series(series_directory, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(series_directory, tmp_path / "series")


def test_order_is_by_step_and_main_is_last(series):
    (series / "step100-tokens1B").rename(series / "step9")
    shutil.copytree(series / "step0", series / "step10")
    (series / ".cache").mkdir()
    assert [one.name for one in find_checkpoints(series)] == ["step0", "step9", "step10", "main"]


def test_hashes_see_weights_config_and_tokenizer(series):
    before = {one.name: (one.weights_sha256, one.tokenizer_sha256) for one in find_checkpoints(series)}
    assert len({weights for weights, _ in before.values()}) == 3
    config = json.loads((series / "main/config.json").read_text())
    (series / "main/config.json").write_text(json.dumps(config | {"clip_qkv": 0.5}))
    (series / "step0/tokenizer_config.json").write_text("{}")
    after = {one.name: (one.weights_sha256, one.tokenizer_sha256) for one in find_checkpoints(series)}
    assert after["main"][0] != before["main"][0]
    assert after["step0"][0] == before["step0"][0] and after["step0"][1] != before["step0"][1]
    assert after["step100-tokens1B"] == before["step100-tokens1B"]


def damaged(weights, value):
    tensors = load_file(weights)
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name].copy()
    tensors[name].flat[-1] = value
    save_file(tensors, weights, metadata={"format": "pt"})


def shorten(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def edit_config(series, **changes):
    file = series / "main/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda series: (series / "main/model.safetensors").unlink(), "'main' has no weights"),
        (lambda series: shorten(series / "main/model.safetensors"), "model.safetensors is torn"),
        (lambda series: (series / "main/model.safetensors").write_bytes(b""), "model.safetensors is torn"),
        (
            lambda series: (series / "main/model.safetensors").rename(series / "main/pytorch_model.bin"),
            "'main' has pickled weights only",
        ),
        (lambda series: (series / "main/config.json").unlink(), "'main' has no config.json"),
        (lambda series: (series / "main/config.json").write_text("{"), "config.json is not JSON"),
        (lambda series: (series / "main/tokenizer.json").unlink(), "'main' has no tokenizer.json"),
        (
            lambda series: edit_config(series, model_type="bert"),
            "unsupported architecture 'bert'; supported: apertus, gemma2",
        ),
        (lambda series: edit_config(series, quantization_config={"bits": 4}), "'main' is quantised"),
        (
            lambda series: edit_config(series, num_attention_heads=None),
            "'main': config.json states no num_attention_heads",
        ),
        (lambda series: shutil.copytree(series / "step0", series / "step_000"), "both claim step 0"),
        (lambda series: shutil.copytree(series / "main", series / "final"), "both claim the end of training"),
        (lambda series: (series / "notes").mkdir(), "'notes' does not say its training step"),
        (
            lambda series: (series / "main/model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
            ),
            "lacks the weights file 'model-00001-of-00002.safetensors'",
        ),
    ],
)
def test_a_broken_checkpoint_is_refused(series, damage, message):
    damage(series)
    with pytest.raises(UserError) as error:
        find_checkpoints(series)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_directories_are_refused(tmp_path, series):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint"):
        find_checkpoints(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        find_checkpoints(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is itself one checkpoint"):
        find_checkpoints(series / "main")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(series, value):
    damaged(series / "main/model.safetensors", value)
    *healthy, main = find_checkpoints(series)
    for one in healthy:
        one.check_finite()
    with pytest.raises(UserError, match=r"'main'.*NaN or infinite"):
        main.check_finite()


def test_not_finite_bfloat16_weights_are_refused(series):
    import torch
    from safetensors.torch import save_file as save_torch

    weights = torch.ones(7, 3, dtype=torch.bfloat16)
    save_torch({"weights": weights}, series / "main/model.safetensors")
    find_checkpoints(series)[-1].check_finite()
    weights[3, 1] = torch.inf
    save_torch({"weights": weights}, series / "main/model.safetensors")
    with pytest.raises(UserError, match="NaN or infinite"):
        find_checkpoints(series)[-1].check_finite()


def test_only_what_lay_in_the_checkpoint_says_that_it_is_gone(tmp_path):
    folder = tmp_path / "step1"
    with pytest.raises(FetchError, match=r"'step1' is gone.*safetensors"), refusing_what_is_gone("step1", folder):
        (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileNotFoundError), refusing_what_is_gone("step1", folder):
        (tmp_path / "lake" / "prompts.parquet").read_bytes()
