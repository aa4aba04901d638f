"""Expectations for the raw table `ablations`: what silencing each set did to each answer token, against the extraction.

A log-probability stays one and a rank stays one: the intact values are the extraction's own, which another run of the
same model gives but for rounding.
"""

from timecourse.expectations.limits import ABLATION_ROUNDING
from timecourse.expectations.rules import holds, is_unique

KEY = ("method", "set_id", "prompt_id", "answer_token_index")

_ROWS = """(
    select
        ablations.*,
        sets.set_id as known_set_id,
        intact.log_prob,
        intact.rank,
        (select max(vocabulary_size) from checkpoint) as vocabulary_size
    from ablations
    left join (select distinct set_id from ablation_sets) as sets using (set_id)
    left join (
        select predictions.* from predictions, checkpoint where readout = layer_count
    ) as intact using (prompt_id, answer_token_index)
)"""

_RUNS = """(
    select
        runs.*,
        answers.token_count
    from (
        select method, set_id, prompt_id, count(*) as row_count from ablations group by all
    ) as runs
    left join (
        select prompt_id, count(*) as token_count from prompt_tokens where span_role = 'answer' group by all
    ) as answers using (prompt_id)
)"""

_SCORED_SETS = """(
    select
        sets.*,
        (select count(distinct method) from ablations) as method_count,
        (select count(*) from prompts) as all_prompt_count,
        count(distinct ablations.method) as scored_method_count,
        count(distinct ablations.prompt_id) as prompt_count
    from (select distinct set_id, set_kind from ablation_sets) as sets
    left join ablations using (set_id)
    group by all
)"""

RULES = (
    is_unique("ablations", KEY),
    holds(
        "method_is_known",
        "a method is mean, resample or zero, with _live_norm where a norm was not frozen",
        "ablations",
        "regexp_full_match(method::varchar, '(mean|resample|zero)(_live_norm)?')",
        KEY,
    ),
    holds(
        "set_and_token_are_known",
        "every row is about a set and an answer token that there are",
        _ROWS,
        "known_set_id is not null and log_prob is not null",
        KEY,
    ),
    holds(
        "numbers_are_finite",
        "changes are finite; that of the template may be missing",
        "ablations",
        "isfinite(delta_log_prob) and (delta_template_log_prob is null or isfinite(delta_template_log_prob))",
        (*KEY, "delta_log_prob", "delta_template_log_prob"),
    ),
    holds(
        "log_prob_stays_one",
        "no answer token gets a probability above 1",
        _ROWS,
        f"log_prob + delta_log_prob <= {ABLATION_ROUNDING}",
        (*KEY, "log_prob", "delta_log_prob"),
    ),
    holds(
        "rank_stays_one",
        "no answer token gets a rank below 0 or beyond the vocabulary",
        _ROWS,
        "rank + delta_rank between -1 and vocabulary_size",  # 1 of play: another run may break a tie otherwise
        (*KEY, "rank", "delta_rank"),
    ),
    holds(
        "answers_are_whole",
        "every answer token of a scored prompt has a row",
        _RUNS,
        "row_count = token_count",
        ("method", "set_id", "prompt_id", "row_count", "token_count"),
    ),
    holds(
        "sets_are_scored",
        "every role's set and random set is scored by every method, every single component on every prompt",
        _SCORED_SETS,
        "case set_kind when 'single' then prompt_count = all_prompt_count else scored_method_count = method_count end",
        ("set_id", "set_kind", "scored_method_count", "method_count", "prompt_count", "all_prompt_count"),
    ),
)
