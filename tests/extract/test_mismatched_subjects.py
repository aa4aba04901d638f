"""The answer after another fact's subject: which subject, what is read, and how it tells knowing from guessing."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import FACTS, save_checkpoint, save_random_checkpoint, train_tokenizer
from timecourse.expectations.gate import gate_extraction
from timecourse.extract.checkpoints.directory import find_checkpoints
from timecourse.extract.facts import Relation, load_relations
from timecourse.extract.families import FAMILIES
from timecourse.extract.identity import ExtractionRequest, MeasurementSettings
from timecourse.extract.job import Machine, extract
from timecourse.extract.prompts import build_prompts, mismatched_prompts

CHAT = (
    "{% for turn in messages %}<|padding|>USER: {{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}MODEL:<|padding|>{% endif %}"
)


# which subject ------------------------------------------------------------------------------------------------------


def asked(*facts, templates=("The capital of {} is",), context_length=64, chat_template=None):
    """Prompts of one relation, what they become, and the subject in it by (template_id, subject, object)."""
    samples = [{"subject": subject, "object": answer} for subject, answer in facts]
    relation = Relation.model_validate({"name": "r", "prompt_templates": list(templates), "samples": samples})
    tokenizer = train_tokenizer()
    tokenizer.chat_template = chat_template
    prompts = build_prompts([relation], tokenizer, 64, chat_template is not None)
    found = mismatched_prompts(prompts, context_length)
    chosen = {
        (prompt.template_id, prompt.fact.subject, prompt.fact.object): found[prompt.prompt_id].fact.subject
        for prompt in prompts
        if prompt.prompt_id in found
    }
    return prompts, found, chosen


def test_the_next_fact_in_the_order_of_ids_lends_its_subject():
    facts = [("Peru", "Lima"), ("Chad", "N'Djamena"), ("France", "Paris")]
    expected = {("Chad", "N'Djamena"): "France", ("France", "Paris"): "Peru", ("Peru", "Lima"): "Chad"}
    for order in (facts, facts[::-1]):  # the order in the file does not matter
        _, _, chosen = asked(*order, templates=("{} is", "The one of {} is"))
        assert chosen == {(template, *fact): subject for fact, subject in expected.items() for template in (0, 1)}


def test_a_subject_that_has_this_object_too_is_passed_over():
    """b has the same object; c has it beside another one; e has itself another object, which its own prompts skip."""
    _, _, chosen = asked(("a", "X"), ("b", "X"), ("c", "X"), ("c", "Y"), ("d", "Z"), ("e", "V"), ("e", "W"))
    assert {(subject, answer): other for (_, subject, answer), other in chosen.items()} == {
        ("a", "X"): "d",
        ("b", "X"): "d",
        ("c", "X"): "d",
        ("c", "Y"): "d",
        ("d", "Z"): "e",
        ("e", "V"): "a",
        ("e", "W"): "a",
    }


def test_no_subject_where_all_have_the_object():
    assert asked(("a", "X"))[2] == asked(("a", "X"), ("b", "X"))[2] == asked(("a", "X"), ("a", "Y"))[2] == {}


def test_a_subject_that_does_not_fit_the_context_is_passed_over():
    """After b's long subject, a's long answer would be longer than every prompt that is asked."""
    facts = [("a", "a long answer, as answers go"), ("b, a subject of some length", "Y"), ("c", "Z")]
    prompts, found, chosen = asked(*facts)
    assert chosen[0, "a", facts[0][1]] == facts[1][0]
    longest = max(len(prompt.token_ids) for prompt in prompts)
    assert max(len(one.token_ids) for one in found.values()) > longest
    assert asked(*facts, context_length=longest)[2] == {**chosen, (0, "a", facts[0][1]): "c"}
    assert asked(*facts[:2], context_length=longest)[2] == {(0, facts[1][0], "Y"): "a"}


@pytest.mark.parametrize("chat_template", [None, CHAT])
def test_the_tokens_are_those_of_the_text(chat_template):
    templates = ("The capital of {} is", "{} has the capital")
    tokenizer = train_tokenizer()
    tokenizer.chat_template = chat_template
    prompts, found, _ = asked(*FACTS["capital_of"][2], templates=templates, chat_template=chat_template)
    assert len(found) == len(prompts) == 8
    for prompt in prompts:
        mismatched = found[prompt.prompt_id]
        question = templates[prompt.template_id].format(mismatched.fact.subject)
        text = f"{question} {prompt.fact.object}"
        if chat_template is not None:
            turn = [{"role": "user", "content": question}]
            text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + prompt.fact.object
        assert mismatched.token_ids == tuple(tokenizer(text)["input_ids"])
        answer = [prompt.token_ids[position] for position in prompt.answer_positions]
        assert [mismatched.token_ids[position + 1] for position in mismatched.predicting_positions] == answer


# what is read there -------------------------------------------------------------------------------------------------

NEXT = {"Chad": "France", "France": "New Zealand", "New Zealand": "Peru", "Peru": "Chad"}
NEXT |= {"Brontek & Sons": "Vexel", "Vexel": "Brontek & Sons"}


def extracted(directory: Path, checkpoints: Path, facts: Path, name: str, batch_size: int = 32, **settings):
    """Tables of one extraction that passes its gate."""
    directory.mkdir()
    checkpoint = next(one for one in find_checkpoints(checkpoints) if one.name == name)
    request = ExtractionRequest("series", checkpoint, load_relations(facts), MeasurementSettings(**settings))
    extract(request, directory, Machine(batch_size=batch_size))
    assert [check for check in gate_extraction(directory) if check.result == "fail"] == []
    return {
        file.stem: pl.read_parquet(file).with_columns(pl.col(pl.Categorical).cast(pl.String))
        for file in directory.glob("*.parquet")
    }


def own(tables):
    """Predictions of the model's own logits, with the prompt's relation, template and fact."""
    is_own = pl.col("readout") == tables["checkpoint"]["layer_count"][0]
    return tables["predictions"].filter(is_own).join(tables["prompts"], on="prompt_id")


def recomputed(folder: Path, tables, chat_template: bool = False):
    """Log-probability of every answer token after the mismatched subject, by the library alone, text by text."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row in tables["prompts"].sort("prompt_id").iter_rows(named=True):
        question, answer = row["template"].format(NEXT[row["subject"]]), f" {row['object']}"
        if chat_template:
            turn = [{"role": "user", "content": question}]
            question = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            answer = answer.strip()
        before, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (question, question + answer))
        assert ids[: len(before)] == before
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        yield from (float(log_probs[at, ids[at + 1]]) for at in range(len(before) - 1, len(ids) - 1))


