"""Facts as tokenised prompts: which token is the subject's, the answer's, the template's (method: section 1).

A prompt is `template.format(subject) + " " + object`: the answer is part of the text, and every answer token is read at
the position that predicts it. Spans come from the tokenizer's character offsets, never from searching token ids.

With a chat template, `template.format(subject)` is the user's turn and the object begins the model's. What the template
writes around them is template too; its special tokens are special, but for one that predicts the answer.
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timecourse.errors import UserError
from timecourse.extract.facts import Fact, Relation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Prompt:
    """One fact in one template, tokenised. `roles[i]` is special, template, subject or answer."""

    prompt_id: int
    relation: Relation
    template_id: int
    fact: Fact
    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def answer_positions(self) -> tuple[int, ...]:
        """Positions of the answer's tokens, first to last."""
        return tuple(index for index, role in enumerate(self.roles) if role == "answer")

    @property
    def predicting_positions(self) -> tuple[int, ...]:
        """Positions whose next token is an answer token."""
        return tuple(position - 1 for position in self.answer_positions)


@dataclass(frozen=True)
class MismatchedPrompt:
    """A prompt's answer after another fact's subject, in the same template and tokenised alike: is it given anyway?

    fact: whose subject it is. predicting_positions: those whose next token is an answer token.
    """

    fact: Fact
    token_ids: tuple[int, ...]
    predicting_positions: tuple[int, ...]


def build_prompts(
    relations: Sequence[Relation],
    tokenizer: "PreTrainedTokenizerFast",
    context_length: int,
    chat_template: bool = False,
) -> list[Prompt]:
    """Every template with every fact, numbered in the order relation, template, fact.

    Raises UserError for a prompt that does not fit the model's context, an answer that the tokenizer cannot write, or a
    token that holds both answer and other text, or a tokenizer without a chat template where one is asked for.
    """
    if chat_template and not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template; measure without (chat_template = false)")
    prompts: list[Prompt] = []
    for relation in relations:
        for template_id, template in enumerate(relation.prompt_templates):
            for fact in relation.samples:
                prompts.append(_prompt(len(prompts), relation, template_id, template, fact, tokenizer, chat_template))
                if len(prompts[-1].token_ids) > context_length:
                    raise UserError(
                        f"{_name(relation, fact)} has {len(prompts[-1].token_ids)} tokens, "
                        f"more than the model's context of {context_length}; shorten it"
                    )
    return prompts


def _prompt(
    prompt_id: int,
    relation: Relation,
    template_id: int,
    template: str,
    fact: Fact,
    tokenizer: "PreTrainedTokenizerFast",
    chat_template: bool,
) -> Prompt:
    before = _before_the_subject(template)
    question = template.format(fact.subject)
    turn, at = _user_turn(question, tokenizer, _name(relation, fact)) if chat_template else (f"{question} ", 0)
    text = f"{turn}{fact.object}"
    encoding = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, add_special_tokens=not chat_template
    )
    token_ids = encoding["input_ids"]
    start_of_subject = at + len(before)
    subject = _with_space_before(text, start_of_subject, start_of_subject + len(fact.subject))
    answer = (len(turn), len(text)) if chat_template else (len(question), len(text))
    roles: list[str] = []
    end_before = 0
    specials = encoding["special_tokens_mask"]
    if chat_template:
        specials = [token in tokenizer.all_special_ids for token in token_ids]
    for (start, end), is_special in zip(encoding["offset_mapping"], specials, strict=True):
        if is_special and not (chat_template and end == answer[0]):
            roles.append("special")
            end_before = end
            continue
        # some tokenizers give a space of its own no characters: it then covers what the token before it left
        start = end_before if start == end else start
        end_before = end
        if _meets((start, end), answer):
            if start < answer[0]:
                raise UserError(
                    f"{_name(relation, fact)}: the token {text[start:end]!r} holds both answer and other text; "
                    "reword the template"
                )
            roles.append("answer")
        else:
            roles.append("subject" if _meets((start, end), subject) else "template")
    answer_ids = [token for token, role in zip(token_ids, roles, strict=True) if role == "answer"]
    if not answer_ids or tokenizer.unk_token_id in answer_ids:
        raise UserError(f"{_name(relation, fact)}: the tokenizer cannot write the answer {fact.object!r}")
    if "subject" not in roles:
        raise UserError(f"{_name(relation, fact)}: the tokenizer cannot write the subject {fact.subject!r}")
    return Prompt(
        prompt_id=prompt_id,
        relation=relation,
        template_id=template_id,
        fact=fact,
        text=text,
        token_ids=tuple(token_ids),
        tokens=tuple(str(tokenizer.decode([token], clean_up_tokenization_spaces=False)) for token in token_ids),
        roles=tuple(roles),
    )


