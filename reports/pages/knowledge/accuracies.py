"""How many facts are recalled, over training: of each relation, group and all, and by the length of the answer."""

from collections.abc import Sequence

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, at_last, checkpoint_table, last_label, source_line
from timecourse.reports.partition import Partition, Row

_PARTS = ("accuracy", "low", "high")
_LENGTHS = {"1": "1 answer token", "2": "2 answer tokens", "3+": "3 or more answer tokens"}
_COLUMNS = """fact_count, prompt_count, top1_accuracy, top1_low, top1_high, top10_accuracy, top10_low, top10_high,
            all_tokens_accuracy, all_tokens_low, all_tokens_high, mean_log_prob"""


def measure_control() -> Control:
    """The switch of the measure that all charts of accuracies follow."""
    return Control("measure", "Measure of the accuracy charts", list(charts.METRIC_LABELS.items()), "top1")


def scope_accuracies(partition: Partition, axis: charts.TrainingAxis, measure: Control, is_relations: bool) -> Figure:
    """Accuracy of each relation, or of each group and of all facts, beside chance."""
    sql = f"""
        select checkpoint_index, checkpoint_name, scope_kind, scope_id, majority_share,
            {_COLUMNS}
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where scope_kind {"=" if is_relations else "<>"} 'relation'
        order by scope_kind, scope_id, checkpoint_index"""
    rows = partition.rows(sql)
    name = "relation-accuracy" if is_relations else "group-accuracy"
    panels = {
        (row["scope_kind"], row["scope_id"]): "all facts" if row["scope_kind"] == "all" else row["scope_id"]
        for row in rows
    }
    points = [
        _point(row, list(panels).index(scope), panels[scope])
        | {"majority_share": charts.rounded(row["majority_share"])}
        for row in rows
        for scope in [(row["scope_kind"], row["scope_id"])]
    ]
    caption = _relation_caption(partition, rows) if is_relations else _group_caption(partition, rows)
    return Figure(
        name,
        "Accuracy of each relation, over training" if is_relations else "Accuracy by group and overall, over training",
        "Share of facts answered, by the measure chosen above; the band is the 95 % Wilson interval."
        " The dashed line is chance: the majority answer's share, what always giving the relation's most frequent first"
        " answer token would score at top-1.",
        caption,
        source_line(partition, uses_tau=False),
        _chart(axis, points, caption, measure, has_chance=True) if rows else None,
        checkpoint_table(
            partition,
            f"knowledge-{name}",
            rows,
            [
                Column("scope_id", "Relation" if is_relations else "Group"),
                *_accuracy_columns(),
                Column("majority_share", "Majority answer's share", "percent"),
            ],
        ),
        empty=None if rows else "No accuracies in this release.",
        query=partition.standalone(sql),
    )


def length_accuracies(partition: Partition, axis: charts.TrainingAxis, measure: Control) -> Figure:
    """Accuracy by the number of tokens that the answer has."""
    sql = f"""
        select checkpoint_index, checkpoint_name, answer_tokens,
            {_COLUMNS}
        from fct_answer_length_accuracies join checkpoints using (checkpoint_id)
        order by answer_tokens, checkpoint_index"""
    has_mart = partition.has_mart("fct_answer_length_accuracies")
    rows = partition.rows(sql) if has_mart else []
    points = [_point(row, list(_LENGTHS).index(row["answer_tokens"]), _LENGTHS[row["answer_tokens"]]) for row in rows]
    caption = _length_caption(partition, rows)
    return Figure(
        "answer-accuracy",
        "Accuracy by the number of answer tokens, over training",
        "The same measures over facts whose answer has so many tokens. Top-1 and top-10 look at the first token only,"
        " which a long answer may share with others: there, choose all answer tokens. The band is the 95 % Wilson"
        " interval; chance is known by relation only.",
        caption,
        source_line(partition, uses_tau=False),
        _chart(axis, points, caption, measure, has_chance=False) if rows else None,
        checkpoint_table(
            partition,
            "knowledge-answer-accuracy",
            rows,
            [Column("answer_tokens", "Answer tokens"), *_accuracy_columns()],
        ),
        empty=None if rows else "No accuracies by the length of answers in this release.",
        query=partition.standalone(sql) if has_mart else None,
    )


def _point(row: Row, panel_index: int, panel: str) -> Row:
    return {
        "checkpoint_index": row["checkpoint_index"],
        "panel": panel,
        "panel_index": panel_index,
        "facts": row["fact_count"],
    } | {
        f"{metric}_{part}": charts.rounded(row[f"{metric}_{part}"])
        for metric in charts.METRIC_LABELS
        for part in _PARTS
    }