@pytest.mark.parametrize("model_type", ["olmo", "gpt2", "gpt_neox", "gemma2", "olmoe"])
def test_it_is_what_the_library_gives_for_the_text(tmp_path, facts_directory, model_type):
    family = next(one for one in FAMILIES if model_type in one.model_types)
    save_random_checkpoint(tmp_path / "series/main", model_type, **family.examples[0])
    tables = extracted(tmp_path / "extraction", tmp_path / "series", facts_directory, "main")
    rows = own(tables).sort("prompt_id", "answer_token_index")
    expected = list(recomputed(tmp_path / "series/main", tables))
    assert rows["log_prob_mismatched"].to_list() == pytest.approx(expected, abs=2e-5)
    assert (rows["log_prob_mismatched"] - rows["log_prob"]).abs().min() > 1e-4  # another text, another number
    others = tables["predictions"].filter(pl.col("readout") != tables["checkpoint"]["layer_count"][0])
    assert others["log_prob_mismatched"].is_null().all()


def test_it_is_asked_in_the_chat_template(tmp_path, facts_directory):
    folder = save_checkpoint(tmp_path / "series/main")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    tables = extracted(tmp_path / "extraction", tmp_path / "series", facts_directory, "main", chat_template=True)
    rows = own(tables).sort("prompt_id", "answer_token_index")
    expected = list(recomputed(folder, tables, chat_template=True))
    assert rows["log_prob_mismatched"].to_list() == pytest.approx(expected, abs=2e-5)


