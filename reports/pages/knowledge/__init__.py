"""What the model knows: accuracy by relation, group and kind of answer, convergence, the logit lens and the facts."""

from collections.abc import Mapping, Sequence

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import (
    Column,
    Control,
    Controls,
    Figure,
    Page,
    Table,
    at_last,
    last_label,
    place_columns,
    source_line,
)
from timecourse.reports.pages.knowledge.convergence import convergences
from timecourse.reports.pages.knowledge.facts import facts, learning
from timecourse.reports.pages.knowledge.guessing import gains, levels
from timecourse.reports.pages.knowledge.readouts import readouts
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "knowledge", "Knowledge"

_MEASURE = "measure"
_PARTS = ("accuracy", "low", "high")


def build(partition: Partition) -> Page:
    """Accuracy, knowledge against guessing, convergence, readouts and facts of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    measure = Control(_MEASURE, "Measure of the accuracy charts", list(charts.METRIC_LABELS.items()), "top1")
    return Page(
        SLUG,
        TITLE,
        "How many facts the model answers at each checkpoint, whether it knows or guesses, when each relation settles,"
        " and at which depth the answer can be read.",
        [
            Controls([measure]),
            _scope_accuracies(partition, axis, is_relations=False),
            _scope_accuracies(partition, axis, is_relations=True),
            _answer_accuracies(partition, axis),
            levels(partition, axis),
            gains(partition, axis),
            convergences(partition, axis),
            readouts(partition),
            learning(partition, axis),
            facts(partition),
        ],
        axis,
    )


def _scope_accuracies(partition: Partition, axis: charts.TrainingAxis, is_relations: bool) -> Figure:
    sql = f"""
        select checkpoint_index, checkpoint_name, scope_kind, scope_id, fact_count, prompt_count,
            top1_accuracy, top1_low, top1_high, top10_accuracy, top10_low, top10_high,
            all_tokens_accuracy, all_tokens_low, all_tokens_high, mean_log_prob, majority_share
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where scope_kind {"=" if is_relations else "<>"} 'relation'
        order by scope_kind, scope_id, checkpoint_index"""
    rows = partition.rows(sql)
    name = "relation-accuracy" if is_relations else "group-accuracy"
    scopes = list(dict.fromkeys((row["scope_kind"], row["scope_id"]) for row in rows))
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "panel": "all facts" if row["scope_kind"] == "all" else row["scope_id"],
            "panel_index": scopes.index((row["scope_kind"], row["scope_id"])),
            "majority_share": charts.rounded(row["majority_share"]),
            "facts": row["fact_count"],
        }
        | {f"{metric}_{part}": charts.rounded(row[f"{metric}_{part}"]) for metric in charts.METRIC_LABELS
           for part in _PARTS}
        for row in rows
    ]  # fmt: skip
    caption = _relation_caption(partition, rows) if is_relations else _group_caption(partition, rows)
    return Figure(
        name,
        "Accuracy of each relation, over training" if is_relations else "Accuracy by group and overall, over training",
        "Share of facts answered, by the measure chosen above; the band is the 95 % Wilson interval."
        " The dashed line is chance: the majority answer's share, what always giving the relation's most frequent first"
        " answer token would score at top-1.",
        caption,
        source_line(partition, uses_tau=False),
        _accuracy_chart(axis, points, caption, has_chance=True) if rows else None,
        Table(
            f"knowledge-{name}",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("scope_id", "Relation" if is_relations else "Group"),
                Column("fact_count", "Facts", "count"),
                *(
                    Column(f"{metric}_{part}", f"{label}{suffix}", "percent")
                    for metric, label in charts.METRIC_LABELS.items()
                    for part, suffix in zip(_PARTS, ("", ", low", ", high"), strict=True)
                ),
                Column("mean_log_prob", "Mean log-probability (nats)", "decimal"),
                Column("majority_share", "Majority answer's share", "percent"),
            ],
            partition.placed(rows),
        )
        if rows
        else None,
        empty=None if rows else "No accuracies in this release.",
        query=partition.standalone(sql),
    )


def _answer_accuracies(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    # Effective n and interval as in fct_relation_accuracies; a test holds the two equal.
    sql = """
        select checkpoint_index, checkpoint_name, answer_tokens, metric, fact_count, prompt_count, accuracy,
            case when fact_count > 1 then greatest(0, (accuracy + z2 / (2 * n) - sqrt(z2) * error) / (1 + z2 / n)) end
                as low,
            case when fact_count > 1 then least(1, (accuracy + z2 / (2 * n) + sqrt(z2) * error) / (1 + z2 / n)) end
                as high
        from (
            select *, 1.959963984540054::double ** 2 as z2,
                if(variance > 0, greatest(fact_count, least(prompt_count, fact_count * binomial / variance)),
                    fact_count)::double as n,
                sqrt(binomial / n + z2 / (4 * n * n)) as error
            from (
                select checkpoint_id, least(answer_token_count, 3) as answer_tokens, metric,
                    count(*) as fact_count, sum(prompt_count)::integer as prompt_count,
                    round(avg(share::decimal(38, 12)), 9) as accuracy, round(var_samp(share), 9) as variance,
                    accuracy * (1 - accuracy) as binomial
                from (
                    select checkpoint_id, fact_id, prompt_count, unnest(['top1', 'top10', 'all_tokens']) as metric,
                        unnest([top1_share, top10_share, all_tokens_top1_share]) as share
                    from fct_fact_predictions
                ) join dim_facts using (fact_id)
                group by all
            )
        ) join checkpoints using (checkpoint_id)
        order by answer_tokens, checkpoint_index, metric"""
    rows = partition.rows(sql)
    names = {1: "1 answer token", 2: "2 answer tokens", 3: "3 or more answer tokens"}
    points: dict[tuple[int, int], Row] = {}
    for row in rows:
        point = points.setdefault(
            (row["answer_tokens"], row["checkpoint_index"]),
            {
                "checkpoint_index": row["checkpoint_index"],
                "panel": names[row["answer_tokens"]],
                "panel_index": row["answer_tokens"],
                "facts": row["fact_count"],
            },
        )
        point |= {f"{row['metric']}_{part}": charts.rounded(row[part]) for part in _PARTS}
    caption = _answer_caption(partition, rows, names)
    return Figure(
        "answer-accuracy",
        "Accuracy by the number of answer tokens, over training",
        "The same measures over facts whose answer has so many tokens. Top-1 and top-10 look at the first token only,"
        " which a long answer may share with others: there, choose all answer tokens. The band is the 95 % Wilson"
        " interval; chance is known by relation only.",
        caption,
        source_line(partition, uses_tau=False),
        _accuracy_chart(axis, list(points.values()), caption, has_chance=False) if rows else None,
        Table(
            "knowledge-answer-accuracy",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("answer_tokens", "Answer tokens (3: or more)", "count"),
                Column("metric", "Measure", "metric"),
                Column("fact_count", "Facts", "count"),
                Column("accuracy", "Accuracy", "percent"),
                Column("low", "low", "percent"),
                Column("high", "high", "percent"),
            ],
            partition.placed(rows),
        )
        if rows
        else None,
        empty=None if rows else "No predictions in this release.",
        query=partition.standalone(sql),
    )


def _accuracy_chart(axis: charts.TrainingAxis, points: list[Row], caption: str, has_chance: bool) -> Row:
    base = axis.base(points)
    for part in _PARTS:
        base = base.transform_calculate(**{part: f"datum[{_MEASURE} + '_{part}']"})
    panel = alt.Chart().encode(x=axis.x())
    colour = charts.METRIC_COLOURS["top1"]
    value = alt.Y(
        "accuracy:Q", title="share of facts", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", tickCount=3)
    )
    low = alt.Y("low:Q", title="share of facts", scale=alt.Scale(domain=[0, 1]))
    majority = alt.Y("max(majority_share):Q", title="share of facts")  # the same at every checkpoint
    chance = alt.Chart().mark_rule(strokeDash=[4, 3], strokeWidth=1, color="#8a8f94").encode(y=majority)
    chance_tooltip = alt.Tooltip("majority_share:Q", format=".1%", title="majority answer")
    layers = [
        axis.band(panel).encode(color=alt.value(colour), y=low, y2="high:Q", detail="line:N"),
        *([chance] if has_chance else []),
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
    return charts.specification(chart, caption, [charts.bound(_MEASURE, "top1")])


def _group_caption(partition: Partition, rows: Sequence[Row]) -> str:
    parts = [
        f"{'all facts' if row['scope_kind'] == 'all' else row['scope_id']} {_with_interval(row, 'top1_')}"
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
        return f"{at} of {best['scope_id']}: {_with_interval(best, 'top1_')}."
    if _top1(best) == _top1(worst):
        return f"{at} is {wording.percent(_top1(best))} for each of {wording.count(len(last), 'relation')}."
    above = sum(_top1(row) > row["majority_share"] for row in last)
    certain = sum((row["top1_low"] or 0) > row["majority_share"] for row in last)
    return (
        f"{at} is highest for {best['scope_id']}, {_with_interval(best, 'top1_')}, and lowest for {worst['scope_id']},"
        f" {_with_interval(worst, 'top1_')}. It is above chance in {above} of"
        f" {wording.count(len(last), 'relation')}, with the whole interval in {certain}."
    )


def _answer_caption(partition: Partition, rows: Sequence[Row], names: Mapping[int, str]) -> str:
    last = at_last(partition, rows)
    parts = []
    for tokens, name in names.items():
        found = {row["metric"]: row for row in last if row["answer_tokens"] == tokens}
        if found:
            whole = "" if tokens == 1 else f"; all tokens {_with_interval(found['all_tokens'])}"
            parts.append(f"{name}: top-1 {_with_interval(found['top1'])}{whole}")
    return f"At {last_label(partition)}. {'. '.join(part.capitalize() for part in parts)}." if parts else ""


def _top1(row: Row) -> float:
    accuracy: float = row["top1_accuracy"]
    return accuracy


def _with_interval(row: Row, prefix: str = "") -> str:
    """`98.1 % (95 % interval 96.0 % to 99.1 %, n = 320)`."""
    accuracy, low, high = (row[f"{prefix}{part}"] for part in _PARTS)
    return f"{wording.percent(accuracy)} ({wording.interval(low, high)}, n = {row['fact_count']:,})"