def _accuracy_columns() -> list[Column]:
    return [
        Column("fact_count", "Facts", "count"),
        *(
            Column(f"{metric}_{part}", f"{label}{suffix}", "percent")
            for metric, label in charts.METRIC_LABELS.items()
            for part, suffix in zip(_PARTS, ("", ", low", ", high"), strict=True)
        ),
        Column("mean_log_prob", "Mean log-probability (nats)", "decimal"),
    ]


def _chart(axis: charts.TrainingAxis, points: list[Row], caption: str, measure: Control, has_chance: bool) -> Row:
    base = axis.base(points)
    for part in _PARTS:
        base = base.transform_calculate(**{part: f"datum[{measure.control_id} + '_{part}']"})
    panel = alt.Chart().encode(x=axis.x())
    colour = charts.METRIC_COLOURS["top1"]
    value = alt.Y(
        "accuracy:Q", title="share of facts", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", tickCount=3)
    )
    low = alt.Y("low:Q", title="share of facts", scale=alt.Scale(domain=[0, 1]))
    majority = alt.Y("max(majority_share):Q", title="share of facts")  # the same at every checkpoint
    chance_tooltip = alt.Tooltip("majority_share:Q", format=".1%", title="majority answer")
    layers = [
        axis.band(panel).encode(color=alt.value(colour), y=low, y2="high:Q", detail="line:N"),
        *([charts.dashed_line(majority)] if has_chance else []),
        panel.mark_line(strokeWidth=2, color=colour).encode(y=value, detail="line:N"),
        panel.mark_point(size=22, opacity=1, color=colour).encode(
            y=value,
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("panel:N", title="facts of"),
                alt.Tooltip("facts:Q", title="n"),
                alt.Tooltip("accuracy:Q", format=".1%"),
                alt.Tooltip("low:Q", format=".1%", title="95 % low"),
                alt.Tooltip("high:Q", format=".1%", title="95 % high"),
                *([chance_tooltip] if has_chance else []),
            ],
        ),
        *axis.boundary_layers(),
    ]
    chart = charts.small_multiples(base, layers, height=110)
    return charts.specification(chart, caption, [charts.bound(measure.control_id, measure.selected)])


def _group_caption(partition: Partition, rows: Sequence[Row]) -> str:
    parts = [
        f"{'all facts' if row['scope_kind'] == 'all' else row['scope_id']} {_with_interval(row, 'top1')}"
        for row in at_last(partition, rows)
    ]
    return f"At {last_label(partition)}, top-1: {wording.listing(parts)}." if parts else ""


def _relation_caption(partition: Partition, rows: Sequence[Row]) -> str:
    last = at_last(partition, rows)
    if not last:
        return ""
    best, worst = max(last, key=_top1), min(last, key=_top1)
    at = f"At {last_label(partition)}, top-1"
    if len(last) == 1:
        return f"{at} of {best['scope_id']}: {_with_interval(best, 'top1')}."
    if _top1(best) == _top1(worst):
        return f"{at} is {wording.percent(_top1(best))} for each of {wording.count(len(last), 'relation')}."
    above = sum(_top1(row) > row["majority_share"] for row in last)
    certain = sum((row["top1_low"] or 0) > row["majority_share"] for row in last)
    return (
        f"{at} is highest for {best['scope_id']}, {_with_interval(best, 'top1')}, and lowest for {worst['scope_id']},"
        f" {_with_interval(worst, 'top1')}. It is above chance in {above} of"
        f" {wording.count(len(last), 'relation')}, with the whole interval in {certain}."
    )


def _length_caption(partition: Partition, rows: Sequence[Row]) -> str:
    parts = []
    for row in at_last(partition, rows):
        whole = "" if row["answer_tokens"] == "1" else f"; all tokens {_with_interval(row, 'all_tokens')}"
        parts.append(f"{_LENGTHS[row['answer_tokens']]}: top-1 {_with_interval(row, 'top1')}{whole}")
    return f"At {last_label(partition)}. {'. '.join(part.capitalize() for part in parts)}." if parts else ""


def _top1(row: Row) -> float:
    accuracy: float = row["top1_accuracy"]
    return accuracy


def _with_interval(row: Row, metric: str) -> str:
    """`98.1 % (95 % interval 96.0 % to 99.1 %, n = 320)`."""
    accuracy, low, high = (row[f"{metric}_{part}"] for part in _PARTS)
    return f"{wording.percent(accuracy)} ({wording.interval(low, high)}, n = {row['fact_count']:,})"