def test_padding_and_what_else_is_in_the_batch_do_not_matter(tmp_path, facts_directory, series_directory):
    found = [
        own(extracted(tmp_path / str(size), series_directory, facts_directory, "main", batch_size=size))
        for size in (1, 4, 32)
    ]
    alone = found[0]["log_prob_mismatched"]
    for batched in found[1:]:
        assert (batched["log_prob_mismatched"] - alone).abs().max() <= 1e-6 * alone.abs().max()


def test_a_fact_alone_in_its_relation_has_none(tmp_path, facts_directory, series_directory):
    facts = shutil.copytree(facts_directory, tmp_path / "facts")
    content = json.loads((facts / "leader_of.json").read_text())
    content["samples"] = content["samples"][:1]
    (facts / "leader_of.json").write_text(json.dumps(content))
    rows = own(extracted(tmp_path / "extraction", series_directory, facts, "main"))
    is_alone = rows["relation_id"] == "leader_of"
    assert (rows["log_prob_mismatched"].is_null() == is_alone).all() and 0 < is_alone.sum() < rows.height


def test_ranks_in_the_relation_are_among_its_answers_at_the_same_place(tmp_path, facts_directory, series_directory):
    tables = extracted(tmp_path / "extraction", series_directory, facts_directory, "main")
    model = AutoModelForCausalLM.from_pretrained(series_directory / "main", attn_implementation="eager").eval()
    texts = {
        key: ids["token_id"].to_list()
        for (key,), ids in tables["prompt_tokens"].sort("position").group_by("prompt_id", maintain_order=True)
    }
    rows = own(tables).with_columns(
        answer=pl.struct("prompt_id", "position").map_elements(
            lambda at: texts[at["prompt_id"]][at["position"] + 1], return_dtype=pl.Int64
        )
    )
    ranks = set()
    for row in rows.iter_rows(named=True):
        same = rows.filter(relation_id=row["relation_id"], answer_token_index=row["answer_token_index"])
        with torch.no_grad():
            logits = model(torch.tensor([texts[row["prompt_id"]]])).logits[0, row["position"]]
        better = {token for token in same["answer"] if logits[token] > logits[row["answer"]] + 1e-5}
        assert row["rank_in_relation"] == len(better)
        ranks.add(row["rank_in_relation"])
    assert len(ranks) > 2


# what it tells ------------------------------------------------------------------------------------------------------


def gains(tables):
    """How much more probable the own subject makes the whole answer, in nats, by prompt."""
    gain = (pl.col("log_prob") - pl.col("log_prob_mismatched")).sum().alias("gain")
    return own(tables).group_by("prompt_id").agg(gain)["gain"]


def test_a_model_that_does_not_see_the_subject_gains_nothing(tmp_path, facts_directory):
    """Without attention the prediction follows from the last token alone, whatever it is worth."""
    folder = save_checkpoint(tmp_path / "series/main")
    seeing = gains(extracted(tmp_path / "seeing", tmp_path / "series", facts_directory, "main"))
    weights = load_file(folder / "model.safetensors")
    blind = {name: 0 * values if "o_proj" in name else values for name, values in weights.items()}
    save_file(blind, folder / "model.safetensors", metadata={"format": "pt"})
    not_seeing = gains(extracted(tmp_path / "blind", tmp_path / "series", facts_directory, "main"))
    assert seeing.abs().min() > 1e-2
    assert not_seeing.abs().max() < 1e-5


@pytest.mark.slow
def test_the_gain_grows_while_a_model_learns_its_facts(tmp_path, pretrained):
    names = [one.name for one in find_checkpoints(pretrained / "checkpoints/olmo")]
    found = [
        gains(extracted(tmp_path / name, pretrained / "checkpoints/olmo", pretrained / "facts", name, taus=("5x",)))
        for name in (names[0], names[-1])
    ]
    untrained, trained = (float(gain.mean()) for gain in found)
    assert abs(untrained) < 0.1
    assert trained > 1.0
    assert (found[0] > 0).mean() < 0.7 < 0.9 < (found[1] > 0).mean()