def _before_the_subject(template: str) -> str:
    """The text in front of the placeholder; escaped braces divide it into parts."""
    before = ""
    for text, hole, _, _ in string.Formatter().parse(template):
        before += text
        if hole is not None:
            break
    return before


def _user_turn(question: str, tokenizer: "PreTrainedTokenizerFast", name: str) -> tuple[str, int]:
    """The conversation up to where the model answers, and where the question stands in it."""
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    if not isinstance(turn, str) or turn.count(question) != 1:
        raise UserError(f"{name}: the chat template does not write the question as it is, once")
    return turn, turn.index(question)


def _with_space_before(text: str, start: int, end: int) -> tuple[int, int]:
    return (start - 1 if start > 0 and text[start - 1] == " " else start), end


def _meets(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _name(relation: Relation, fact: Fact) -> str:
    return f"the prompt of {fact.subject!r} in {relation.relation_id}"


def mismatched_prompts(prompts: Sequence[Prompt], context_length: int) -> dict[int, MismatchedPrompt]:
    """Each prompt's answer after a mismatched subject, {prompt_id: prompt}; left out where there is none.

    The subject is that of the next fact in the relation's order of fact ids, after the last comes the first, but for
    subjects to which a fact of the relation gives the same object, and those with which it does not fit the context.
    The same facts and tokenizer give the same choice, so that checkpoints compare.
    """
    questions: dict[tuple[str, int], list[Prompt]] = {}
    for prompt in prompts:
        questions.setdefault((prompt.relation.relation_id, prompt.template_id), []).append(prompt)
    found: dict[int, MismatchedPrompt] = {}
    for alike in questions.values():
        alike.sort(key=lambda prompt: prompt.relation.fact_id(prompt.fact))
        objects: dict[str, set[str]] = {}
        for prompt in alike:
            objects.setdefault(prompt.fact.subject, set()).add(prompt.fact.object)
        for index, prompt in enumerate(alike):
            for other in (*alike[index + 1 :], *alike[:index]):
                if prompt.fact.object not in objects[other.fact.subject]:
                    mismatched = _answer_after(other, prompt)
                    if len(mismatched.token_ids) <= context_length:
                        found[prompt.prompt_id] = mismatched
                        break
    return found


def _answer_after(other: Prompt, prompt: Prompt) -> MismatchedPrompt:
    """What comes before `other`'s answer, then `prompt`'s answer: the very tokens that both were read with."""
    start, own_start = other.answer_positions[0], prompt.answer_positions[0]
    return MismatchedPrompt(
        fact=other.fact,
        token_ids=(*other.token_ids[:start], *prompt.token_ids[own_start:]),
        predicting_positions=tuple(position - own_start + start for position in prompt.predicting_positions),
    )


def answer_candidates(prompts: Sequence[Prompt]) -> dict[tuple[str, int], list[int]]:
    """Distinct answer token ids of each relation at each place in the answer, {(relation_id, index): ids}."""
    found: dict[tuple[str, int], set[int]] = {}
    for prompt in prompts:
        for index, position in enumerate(prompt.answer_positions):
            found.setdefault((prompt.relation.relation_id, index), set()).add(prompt.token_ids[position])
    return {key: sorted(ids) for key, ids in found.items()}


def batches_of_one_length(prompts: Sequence[Prompt], batch_size: int) -> Iterator[list[Prompt]]:
    """Prompts of as many tokens, up to `batch_size` at once; the shortest first."""
    by_length: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt.token_ids), []).append(prompt)
    for _, alike in sorted(by_length.items()):
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]
