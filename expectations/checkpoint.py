"""Expectations for the raw table `checkpoint`: one row that describes the extraction, and within its own bounds."""

from timecourse.expectations.limits import (
    COMPLETENESS_ERROR,
    DEGENERATE_SHARE,
    DEGENERATE_SHARE_NOTABLE,
    LENS_ERROR,
)
from timecourse.expectations.rules import Rule, holds

KEY = ("checkpoint_id", "extraction_id")


def _by_dtype(limits: dict[str, float]) -> str:
    """SQL of the limit for the row's dtype; null, which breaks the rule, for an unknown one."""
    return f"case dtype {' '.join(f'when {dtype!r} then {limit}' for dtype, limit in limits.items())} end"


RULES = (
    Rule(
        "has_one_row",
        "the table has one row",
        "(select count(*) as row_count from checkpoint)",
        "row_count",
        ("row_count",),
        minimum=1,
        maximum=1,
    ),
    holds(
        "id_is_series_and_name",
        "checkpoint_id is <series_id>/<checkpoint_name>",
        "checkpoint",
        "checkpoint_id = series_id || '/' || checkpoint_name",
        (*KEY, "series_id", "checkpoint_name"),
    ),
    holds(
        "extraction_is_one",
        "extraction_id is the same in every row of every table",
        f"""({
            " union all ".join(
                f"select '{table}' as table_name, extraction_id, count(*) as row_count from {table} group by all"
                for table in ("checkpoint", "prompts", "prompt_tokens", "attributions", "contributions", "predictions")
            )
        })""",
        "extraction_id = (select min(extraction_id) from checkpoint)",
        ("table_name", "extraction_id", "row_count"),
    ),
    holds(
        "sizes_are_positive",
        "layers, heads, width, vocabulary and parameters are above 0, and key-value heads divide heads",
        "checkpoint",
        """least(layer_count, kv_head_count, hidden_size, vocabulary_size, parameter_count) > 0
           and head_count > 0 and head_count % nullif(kv_head_count, 0) = 0""",
        (*KEY, "layer_count", "head_count", "kv_head_count", "hidden_size", "vocabulary_size", "parameter_count"),
    ),
    holds(
        "block_is_known",
        "topology says whether blocks are sequential or parallel, which decides what the sums are",
        "checkpoint",
        "regexp_matches(topology, '^(sequential|parallel)_')",
        (*KEY, "family", "topology"),
    ),
    holds(
        "taus_are_named_shares",
        "every tau has a name of its own and lies in (0, 1)",
        "checkpoint",
        """len(taus) > 0 and len(tau_ids) = len(taus) and len(list_distinct(tau_ids)) = len(tau_ids)
           and list_min(taus) > 0 and list_max(taus) < 1""",
        (*KEY, "tau_ids", "taus"),
    ),
    holds(
        "prompts_are_all_there",
        "prompt_count is the number of prompts",
        "checkpoint",
        "prompt_count = (select count(*) from prompts)",
        (*KEY, "prompt_count"),
    ),
    Rule(
        "completeness",
        "the worst completeness error is within the bound for its dtype (shown as a share of it)",
        "checkpoint",
        f"completeness_error_max / {_by_dtype(COMPLETENESS_ERROR)}",
        (*KEY, "dtype", "completeness_error_max"),
        minimum=0,
        maximum=1,
    ),
    Rule(
        "lens_reads_the_model",
        "the lens after the last block agrees with the model's logits, within the bound for its dtype (shown as a "
        "share of it)",
        "checkpoint",
        f"lens_error_max / {_by_dtype(LENS_ERROR)}",
        (*KEY, "dtype", "lens_error_max"),
        minimum=0,
        maximum=1,
    ),
    Rule(
        "degenerate_share",
        f"at most {DEGENERATE_SHARE:.0%} of the sums are degenerate",
        "checkpoint",
        "degenerate_share",
        (*KEY, "degenerate_share"),
        minimum=0,
        maximum=DEGENERATE_SHARE,
    ),
    Rule(
        "degenerate_share_is_small",
        f"at most {DEGENERATE_SHARE_NOTABLE:.0%} of the sums are degenerate",
        "checkpoint",
        "degenerate_share",
        (*KEY, "degenerate_share"),
        maximum=DEGENERATE_SHARE_NOTABLE,
        severity="warn",
    ),
)
