"""What tells knowledge from a guess: an answer after its own subject, and after another subject of the relation."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import (
    Column,
    Figure,
    Table,
    at_last,
    checkpoint_table,
    interval_columns,
    last_label,
    source_line,
)
from timecourse.reports.partition import Partition, Row

_OWN, _OTHER = charts.METRIC_COLOURS["top1"], charts.KIND_COLOURS["ffn"]


def levels(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """The answers' log-probability after the own and after another subject, over all facts and by group."""
    sql = _sql("scope_kind <> 'relation'")
    rows = partition.rows(sql)
    last = _overall(at_last(partition, rows))
    caption = ""
    if last:
        caption = (
            f"At {last_label(partition)} the mean log-probability of the answer is"
            f" {_nats(last['mean_own_log_prob'])} after its own subject and"
            f" {_nats(last['mean_mismatched_log_prob'])} after another, over"
            f" {wording.count(last['gain_fact_count'], 'fact')} that"
            f" {'has' if last['gain_fact_count'] == 1 else 'have'} both."
        )
    return Figure(
        "levels",
        "How probable an answer is after its own subject, and after another",
        "Log-probability of the whole answer in nats, the sum over its tokens, mean over facts. The other subject is of"
        " a fact of the same relation with another answer. A model that knows how answers of a relation look, but not"
        " which belongs to whom, gives both the same; where it knows, the lines part. The interval of their difference"
        " stands in the next chart.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(_level_chart(axis, _points(rows)), caption) if rows else None,
        _table(partition, "knowledge-levels", "Group", rows),
        legend=[("top1", "after its own subject (solid)"), ("ffn", "after another subject (dashed)")] if rows else [],
        empty=None if rows else "No fact of this release has another subject to compare with.",
        query=partition.standalone(sql),
    )


def gains(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """How much more probable the own subject makes the answer, with its interval, by scope of the facts."""
    sql = _sql("true")
    rows = partition.rows(sql)
    last = _overall(at_last(partition, rows))
    caption = _gain_caption(partition, rows, last) if last else ""
    title = "How much more probable its own subject makes an answer"
    if last and (last["mean_log_prob_gain_low"] or 0) > 0:
        title = (
            f"At {last_label(partition)} its own subject makes an answer {_nats(last['mean_log_prob_gain'])} more"
            " probable than another does"
        )
    return Figure(
        "gain",
        title,
        "Difference in nats of the answer's log-probability after its own subject and after another of the relation,"
        " mean over facts; the band is the 95 % interval over facts (1.96 standard errors). The dashed line at 0 is a"
        " guess: there the subject makes no difference.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(_gain_chart(axis, _points(rows)), caption) if rows else None,
        _table(partition, "knowledge-gain", "Facts of", rows),
        empty=None if rows else "No fact of this release has another subject to compare with.",
        query=partition.standalone(sql),
    )


def _sql(condition: str) -> str:
    return f"""
        select checkpoint_index, checkpoint_name, scope_kind, scope_id, gain_fact_count, mean_own_log_prob,
            mean_mismatched_log_prob, mean_log_prob_gain, mean_log_prob_gain_low, mean_log_prob_gain_high,
            positive_gain_share
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where gain_fact_count > 0 and {condition}
        order by scope_kind, scope_id, checkpoint_index"""


def _points(rows: list[Row]) -> list[Row]:
    scopes = list(dict.fromkeys((row["scope_kind"], row["scope_id"]) for row in rows))
    return [
        {
            "checkpoint_index": row["checkpoint_index"],
            "panel": "all facts" if row["scope_kind"] == "all" else row["scope_id"],
            "panel_index": scopes.index((row["scope_kind"], row["scope_id"])),
            "facts": row["gain_fact_count"],
            "own": charts.rounded(row["mean_own_log_prob"]),
            "other": charts.rounded(row["mean_mismatched_log_prob"]),
            "gain": charts.rounded(row["mean_log_prob_gain"]),
            "low": charts.rounded(row["mean_log_prob_gain_low"]),
            "high": charts.rounded(row["mean_log_prob_gain_high"]),
            "positive": charts.rounded(row["positive_gain_share"]),
        }
        for row in rows
    ]


def _level_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    panel = alt.Chart().encode(x=axis.x())
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("panel:N", title="facts of"),
        alt.Tooltip("facts:Q", title="n"),
        alt.Tooltip("own:Q", format=".2f", title="own subject (nats)"),
        alt.Tooltip("other:Q", format=".2f", title="another subject (nats)"),
    ]
    layers = []
    for column, colour, dash in (("other", _OTHER, [4, 3]), ("own", _OWN, [1, 0])):
        value = alt.Y(f"{column}:Q", title="log-probability (nats)", axis=alt.Axis(tickCount=4))
        layers += [
            panel.mark_line(strokeWidth=2, color=colour, strokeDash=dash).encode(y=value, detail="line:N"),
            panel.mark_point(size=22, opacity=1, color=colour).encode(y=value, tooltip=tooltip),
        ]
    return charts.small_multiples(axis.base(points), [*layers, *axis.boundary_layers()], height=140)


