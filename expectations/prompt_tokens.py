"""Expectations for the raw table `prompt_tokens`: every prompt is covered, and its spans fit one another."""

from timecourse.expectations.rules import Rule, holds, is_unique

KEY = ("prompt_id", "position")

_TOKENS = """(
    select
        prompt_tokens.*,
        row_number() over (partition by prompt_id order by position) - 1 as expected_position,
        lead(span_role) over (partition by prompt_id order by position) as next_span_role,
        prompts.prompt_id is not null as is_known_prompt,
        (select min(vocabulary_size) from checkpoint) as vocabulary_size
    from prompt_tokens
    left join (select distinct prompt_id from prompts) as prompts using (prompt_id)
)"""

_PROMPTS = """(
    select
        prompt_id,
        count(position) as token_count,
        count(*) filter (where span_role = 'subject') as subject_count,
        count(*) filter (where span_role = 'answer') as answer_count,
        count(*) filter (where is_answer_predicting) as predicting_count
    from prompts
    left join prompt_tokens using (prompt_id)
    group by prompt_id
)"""

RULES = (
    is_unique("prompt_tokens", KEY),
    holds("prompt_is_known", "every token belongs to a prompt", _TOKENS, "is_known_prompt", KEY),
    Rule(
        "positions_are_contiguous",
        "the positions of a prompt run from 0 without a gap (shown: distance from the expected position)",
        _TOKENS,
        "position - expected_position",
        (*KEY, "expected_position"),
        minimum=0,
        maximum=0,
    ),
    holds(
        "token_is_in_vocabulary",
        "token_id is at least 0 and below vocabulary_size",
        _TOKENS,
        "token_id >= 0 and token_id < vocabulary_size",
        (*KEY, "token_id", "vocabulary_size"),
    ),
    holds(
        "span_role_is_known",
        "span_role is special, template, subject or answer",
        _TOKENS,
        "span_role in ('special', 'template', 'subject', 'answer')",
        (*KEY, "span_role"),
    ),
    holds(
        "special_is_special",
        "is_special is true exactly where span_role is special",
        _TOKENS,
        "is_special = (span_role = 'special')",
        (*KEY, "span_role", "is_special"),
    ),
    holds(
        "answers_are_predicted",
        "is_answer_predicting is true exactly where the next token is an answer token",
        _TOKENS,
        "is_answer_predicting = coalesce(next_span_role = 'answer', false)",
        (*KEY, "span_role", "next_span_role", "is_answer_predicting"),
    ),
    Rule(
        "prompt_has_a_subject",
        "every prompt has a subject token",
        _PROMPTS,
        "subject_count",
        ("prompt_id", "token_count", "subject_count"),
        minimum=1,
    ),
    Rule(
        "prompt_has_an_answer",
        "every prompt has an answer token",
        _PROMPTS,
        "answer_count",
        ("prompt_id", "token_count", "answer_count"),
        minimum=1,
    ),
    Rule(
        "prompt_predicts_its_answer",
        "every prompt has as many answer-predicting positions as answer tokens, and at least one",
        _PROMPTS,
        "case when predicting_count = answer_count then predicting_count else 0 end",
        ("prompt_id", "token_count", "answer_count", "predicting_count"),
        minimum=1,
    ),
)
