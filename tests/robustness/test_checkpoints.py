"""Directories of checkpoints of any name and content: what they say of themselves fits the lake, or is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.robustness.hostile import TEXTS, altered, documents, files_like, fuzzed, refusal, texts
from timecourse.extract.checkpoints.checkpoint import Checkpoint, describe
from timecourse.extract.checkpoints.directory import DirectorySource, find_checkpoints
from timecourse.extract.checkpoints.names import Place, compile_pattern, order, parse_name
from timecourse.extract.checkpoints.series import Phase, Reading, declarations, read_series
from timecourse.extract.loading import load_tokenizer
from timecourse.lake.files import slug

CONFIG = {
    "model_type": "olmo",
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "hidden_size": 40,
    "vocab_size": 320,
    "max_position_embeddings": 64,
    "text_config": None,
}
MULTIMODAL = {"model_type": "gemma3", "text_config": CONFIG, "quantization_config": None}
INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}
WEIGHTS = save({"a": np.zeros(2, "float32")}, metadata={"format": "pt"})
STEP0 = Place(None, 1, "main", 0, None)


def written(folder: Path, **contents: bytes) -> Path:
    """A checkpoint's folder: a whole one, but for the files whose contents are given (`config` for config.json)."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(contents.pop("weights", WEIGHTS))
    for name, content in ({"config": json.dumps(CONFIG).encode(), "tokenizer": b"{}"} | contents).items():
        (folder / f"{name}.json").write_bytes(content)
    return folder


def use(one: Checkpoint) -> None:
    """What is done with a checkpoint before its model is loaded; the limits are those of the raw tables' columns."""
    limits = {"layer_count": 2**15, "head_count": 2**15, "kv_head_count": 2**15, "hidden_size": 2**31}
    assert all(type(one.architecture[key]) is int and 0 < one.architecture[key] < limits[key] for key in limits)
    assert type(one.context_length) is int and one.context_length > 0
    assert one.tokens_computed is None or (type(one.tokens_computed) is int and 0 <= one.tokens_computed < 2**63)
    assert all((one.folder / name).parent == one.folder for name in (*one.weight_files, *one.tokenizer_files))
    assert len(one.weights_sha256) == len(one.tokenizer_sha256) == len(one.tensors_sha256) == 64
    one.check_finite()


def opened(folder: Path) -> Checkpoint:
    return DirectorySource(folder.parent).open(folder.name, folder.name, STEP0)


@fuzzed
@given(files_like(CONFIG) | files_like(MULTIMODAL))
def test_a_config_of_any_content(tmp_path, content):
    folder = written(tmp_path / "step0", config=content)
    refusal(lambda: use(opened(folder)))


@pytest.mark.parametrize("key", [key for key in CONFIG if key not in ("model_type", "text_config")])
@pytest.mark.parametrize("value", [True, 0, -1, 1.5, "3", [3], {}, 2**63, 10**30])
def test_a_config_states_whole_numbers_that_fit(tmp_path, key, value):
    folder = written(tmp_path / "step0", config=json.dumps(CONFIG | {key: value}).encode())
    assert key in (refusal(lambda: use(opened(folder))) or "")


@fuzzed
@given(files_like(INDEX))
def test_an_index_of_weights_of_any_content_leads_nowhere_else(tmp_path, content):
    (tmp_path / "outside").write_bytes(WEIGHTS)
    folder = written(tmp_path / "step0", **{"model.safetensors.index": content})
    refusal(lambda: use(opened(folder)))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", ".", "model.safetensors/", 3, None, ["a"], {}])
def test_an_index_names_files_of_its_folder(tmp_path, name):
    (tmp_path / "outside").write_bytes(WEIGHTS)
    index = INDEX | {"weight_map": INDEX["weight_map"] | {"c": name}}
    folder = written(tmp_path / "step0", **{"model.safetensors.index": json.dumps(index).encode()})
    assert "lacks the weights file" in (refusal(lambda: use(opened(folder))) or "")


@fuzzed
@given(files_like({"num_input_tokens_seen": 2**40, "global_step": 3}))
def test_a_trainers_state_of_any_content(tmp_path, content):
    folder = written(tmp_path / "step0", trainer_state=content)
    refusal(lambda: use(opened(folder)))


@fuzzed
@given(
    documents
    | altered({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}).map(
        lambda header: len(text := json.dumps(header).encode()).to_bytes(8, "little") + text + bytes(8)
    )
)
def test_weights_of_any_content(tmp_path, content):
    folder = written(tmp_path / "step0", weights=content)
    refusal(lambda: use(opened(folder)))