def _gain_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    panel = alt.Chart().encode(x=axis.x())
    value = alt.Y("gain:Q", title="difference (nats)", axis=alt.Axis(tickCount=4))
    band = axis.band(panel).encode(
        color=alt.value(_OWN), y=alt.Y("low:Q", title="difference (nats)"), y2="high:Q", detail="line:N"
    )
    zero = alt.Y("max(zero):Q", title="difference (nats)")  # one line per panel, not one per row
    layers = [
        *([band] if any(point["low"] is not None for point in points) else []),
        charts.dashed_line(zero),
        panel.mark_line(strokeWidth=2, color=_OWN).encode(y=value, detail="line:N"),
        panel.mark_point(size=22, opacity=1, color=_OWN).encode(
            y=value,
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("panel:N", title="facts of"),
                alt.Tooltip("facts:Q", title="n"),
                alt.Tooltip("gain:Q", format=".2f", title="difference (nats)"),
                alt.Tooltip("low:Q", format=".2f", title="95 % low"),
                alt.Tooltip("high:Q", format=".2f", title="95 % high"),
                alt.Tooltip("positive:Q", format=".1%", title="facts with more"),
            ],
        ),
        *axis.boundary_layers(),
    ]
    return charts.small_multiples(axis.base(points).transform_calculate(zero="0"), layers, height=110)


def _overall(rows: list[Row]) -> Row | None:
    return next((row for row in rows if row["scope_kind"] == "all"), None)


def _gain_caption(partition: Partition, rows: list[Row], last: Row) -> str:
    relations = [row for row in at_last(partition, rows) if row["scope_kind"] == "relation"]
    known = sum((row["mean_log_prob_gain_low"] or 0) > 0 for row in relations)
    low, high = last["mean_log_prob_gain_low"], last["mean_log_prob_gain_high"]
    interval = (
        "no interval: fewer than 2 facts"
        if low is None
        else f"95 % interval {wording.signed(low)} to {wording.signed(high)}"
    )
    return (
        f"At {last_label(partition)} the difference is {_nats(last['mean_log_prob_gain'])} ({interval}, n ="
        f" {last['gain_fact_count']:,}), and its own subject makes the answer more probable for"
        f" {wording.percent(last['positive_gain_share'])} of the facts, where guessing gives about one half."
        f" The whole interval is above 0 in {known} of {wording.count(len(relations), 'relation')}."
    )


def _nats(value: float | None) -> str:
    return f"{wording.signed(value)}\u00a0nats"


def _table(partition: Partition, name: str, scope: str, rows: list[Row]) -> Table | None:
    return checkpoint_table(
        partition,
        name,
        rows,
        [
            Column("scope_id", scope),
            Column("gain_fact_count", "Facts with both", "count"),
            Column("mean_own_log_prob", "Own subject (nats)", "decimal"),
            Column("mean_mismatched_log_prob", "Another subject (nats)", "decimal"),
            *interval_columns("mean_log_prob_gain", "Difference (nats)"),
            Column("positive_gain_share", "Facts with more", "percent"),
        ],
    )
