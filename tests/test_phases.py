"""Post-training on the same time axis: a base model, then SFT, then DPO, trained here for a few steps."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
import torch

from tests.conftest import FACTS, Finished, save_checkpoint

pytestmark = pytest.mark.slow

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
def places(tmp_path_factory):
    """Folders of checkpoints; SFT starts from the end of pretraining and says so, DPO has `main` only."""
    root = tmp_path_factory.mktemp("phases")
    save_checkpoint(root / "base" / "step0", num_hidden_layers=2, scale=1.0)
    train(root / "base" / "step0", root / "base" / "step10", sentences(""), 10)
    train(root / "base" / "step10", root / "base" / "step20", sentences(""), 10)
    shutil.copytree(root / "base" / "step20", root / "sft" / "step0")
    train(root / "base" / "step20", root / "sft" / "step5", sentences("Q: "), 5)
    train(root / "sft" / "step5", root / "dpo" / "main", sentences("Q: ")[:4], 5)
    return root


@dataclass(frozen=True)
class Told:
    """The lake, and how the commands ended that made it."""

    lake: Path
    first: Finished
    renamed: Finished
    without_template: Finished


@pytest.fixture(scope="module")
def told(places, facts_directory, run):
    """The three phases as `model`, extracted, and again after the last was renamed; once more with the chat template,
    as `chat`; then released."""
    lake, file = places / "lake", places / "timecourse.toml"

    def do(command, last, series, *more):
        phases = "".join(
            f'[[series.phases]]\nname = "{name}"\ncheckpoints = "{folder}"\n'
            for name, folder in (("pretraining", "base"), ("sft", "sft"), (last, "dpo"))
        )
        file.write_text(f"{phases}[facts]\ndirectory = {json.dumps(str(facts_directory))}\n[measurement]\ntau = '5x'\n")
        return run(command, "--settings", file, "--series", series, "--complete", "--lake", lake, *more)

    chat = ["--set", "measurement.chat_template=true"]
    first = do("extract", "dpo", "model")
    refused = do("extract", "preference", "chat", *chat)
    done = do("extract", "preference", "chat", *chat, "--set", "series.leave_out=['pretraining/step0']")
    assert done.returncode == 0, done.stderr
    renamed = do("refresh", "preference", "model")
    assert renamed.returncode == 0, renamed.stderr
    return Told(lake, first, renamed, refused)


@pytest.fixture
def lake(told):
    return told.lake


def query(lake, text):
    with duckdb.connect(str((lake / "current").resolve() / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(text).fetchall()


def test_the_phases_stand_one_after_the_other(lake):
    found = query(
        lake,
        """select checkpoint_name, phase, previous_checkpoint_id, reference_checkpoint_id, cumulative_step
        from dim_checkpoints where series_id = 'model' order by checkpoint_index""",
    )
    assert found == [
        ("pretraining/step0", "pretraining", None, "model/pretraining/step20", 0),
        ("pretraining/step10", "pretraining", "model/pretraining/step0", "model/pretraining/step20", 10),
        ("pretraining/step20", "pretraining", "model/pretraining/step10", "model/pretraining/step20", 20),
        ("sft/step5", "sft", "model/pretraining/step20", "model/sft/step5", 25),
        ("preference/main", "preference", "model/sft/step5", "model/preference/main", None),
    ]
    (same,) = query(
        lake,
        """select status, same_weights_as from dim_revisions
        where series_id = 'model' and checkpoint_name = 'sft/step0'""",
    )
    assert same == ("duplicate", "pretraining/step20")


def test_every_checkpoint_but_the_first_has_transitions(lake):
    pairs = query(
        lake,
        """select distinct from_checkpoint_id, to_checkpoint_id from fct_role_transitions
        where series_id = 'model' order by all""",
    )
    assert len(pairs) == 4
    assert ("model/pretraining/step20", "model/sft/step5") in pairs
    assert ("model/sft/step5", "model/preference/main") in pairs


def test_the_report_marks_the_phases(lake):
    pages = list((lake / "current").resolve().glob("site/**/knowledge.html"))
    assert len(pages) == 2
    for page in pages:
        assert "sft" in page.read_text() and "preference" in page.read_text()


def test_a_phase_that_is_renamed_is_another_one_and_the_rest_stays(told):
    assert told.first.returncode == 0 and "extracted 5 of 5" in told.first.stdout
    of_chat = 4
    assert f"extracted 1 of {6 + of_chat}" in told.renamed.stdout, "a phase of another name; the others stay"
    same = query(
        told.lake,
        """select status, same_weights_as from dim_revisions
        where series_id = 'model' and checkpoint_name = 'dpo/main'""",
    )
    assert same == [("alias", "preference/main")]
    names = query(
        told.lake,
        """select checkpoint_name from dim_checkpoints
        where series_id = 'model' and phase not in ('pretraining', 'sft')""",
    )
    assert names == [("preference/main",)], "one checkpoint under two names counts once"


def test_the_chat_template_is_a_setting_of_its_own(told):
    refused = told.without_template
    assert refused.returncode == 1 and "no chat template" in refused.stderr  # step0 was saved without one
    found = dict(query(told.lake, "select series_id, min(setting_id) from dim_checkpoints group by all"))
    assert found["chat"].startswith("l1-float32-chat-5x-") and found["model"].startswith("l1-float32-5x-")
    (pair,) = query(told.lake, "select distinct is_comparable from dim_series_pairs where series_id <> other_series_id")
    assert pair == (False,)
