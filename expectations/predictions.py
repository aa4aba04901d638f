"""Expectations for the raw table `predictions`: every answer token at every readout, ranks and probabilities agree."""

from timecourse.expectations.limits import LOG_PROB_TOLERANCE, TIE_TOLERANCE
from timecourse.expectations.rules import Rule, holds, is_unique

KEY = ("prompt_id", "answer_token_index", "readout")

_ANSWER_TOKENS = """
    select
        prompt_id,
        position - 1 as expected_position,
        token_id as answer_token_id,
        row_number() over (partition by prompt_id order by position) - 1 as answer_token_index
    from prompt_tokens
    where span_role = 'answer'
"""

# A file of schema version 1 has no mismatched subjects.
_ROWS = "(from predictions union all by name select null::float as log_prob_mismatched where false)"

_PREDICTIONS = f"""(
    select predictions.*, answer_tokens.expected_position, answer_tokens.answer_token_id, checkpoint.*
    from {_ROWS} as predictions
    left join ({_ANSWER_TOKENS}) as answer_tokens using (prompt_id, answer_token_index)
    cross join (select layer_count, vocabulary_size, dtype from checkpoint limit 1) as checkpoint
)"""

# Per prompt, how many of its answer tokens were read after a mismatched subject, and the length of the shortest prompt
# that could have been: a question of the same template about a subject that never has this object, and the answer. It
# fits the context if it is no longer than some prompt that was measured.
_MISMATCHED = f"""(
    with answers as (
        select
            prompt_id,
            min(position) filter (where span_role = 'answer') as question_length,
            max(position) + 1 - question_length as answer_length,
            max(max(position) + 1) over () as longest_length
        from prompt_tokens
        group by prompt_id
    ),

    questions as (
        select relation_id, template_id, subject, list(object) as objects, min(question_length) as question_length
        from prompts
        inner join answers using (prompt_id)
        group by all
    ),

    shortest as (
        select prompts.prompt_id, min(questions.question_length) as question_length
        from prompts
        inner join questions
            on prompts.relation_id = questions.relation_id
            and prompts.template_id = questions.template_id
            and not list_contains(questions.objects, prompts.object)
        group by all
    )

    select
        predictions.prompt_id,
        count(predictions.log_prob_mismatched) as mismatched_count,
        count(*) as answer_token_count,
        any_value(shortest.question_length + answers.answer_length) as shortest_mismatched_length,
        any_value(answers.longest_length) as longest_length
    from {_ROWS} as predictions
    inner join checkpoint on predictions.readout = checkpoint.layer_count and checkpoint.schema_version >= 2
    inner join answers using (prompt_id)
    left join shortest using (prompt_id)
    group by predictions.prompt_id
)"""

_READOUTS = f"""(
    select
        prompt_id,
        answer_token_index,
        count(predictions.readout) as row_count,
        (select min(layer_count) + 2 from checkpoint) as expected_count
    from ({_ANSWER_TOKENS}) as answer_tokens
    left join predictions using (prompt_id, answer_token_index)
    group by all
)"""