@fuzzed
@given(texts | st.from_regex(r"(stage\d{1,9}-)?step[-_]?\d{1,40}(-tokens\d{1,40}(\.\d{1,40})?[KMBT])?", fullmatch=True))
def test_a_name_of_any_text_is_a_place_or_none(name):
    for own in (None, compile_pattern(r"(?P<branch>.*?)(?P<step>[\w.]*)(?P<tokens>\d*)(?P<unit>.?)(?P<stage>[^x]*)")):
        place = parse_name(name, own)
        if place is not None:
            assert place.step is None or 0 <= place.step < 2**63
            assert place.tokens_reported is None or 0 <= place.tokens_reported < 2**63
            assert 0 <= place.stage_index < 2**31
            assert order({name: place}) == [name]


@fuzzed
@given(st.text(), st.text())
def test_a_slug_is_one_safe_name_of_its_own(one, other):
    for name in (one, *(text for text in TEXTS if text.isprintable())):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,100}", slug(name))
    assert one == other or slug(one) != slug(other)


HOSTILE_NAMES = [
    *("step1\n", "main\t", "\x1b[31mstep1", "step1\u2028", "step\u0661", b"step\xff".decode(errors="surrogateescape")),
    *("-step1", "--help", "..step1", "%2e%2e", "~", "step1*", "[step1]", "step1\\x", "step1; rm -rf"),
    *("step" + "9" * 40, "s" * 255),
]


@pytest.mark.parametrize("pattern", [None, r"[\s\S]*?(?P<step>\d+)?[\s\S]*"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_folder_of_any_name(tmp_path, name, pattern):
    """By the table of names it is refused; by a pattern that fits everything it is, or it can be written down."""
    written(tmp_path / name)
    reading = Reading(None if pattern is None else compile_pattern(pattern), tokens_per_step=2**62)
    entries = []
    said = refusal(lambda: entries.extend(read_series([Phase("pretraining", DirectorySource(tmp_path))], reading)))
    assert said is not None or pattern is not None
    if said is None:
        text = json.dumps(declarations(entries, {}), ensure_ascii=False)
        assert text.encode() and all(row["name"] == name for row in json.loads(text))
        slug(entries[0].name)
    assert refusal(lambda: find_checkpoints(tmp_path))


def test_tokens_beyond_every_column_are_refused(tmp_path):
    written(tmp_path / "step8")
    entries = read_series([Phase("p", DirectorySource(tmp_path))], Reading(tokens_per_step=2**60))
    assert entries[0].status == "unusable" and "tokens_per_step" in str(entries[0].reason)
    entries = read_series([Phase("p", DirectorySource(tmp_path))], Reading(tokens_per_step=2**59))
    assert entries[0].checkpoint is not None and entries[0].checkpoint.tokens_computed == 2**62


def test_two_phases_do_not_offer_one_name(tmp_path):
    class Slashed(DirectorySource):
        def names(self) -> list[str]:
            return ["b/step1"]

    written(tmp_path / "step1")
    phases = [Phase("a", Slashed(tmp_path)), Phase("a/b", DirectorySource(tmp_path))]
    reading = Reading(compile_pattern(r"(b/)?step(?P<step>\d+)"))
    assert "'a/b/step1'; rename a phase" in (refusal(lambda: read_series(phases, reading)) or "")


TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": 0, "content": "<end>", "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"<end>": 0, "France": 1, "has": 2, "Paris": 3}, "unk_token": "<end>"},
}
TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "model_max_length": 64}


@fuzzed
@given(files_like(TOKENIZER), files_like(TOKENIZER_CONFIG), st.booleans())
def test_a_tokenizer_of_any_content_writes_tokens_or_is_refused(tmp_path, tokenizer, config, is_config_whole):
    whole = {"tokenizer": json.dumps(TOKENIZER).encode(), "tokenizer_config": json.dumps(TOKENIZER_CONFIG).encode()}
    hostile = {"tokenizer": tokenizer} if is_config_whole else {"tokenizer_config": config}
    one = opened(written(tmp_path / "step0", **whole | hostile))

    def use_tokenizer() -> None:
        load_tokenizer(one)("France has Paris", return_offsets_mapping=True, return_special_tokens_mask=True)

    refusal(use_tokenizer)


def test_the_whole_tokenizer_is_one(tmp_path):
    whole = {"tokenizer": json.dumps(TOKENIZER).encode(), "tokenizer_config": json.dumps(TOKENIZER_CONFIG).encode()}
    assert load_tokenizer(opened(written(tmp_path / "step0", **whole)))("France has Paris")["input_ids"] == [1, 2, 3]


def test_describe_reads_only_what_lies_in_the_folder(tmp_path):
    folder = written(tmp_path / "step0")
    said = refusal(lambda: describe("step0", STEP0, folder, {"tokenizer.json": 1}, lambda _: ""))
    assert "has no weights" in (said or "")
