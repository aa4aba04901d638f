"""Expectations for the raw table `contributions`: dense at answer-predicting positions, shares of one sum add up to 1.

Sequential blocks have two sums per layer, after attention (heads, bias, L3RA) and after the FFN (L3F, L3RF); parallel
blocks have one (heads, bias, L3F, L3RA).
"""

from timecourse.expectations.limits import ROUNDING, SUM_TOLERANCE
from timecourse.expectations.rules import Rule, holds, is_unique

KEY = ("prompt_id", "position", "component_id")

_PARTS = """(
    select contributions.*, parts.is_residual, prompt_tokens.is_answer_predicting
    from contributions
    left join parts using (component_id)
    left join prompt_tokens using (prompt_id, position)
)"""

_POSITIONS = """(
    select
        prompt_id,
        position,
        count(component_id) as row_count,
        (select count(*) from parts) as expected_count
    from prompt_tokens
    left join contributions using (prompt_id, position)
    where is_answer_predicting
    group by prompt_id, position
)"""

_SUMS = """(
    select
        prompt_id,
        position,
        layer,
        sum_name,
        sum(c_direct) as total,
        count(*) filter (where c_direct <> 0) as part_count
    from contributions
    inner join parts using (component_id)
    group by all
)"""

RULES = (
    is_unique("contributions", KEY),
    holds("component_is_known", "every row is a component or a residual", _PARTS, "is_residual is not null", KEY),
    holds(
        "position_predicts_an_answer",
        "every row stands at an answer-predicting position",
        _PARTS,
        "is_answer_predicting",
        KEY,
    ),
    Rule(
        "rows_are_complete",
        "every answer-predicting position has a row for each component and residual (shown: rows too many)",
        _POSITIONS,
        "row_count - expected_count",
        ("prompt_id", "position", "row_count", "expected_count"),
        minimum=0,
        maximum=0,
    ),
    Rule(
        "contribution_is_a_share",
        "c_direct is in [0, 1]",
        _PARTS,
        "c_direct",
        (*KEY, "c_direct"),
        minimum=0,
        maximum=1 + ROUNDING,
    ),
    holds(
        "shares_add_up",
        "the parts of one sum add up to 1, or are all 0 where the sum is degenerate",
        _SUMS,
        f"part_count = 0 or abs(total - 1) <= {SUM_TOLERANCE}",
        ("prompt_id", "position", "layer", "sum_name", "total"),
    ),
    holds(
        "residuals_carry_the_norm",
        "stream_norm is finite and above 0 on the residual's rows, and null on all others",
        _PARTS,
        "case when is_residual then isfinite(stream_norm) and stream_norm > 0 else stream_norm is null end",
        (*KEY, "stream_norm"),
    ),
)
