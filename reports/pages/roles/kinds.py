"""Heads and FFNs at one τ, and where FFNs are held to a τ at which they are as often active as heads."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import (
    Column,
    Figure,
    Prose,
    at_last,
    checkpoint_table,
    interval_columns,
    last_label,
    source_line,
)
from timecourse.reports.partition import Partition, Row

_COMPARISONS = {
    "common_tau": "one τ for both",
    "matched_rate": "FFNs at a matched τ",
    "threshold_free": "without a threshold",
}
_NO_MART = "This release has no comparison of heads with FFNs."


def saturation(partition: Partition) -> Prose:
    """Why heads and FFNs are not comparable at one τ, and how it is here."""
    rows = partition.rows(
        """select component_kind, count(*) as total, count(*) filter (where primary_role = 'general') as general
        from fct_component_histories join checkpoints using (checkpoint_id)
        where checkpoint_id = (select max_by(checkpoint_id, checkpoint_index) from checkpoints where is_reference)
        group by component_kind order by component_kind desc"""
    )
    seen = [
        f"{row['general']:,} of {wording.kind_count(row['total'], row['component_kind'])}"
        f" {'is' if row['general'] == 1 else 'are'} general"
        for row in rows
    ]
    reference = partition.labels[partition.reference["checkpoint_id"]]
    explanation = (
        "In a parallel block the FFN is a part of the same sum as every head at every position, so it does not pass τ"
        " as a matter of course. It is still a single part, a head one part per position: heads and FFNs are not"
        " comparable. Nor are these roles with those of models with sequential blocks."
        if partition.series["block"] == "parallel"
        else "At one common τ, heads and FFNs are not comparable. An FFN is one of two parts of its sum, a head's write"
        " one of many (one per head and position), so an FFN is almost always above τ: FFNs that are all general are a"
        " ceiling of the measure, not a finding about FFNs."
    )
    return Prose(
        [
            explanation + (f" Here, at {reference}: {wording.listing(seen)}." if seen else ""),
            "The next two charts therefore set heads beside FFNs at a τ of their own, at which FFNs are as often active"
            " as heads at the reference, and without any threshold.",
        ],
        "Heads and FFNs at the same τ",
        is_caution=True,
    )


def activity_rates(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """How often each kind is active, at the common and at the matched τ."""
    sql = """
        select checkpoint_index, checkpoint_name, comparison, tau_head, tau_ffn, head_rate, ffn_rate, saturated_kinds
        from fct_kind_comparisons join checkpoints on checkpoint_id = to_checkpoint_id
        where tau_head is not null
        order by comparison, checkpoint_index, from_checkpoint_id"""
    rows = _rows(partition, sql)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "panel": f"{_COMPARISONS[row['comparison']]}: {row['tau_ffn']:.3g}",
            "panel_index": list(_COMPARISONS).index(row["comparison"]),
            "head": charts.rounded(row["head_rate"]),
            "ffn": charts.rounded(row["ffn_rate"]),
        }
        for row in rows
        if row["tau_ffn"] is not None
    ]
    caption = _rate_caption(partition, rows)
    return Figure(
        "rates",
        "How often heads and FFNs are active",
        "Share of component × position pairs at which the component's write exceeds τ, by kind. First both kinds are"
        " held to the τ of this report, then FFNs to the τ at which they are as often active as heads at the"
        " reference. Below 5 % or above 95 % (dashed) a kind is saturated: its roles say little. The scale is a"
        " square root, to tell low rates apart.",
        caption,
        source_line(partition),
        charts.specification(_rate_chart(axis, points), caption) if points else None,
        checkpoint_table(
            partition,
            "roles-rates",
            rows,
            [
                Column("comparison", "Comparison"),
                Column("tau_head", "τ of heads", "decimal"),
                Column("tau_ffn", "τ of FFNs", "decimal"),
                Column("head_rate", "Heads active", "percent"),
                Column("ffn_rate", "FFNs active", "percent"),
                Column("saturated_kinds", "Saturated"),
            ],
        ),
        legend=_legend() if points else [],
        empty=None if points else f"{_why_none(partition)} No rates to compare.",
        query=partition.standalone(sql) if rows else None,
    )


def differences(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """Which kind is the more stable, transition by transition, compared in three ways."""
    sql = """
        select checkpoint_index, checkpoint_name, comparison, head_value, ffn_value, difference, difference_low,
            difference_high, saturated_kinds
        from fct_kind_comparisons join checkpoints on checkpoint_id = to_checkpoint_id
        order by comparison, checkpoint_index, from_checkpoint_id"""
    rows = _rows(partition, sql)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "panel": _COMPARISONS[row["comparison"]],
            "panel_index": list(_COMPARISONS).index(row["comparison"]),
            "head": charts.rounded(row["head_value"]),
            "ffn": charts.rounded(row["ffn_value"]),
            "difference": charts.rounded(row["difference"]),
            "low": charts.rounded(row["difference_low"]),
            "high": charts.rounded(row["difference_high"]),
            "saturated": row["saturated_kinds"] or "none",
        }
        for row in rows
        if row["difference"] is not None
    ]
    caption = _difference_caption(rows)
    return Figure(
        "kind-differences",
        "Which are the more stable, heads or FFNs",
        "Above 0 FFNs change less from the checkpoint before to this one. By thresholds: turnover of heads less that of"
        " FFNs. Without a threshold: rank correlation of the contributions of FFNs less that of heads. Lines are 95 %"
        " intervals, with facts and layers drawn. An open mark: a kind is saturated there.",
        caption,
        source_line(partition),
        charts.specification(_difference_chart(axis, points), caption) if points else None,
        checkpoint_table(
            partition,
            "roles-kind-differences",
            rows,
            [
                Column("comparison", "Comparison"),
                Column("head_value", "Heads", "decimal"),
                Column("ffn_value", "FFNs", "decimal"),
                *interval_columns("difference", "Difference"),
                Column("saturated_kinds", "Saturated"),
            ],
        ),
        empty=None if points else f"{_why_none(partition)} No differences to show.",
        query=partition.standalone(sql) if rows else None,
    )


def _rows(partition: Partition, sql: str) -> list[Row]:
    return partition.rows(sql) if partition.has_mart("fct_kind_comparisons") else []


def _why_none(partition: Partition) -> str:
    if not partition.has_mart("fct_kind_comparisons"):
        return _NO_MART
    if len(partition.checkpoints) == 1:
        return "Kinds are compared from one checkpoint to the next, and there is one only."
    return "Kinds are compared where both are measured."


def _legend() -> list[tuple[str, str]]:
    return [("head", "heads (solid)"), ("ffn", "FFNs (dashed)")]


def _rate_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    base = axis.base(points).transform_calculate(floor="0.05", ceiling="0.95")
    panel = alt.Chart().encode(x=axis.x())
    scale = alt.Scale(domain=[0, 1], type="sqrt")
    ticks = alt.Axis(format=".0%", values=[0, 0.05, 0.25, 0.5, 0.95], labelOverlap=False)
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("head:Q", format=".1%", title="heads active"),
        alt.Tooltip("ffn:Q", format=".1%", title="FFNs active"),
    ]
    layers = [
        alt.Chart()
        .mark_rule(strokeDash=[2, 3], strokeWidth=1, color="#9aa1a8")
        .encode(y=alt.Y(f"max({limit}):Q", title="share active"))
        for limit in ("floor", "ceiling")
    ]
    for kind, dash in (("ffn", [4, 3]), ("head", [1, 0])):
        value = alt.Y(f"{kind}:Q", title="share active", scale=scale, axis=ticks)
        colour = charts.KIND_COLOURS[kind]
        layers += [
            panel.mark_line(strokeWidth=2, color=colour, strokeDash=dash).encode(y=value, detail="line:N"),
            panel.mark_point(size=22, opacity=1, color=colour).encode(y=value, tooltip=tooltip),
        ]
    return charts.small_multiples(base, [*layers, *axis.boundary_layers()], height=160)


def _difference_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    base = axis.base(points).transform_calculate(zero="0")
    panel = alt.Chart().encode(x=axis.x())
    colour = charts.KIND_COLOURS["head"]
    title = "difference"
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("difference:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f", title="95 % low"),
        alt.Tooltip("high:Q", format=".3f", title="95 % high"),
        alt.Tooltip("head:Q", format=".3f", title="heads"),
        alt.Tooltip("ffn:Q", format=".3f", title="FFNs"),
        alt.Tooltip("saturated:N", title="saturated"),
    ]
    # Stated, because a layer may be without rows: then no mark is open, or none closed.
    ends = [point[end] for point in points for end in ("low", "high", "difference") if point[end] is not None]
    scale = alt.Scale(domain=[min(0, *ends), max(0, *ends)], nice=True)
    value = alt.Y("difference:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5))
    layers = [
        charts.dashed_line(alt.Y("max(zero):Q", title=title, scale=scale)),
        panel.transform_filter("isValid(datum.low)")
        .mark_rule(color=colour, strokeWidth=1.5)
        .encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"),
        panel.transform_filter("datum.saturated == 'none'")
        .mark_point(size=40, opacity=1, color=colour)
        .encode(y=value, tooltip=tooltip),
        panel.transform_filter("datum.saturated != 'none'")
        .mark_point(size=40, opacity=1, filled=False, fill="#ffffff", stroke=colour, strokeWidth=1.6)
        .encode(y=value, tooltip=tooltip),
        *axis.boundary_layers(),
    ]
    return charts.small_multiples(base, layers, height=160)


def _rate_caption(partition: Partition, rows: list[Row]) -> str:
    parts = [
        f"with {_COMPARISONS[row['comparison']]} ({row['tau_ffn']:.3g}), heads are active at"
        f" {wording.percent(row['head_rate'])} and FFNs at {wording.percent(row['ffn_rate'])} of positions"
        for row in at_last(partition, rows)
        if row["tau_ffn"] is not None
    ]
    return f"At {last_label(partition)}, {'; '.join(parts)}." if parts else ""


def _difference_caption(rows: list[Row]) -> str:
    parts = []
    for comparison, words in _COMPARISONS.items():
        found = [row for row in rows if row["comparison"] == comparison and row["difference_low"] is not None]
        if found:
            ffns = sum(row["difference_low"] > 0 for row in found)
            heads = sum(row["difference_high"] < 0 for row in found)
            parts.append(f"{words}, FFNs in {ffns} and heads in {heads} of {wording.count(len(found), 'transition')}")
    if not parts:
        return ""
    return f"The more stable, with the whole interval on one side of 0, are {'; '.join(parts)}."
