"""Post-training on the same time axis: a base model, then SFT, then DPO, trained here for a few steps."""

import json
import shutil

import duckdb
import pytest
import torch

from tests.conftest import FACTS, save_checkpoint

CHAT = "{% for turn in messages %}<|{{ turn.role }}|>\n{{ turn.content }}\n{% endfor %}<|assistant|>\n"


def sentences(word):
    return [
        word + template.format(subject) + " " + answer
        for _, templates, samples in FACTS.values()
        for template in templates
        for subject, answer in samples
    ]


def train(folder, target, texts, steps):
    """A few real steps from the checkpoint in `folder`; the result is an ordinary checkpoint in `target`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(steps):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(target)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(target)


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory, facts_directory):
    """Three phases; SFT starts from the end of pretraining and says so, DPO has `main` only."""
    root = tmp_path_factory.mktemp("phases")
    save_checkpoint(root / "base" / "step0", num_hidden_layers=2, scale=1.0)
    train(root / "base" / "step0", root / "base" / "step10", sentences(""), 10)
    train(root / "base" / "step10", root / "base" / "step20", sentences(""), 10)
    shutil.copytree(root / "base" / "step20", root / "sft" / "step0")
    train(root / "base" / "step20", root / "sft" / "step5", sentences("Q: "), 5)
    train(root / "sft" / "step5", root / "dpo" / "main", sentences("Q: ")[:4], 5)
    phases = "".join(
        f'[[series.phases]]\nname = "{name}"\ncheckpoints = "{folder}"\n'
        for name, folder in (("pretraining", "base"), ("sft", "sft"), ("dpo", "dpo"))
    )
    text = f"{phases}[facts]\ndirectory = {json.dumps(str(facts_directory))}\n[measurement]\ntau = '5x'\n"
    (root / "timecourse.toml").write_text(text)
    return root / "timecourse.toml"


@pytest.fixture(scope="module")
def lake(settings_file, run):
    lake = settings_file.parent / "lake"
    done = run("refresh", "--settings", settings_file, "--series", "model", "--complete", "--lake", lake)
    assert done.returncode == 0, done.stderr
    assert "extracted 5 of 5" in done.stdout
    return lake


def query(lake, text):
    with duckdb.connect(str((lake / "current").resolve() / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(text).fetchall()


def test_the_phases_stand_one_after_the_other(lake):
    found = query(
        lake,
        """select checkpoint_name, phase, previous_checkpoint_id, reference_checkpoint_id, cumulative_step
        from dim_checkpoints order by checkpoint_index""",
    )
    assert found == [
        ("pretraining/step0", "pretraining", None, "model/pretraining/step20", 0),
        ("pretraining/step10", "pretraining", "model/pretraining/step0", "model/pretraining/step20", 10),
        ("pretraining/step20", "pretraining", "model/pretraining/step10", "model/pretraining/step20", 20),
        ("sft/step5", "sft", "model/pretraining/step20", "model/sft/step5", 25),
        ("dpo/main", "dpo", "model/sft/step5", "model/dpo/main", None),
    ]
    (same,) = query(lake, "select status, same_weights_as from dim_revisions where checkpoint_name = 'sft/step0'")
    assert same == ("duplicate", "pretraining/step20")


def test_every_checkpoint_but_the_first_has_transitions(lake):
    pairs = query(lake, "select distinct from_checkpoint_id, to_checkpoint_id from fct_role_transitions order by all")
    assert len(pairs) == 4
    assert ("model/pretraining/step20", "model/sft/step5") in pairs and ("model/sft/step5", "model/dpo/main") in pairs


def test_the_report_marks_the_phases(lake):
    (page,) = (lake / "current").resolve().glob("site/**/knowledge.html")
    assert "sft" in page.read_text() and "dpo" in page.read_text()


@pytest.fixture(scope="module")
def renamed(lake, settings_file, run, tmp_path_factory):
    """A copy of the lake after dpo was renamed to rl (extracted only), and what was said."""
    folder = tmp_path_factory.mktemp("renamed")
    for name in ("lake", "base", "sft", "dpo"):
        shutil.copytree(settings_file.parent / name, folder / name, symlinks=True)
    (folder / "timecourse.toml").write_text(settings_file.read_text().replace('name = "dpo"', 'name = "rl"'))
    flags = ["--settings", folder / "timecourse.toml", "--complete", "--lake", folder / "lake"]
    return folder / "lake", flags, run("extract", *flags, "--series", "model")


@pytest.fixture(scope="module")
def with_chat(renamed, run):
    """That copy with one more series, measured with the chat template, and released."""
    lake, flags, _ = renamed
    flags = [*flags, "--set", "measurement.chat_template=true"]
    refused = run("refresh", *flags, "--series", "model")
    some = ["--set", "series.leave_out=['pretraining/step0']"]
    done = run("refresh", *flags, *some, "--series", "chat")
    assert done.returncode == 0, done.stderr
    return lake, refused


def test_a_phase_that_is_renamed_is_another_one_and_the_rest_stays(renamed, with_chat):
    lake, _, done = renamed
    assert done.returncode == 0, done.stderr
    assert "extracted 1 of 6" in done.stdout, "a phase of another name is another checkpoint; the others stay"
    of_model = "series_id = 'model' and"
    same = query(
        lake, f"select status, same_weights_as from dim_revisions where {of_model} checkpoint_name = 'dpo/main'"
    )
    assert same == [("alias", "rl/main")]
    names = query(lake, f"select checkpoint_name from dim_checkpoints where {of_model} phase in ('dpo', 'rl')")
    assert names == [("rl/main",)], "one checkpoint under two names counts once"


def test_the_chat_template_is_a_setting_of_its_own(with_chat):
    lake, refused = with_chat
    assert refused.returncode == 1 and "no chat template" in refused.stderr  # step0 was saved without one
    found = dict(query(lake, "select series_id, min(setting_id) from dim_checkpoints group by all"))
    assert found["chat"].startswith("l1-float32-chat-5x-") and found["model"].startswith("l1-float32-5x-")
    (pair,) = query(lake, "select distinct is_comparable from dim_series_pairs where series_id <> other_series_id")
    assert pair == (False,)
