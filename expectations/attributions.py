"""Expectations for the raw table `attributions`: what is active is known, and its scores fit one another.

A component lies in one layer, so it gives at most a share of 1 to each position from 0 to the target: its score is at
most position + 1. Nothing is asked of how much is active: a route may be empty.
"""

from timecourse.expectations.limits import ROUNDING, SPLIT_TOLERANCE
from timecourse.expectations.rules import Rule, holds, is_unique

KEY = ("tau_id", "prompt_id", "position", "component_id")

_SPLIT = "score_subject + score_answer + score_template + score_first"

_ACTIVE = f"""(
    select
        attributions.*,
        prompt_tokens.is_special,
        components.component_kind,
        list_contains((select any_value(tau_ids) from checkpoint), tau_id) as is_known_tau,
        {_SPLIT} as score_by_key
    from attributions
    left join prompt_tokens using (prompt_id, position)
    left join components using (component_id)
)"""

_HEADS = f"(from {_ACTIVE} where component_kind = 'head')"

RULES = (
    is_unique("attributions", KEY),
    holds(
        "position_is_known",
        "every target is a position of a prompt",
        _ACTIVE,
        "is_special is not null",
        KEY,
    ),
    holds(
        "target_is_not_special",
        "no target is a special token",
        _ACTIVE,
        "is_special is distinct from true",
        KEY,
    ),
    holds("component_is_known", "every component is one of the model's", _ACTIVE, "component_kind is not null", KEY),
    holds("tau_is_known", "every tau is one of the checkpoint's", _ACTIVE, "is_known_tau", KEY),
    holds(
        "numbers_are_finite",
        "scores and peaks are finite",
        _ACTIVE,
        "isfinite(score) and isfinite(peak) and isfinite(score_direct) and coalesce(isfinite(score_by_key), true)",
        (*KEY, "score", "peak", "score_direct", "score_by_key"),
    ),
    Rule(
        "score_is_positive",
        "score is above 0",
        _ACTIVE,
        "score",
        (*KEY, "score"),
        minimum=0,
        exclude_minimum=True,
    ),
    Rule(
        "score_is_bounded",
        "score is at most the number of positions up to the target (shown: score per position)",
        _ACTIVE,
        "score / (position + 1)",
        (*KEY, "score"),
        maximum=1 + ROUNDING,
    ),
    Rule(
        "peak_is_a_share",
        "peak is in (0, 1]",
        _ACTIVE,
        "peak",
        (*KEY, "peak"),
        minimum=0,
        maximum=1 + ROUNDING,
        exclude_minimum=True,
    ),
    Rule("edges_are_counted", "edges is at least 1", _ACTIVE, "edges", (*KEY, "edges"), minimum=1),
    Rule(
        "peak_is_the_largest_term",
        "score lies between peak and edges × peak (shown: the worse of the two ratios)",
        _ACTIVE,
        "if(least(score, peak, edges) > 0, greatest(peak / score, score / (edges * peak)), null)",
        (*KEY, "score", "peak", "edges"),
        maximum=1 + SPLIT_TOLERANCE,
    ),
    Rule(
        "direct_is_not_negative",
        "score_direct is at least 0",
        _ACTIVE,
        "score_direct",
        (*KEY, "score_direct"),
        minimum=0,
    ),
    Rule(
        "direct_is_part_of_score",
        "score_direct is at most score, and at most 1 (shown: the difference)",
        _ACTIVE,
        "score_direct - least(score, 1)",
        (*KEY, "score", "score_direct"),
        maximum=ROUNDING,
    ),
    Rule(
        "heads_split_by_key",
        "a head's score is the sum of its parts by key (shown: the difference, relative above 1)",
        _HEADS,
        "abs(score_by_key - score) / greatest(score, 1)",
        (*KEY, "score", "score_subject", "score_answer", "score_template", "score_first"),
        maximum=SPLIT_TOLERANCE,
    ),
    Rule(
        "split_is_not_negative",
        "a head's parts by key are at least 0",
        _HEADS,
        "least(score_subject, score_answer, score_template, score_first)",
        (*KEY, "score_subject", "score_answer", "score_template", "score_first"),
        minimum=0,
    ),
    holds(
        "ffns_are_not_split",
        "an FFN has no parts by key",
        _ACTIVE,
        """component_kind is distinct from 'ffn'
           or coalesce(score_subject, score_answer, score_template, score_first) is null""",
        (*KEY, "score_subject", "score_answer", "score_template", "score_first"),
    ),
)
