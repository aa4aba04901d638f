"""Spans by character offsets, whatever the tokenizer does with spaces; and what is refused."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.conftest import train_tokenizer
from timecourse.errors import UserError
from timecourse.extract.facts import Relation
from timecourse.extract.prompts import answer_candidates, build_prompts


def relation(*facts, templates=("The capital of {} is",), name="capital of"):
    samples = [{"subject": subject, "object": answer} for subject, answer in facts]
    return Relation.model_validate({"name": name, "prompt_templates": list(templates), "samples": samples})


def word_tokenizer(words, *, bos=False, trim=True, unknown=True):
    """One token per word; offsets without the space before, as some tokenizers give them."""
    vocabulary = {word: index for index, word in enumerate(["<bos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if trim else pre_tokenizers.Split(" ", "merged_with_next")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>" if unknown else None)


def test_roles_and_predicting_positions():
    tokenizer = train_tokenizer()
    (prompt,) = build_prompts([relation(("New Zealand", "Wellington City"))], tokenizer, 64)
    by_role = {
        role: "".join(token for token, its in zip(prompt.tokens, prompt.roles, strict=True) if its == role)
        for role in ("template", "subject", "answer")
    }
    assert by_role == {"template": "The capital of is", "subject": " New Zealand", "answer": " Wellington City"}
    assert prompt.text == "The capital of New Zealand is Wellington City"
    assert [position + 1 for position in prompt.predicting_positions] == list(prompt.answer_positions)
    assert len(prompt.answer_positions) > 1


def test_subject_at_the_start_at_the_end_and_equal_to_the_answer():
    tokenizer = train_tokenizer()
    prompts = build_prompts([relation(("Paris", "Paris"), templates=("{} is", "The one called {}"))], tokenizer, 64)
    for prompt in prompts:
        texts = {role: "" for role in ("template", "subject", "answer")}
        for token, role in zip(prompt.tokens, prompt.roles, strict=True):
            texts[role] += token
        assert texts["subject"].strip() == texts["answer"].strip() == "Paris"
    assert prompts[0].roles[0] == "subject"


def test_special_tokens_are_keys_only():
    tokenizer = word_tokenizer(["The", "capital", "of", "France", "is", "Paris"], bos=True)
    (prompt,) = build_prompts([relation(("France", "Paris"))], tokenizer, 64)
    assert prompt.roles == ("special", "template", "template", "template", "subject", "template", "answer")
    assert prompt.predicting_positions == (5,)


def test_a_space_of_its_own_belongs_to_the_span_after_it():
    tokenizer = train_tokenizer()
    pieces = Tokenizer(models.BPE({"Ġ": 0, "a": 1, "b": 2, "c": 3}, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.post_processor = processors.ByteLevel(trim_offsets=True)  # gives a lone space no characters
    pieces.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces)
    (prompt,) = build_prompts([relation(("b", "c"), templates=("a {} a",))], tokenizer, 64)
    assert "".join(prompt.tokens) == "a b a c"
    assert prompt.roles == ("template", "subject", "subject", "template", "template", "answer", "answer")


def test_hostile_text_is_only_text():
    facts = [("{} {0} %s", "a}"), ("'; drop table x --", "b"), ("é̂ 日本", "東京"), ("<script>", "</script>")]
    prompts = build_prompts([relation(*facts)], train_tokenizer(), 200)
    assert [prompt.text for prompt in prompts] == [f"The capital of {subject} is {answer}" for subject, answer in facts]
    for prompt, (subject, answer) in zip(prompts, facts, strict=True):
        written = bytes(prompt.text, "utf-8")
        assert written.endswith(bytes(" " + answer, "utf-8")) and subject in prompt.text
        assert len({prompt.relation.fact_id(prompt.fact) for prompt in prompts}) == len(facts)


def test_candidates_are_the_relations_answers_at_the_same_place():
    prompts = build_prompts([relation(("France", "Paris"), ("Peru", "Lima"))], train_tokenizer(), 64)
    candidates = answer_candidates(prompts)
    assert candidates["capital_of", 0] == sorted({prompt.token_ids[prompt.answer_positions[0]] for prompt in prompts})


@pytest.mark.parametrize(
    ("facts", "tokenizer", "length", "message"),
    [
        (
            [("France", "Paris")],
            word_tokenizer(["The", "capital", "of", "France", "is"]),
            64,
            "cannot write the answer",
        ),
        ([("France", "Paris")], train_tokenizer(), 5, "more than the model's context of 5"),
    ],
)
def test_refused_prompts(facts, tokenizer, length, message):
    with pytest.raises(UserError, match=message):
        build_prompts([relation(*facts)], tokenizer, length)


def test_a_token_of_answer_and_template_is_refused():
    vocabulary = {character: index for index, character in enumerate("Ġaobc")}
    pieces = Tokenizer(models.BPE({**vocabulary, "aĠ": 5, "aĠc": 6}, [("a", "Ġ"), ("aĠ", "c")]))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces)
    with pytest.raises(UserError, match="holds both answer and other text"):
        build_prompts([relation(("b", "c"), templates=("o {} a",))], tokenizer, 64)


def test_a_chat_template_makes_the_question_a_turn_and_the_answer_the_next():
    tokenizer = train_tokenizer()
    tokenizer.chat_template = (
        "<|endoftext|>{% for turn in messages %}USER: {{ turn.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}MODEL:<|padding|>{% endif %}"
    )
    (prompt,) = build_prompts([relation(("New Zealand", "Wellington City"))], tokenizer, 99, chat_template=True)
    by_role = {
        role: "".join(token for token, its in zip(prompt.tokens, prompt.roles, strict=True) if its == role)
        for role in ("special", "template", "subject", "answer")
    }
    assert by_role == {
        "special": "<|endoftext|>",
        "template": "USER: The capital of is\nMODEL:<|padding|>",  # a special token that predicts the answer counts
        "subject": " New Zealand",
        "answer": "Wellington City",
    }
    first = prompt.answer_positions[0]
    assert prompt.predicting_positions[0] == first - 1 and prompt.tokens[first - 1] == "<|padding|>"


def test_chat_templates_that_cannot_be_used_are_refused():
    tokenizer = train_tokenizer()
    with pytest.raises(UserError, match="no chat template"):
        build_prompts([relation(("Peru", "Lima"))], tokenizer, 64, chat_template=True)
    tokenizer.chat_template = "{{ messages[0].content | upper }} ANSWER: "
    with pytest.raises(UserError, match="does not write the question as it is, once"):
        build_prompts([relation(("Peru", "Lima"))], tokenizer, 64, chat_template=True)