RULES = (
    is_unique("predictions", KEY),
    Rule(
        "readouts_are_complete",
        "every answer token is read at -1 (embeddings), after every block and at the end (shown: rows too many)",
        _READOUTS,
        "row_count - expected_count",
        ("prompt_id", "answer_token_index", "row_count", "expected_count"),
        minimum=0,
        maximum=0,
    ),
    holds(
        "answer_token_is_known",
        "every row is about an answer token of its prompt",
        _PREDICTIONS,
        "answer_token_id is not null",
        KEY,
    ),
    holds(
        "readout_is_known",
        "readout is between -1 and the number of layers",
        _PREDICTIONS,
        "readout between -1 and layer_count",
        (*KEY, "layer_count"),
    ),
    holds(
        "position_predicts_the_token",
        "position is the one before the answer token",
        _PREDICTIONS,
        "position = expected_position",
        (*KEY, "position", "expected_position"),
    ),
    holds(
        "rank_is_in_vocabulary",
        "rank is at least 0 and below vocabulary_size",
        _PREDICTIONS,
        "rank >= 0 and rank < vocabulary_size",
        (*KEY, "rank", "vocabulary_size"),
    ),
    holds(
        "rank_in_relation_is_part_of_rank",
        "rank_in_relation is at least 0 and at most rank",
        _PREDICTIONS,
        "rank_in_relation >= 0 and rank_in_relation <= rank",
        (*KEY, "rank", "rank_in_relation"),
    ),
    holds(
        "numbers_are_finite",
        "log_prob and entropy are finite",
        _PREDICTIONS,
        "isfinite(log_prob) and isfinite(entropy)",
        (*KEY, "log_prob", "entropy"),
    ),
    Rule(
        "log_prob_is_not_positive",
        "log_prob is at most 0",
        _PREDICTIONS,
        "log_prob",
        (*KEY, "log_prob"),
        maximum=LOG_PROB_TOLERANCE,
    ),
    Rule(
        "log_prob_fits_rank",
        "a token of rank r has at most 1 / (r + 1) of the probability (shown: nats too many)",
        _PREDICTIONS,
        "log_prob + ln(greatest(rank, 0) + 1)",
        (*KEY, "rank", "log_prob"),
        maximum=LOG_PROB_TOLERANCE,
    ),
    Rule(
        "log_prob_mismatched_is_not_positive",
        "log_prob_mismatched is finite and at most 0, or null",
        _PREDICTIONS,
        "coalesce(log_prob_mismatched, 0)",
        (*KEY, "log_prob_mismatched"),
        maximum=LOG_PROB_TOLERANCE,
    ),
    holds(
        "mismatched_is_the_models_own",
        "log_prob_mismatched is null but for the model's own logits",
        _PREDICTIONS,
        "log_prob_mismatched is null or readout = layer_count",
        (*KEY, "layer_count", "log_prob_mismatched"),
    ),
    holds(
        "mismatched_is_a_whole_answer",
        "all of a prompt's answer tokens are read after a mismatched subject, or none",
        _MISMATCHED,
        "mismatched_count in (0, answer_token_count)",
        ("prompt_id", "mismatched_count", "answer_token_count"),
    ),
    holds(
        "mismatched_where_a_subject_is",
        "an answer is read after a mismatched subject where the relation has one, unless the context is too short",
        _MISMATCHED,
        """if(
            mismatched_count > 0,
            shortest_mismatched_length is not null,
            coalesce(shortest_mismatched_length > longest_length, true)
        )""",
        ("prompt_id", "mismatched_count", "shortest_mismatched_length", "longest_length"),
    ),
    holds(
        "rank_0_is_top_1",
        "rank is 0 exactly where the answer token is the top-1 token (in half precision: or may be tied with it)",
        _PREDICTIONS,
        f"""(rank = 0) = (top1_token_id = answer_token_id)
            or (rank = 0 and dtype <> 'float32' and log_prob <= ln(0.5) + {TIE_TOLERANCE})""",
        (*KEY, "rank", "top1_token_id", "answer_token_id", "log_prob"),
    ),
    holds(
        "top_1_is_in_vocabulary",
        "top1_token_id is at least 0 and below vocabulary_size",
        _PREDICTIONS,
        "top1_token_id >= 0 and top1_token_id < vocabulary_size",
        (*KEY, "top1_token_id", "vocabulary_size"),
    ),
    Rule(
        "entropy_is_not_negative",
        "entropy is at least 0",
        _PREDICTIONS,
        "entropy",
        (*KEY, "entropy"),
        minimum=-LOG_PROB_TOLERANCE,
    ),
    Rule(
        "entropy_is_bounded",
        "entropy is at most ln(vocabulary_size) (shown: nats too many)",
        _PREDICTIONS,
        "entropy - ln(vocabulary_size)",
        (*KEY, "entropy", "vocabulary_size"),
        maximum=LOG_PROB_TOLERANCE,
    ),
)
