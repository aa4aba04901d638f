"""Every fact: when it is first known, from when on it stays known, and how many are at each checkpoint."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, Table, checkpoint_table, last_label, source_line
from timecourse.reports.partition import Partition, Row

_ROW_LIMIT = 3000
_LASTING = """
            select *, bool_and(is_known_top1) over (
                    partition by fact_id order by checkpoint_index rows between current row and unbounded following
                ) as is_lasting
            from fct_fact_predictions join checkpoints using (checkpoint_id)"""


def learning(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """How many facts are known at each checkpoint, and how many of them stay known up to the last."""
    sql = f"""
        select checkpoint_index, checkpoint_name, count(*) as fact_count,
            count(*) filter (where later.is_known_top1) as known_count,
            count(*) filter (where is_lasting) as lasting_count,
            count(*) filter (where later.is_known_top1 and not earlier.is_known_top1) as learned_count,
            count(*) filter (where earlier.is_known_top1 and not later.is_known_top1) as forgotten_count
        from ({_LASTING}
        ) as later
        join (select checkpoint_id, previous_checkpoint_id from dim_checkpoints) using (checkpoint_id)
        left join fct_fact_predictions as earlier
            on earlier.checkpoint_id = previous_checkpoint_id and earlier.fact_id = later.fact_id
        group by checkpoint_index, checkpoint_name
        order by checkpoint_index"""
    rows = partition.rows(sql)
    caption, title = "", "How many facts are known, and how many stay known"
    if rows:
        last = rows[-1]
        label = last_label(partition)
        title = (
            f"{last['known_count']:,} of {wording.count(last['fact_count'], 'fact')}"
            f" {'is' if last['known_count'] == 1 else 'are'} known at {label}"
        )
        lost = sum(row["forgotten_count"] or 0 for row in rows)
        before = rows[len(rows) // 2]
        caption = (
            f"Of {wording.count(last['fact_count'], 'fact')}, {last['known_count']:,}"
            f" {'is' if last['known_count'] == 1 else 'are'} known at {label}."
        )
        if len(rows) > 1:
            middle = partition.label_at(before["checkpoint_index"])
            caption += (
                f" Halfway, at {middle}, {before['known_count']:,} were, and {before['lasting_count']:,} of them at"
                f" every later checkpoint too. From one checkpoint to the next a fact was forgotten {lost:,}"
                f" time{'' if lost == 1 else 's'} in all."
            )
    return Figure(
        "learning",
        title,
        "Known: the first answer token is ranked first in at least half of the fact's prompts. Known from here on: at"
        " this checkpoint and at every later one; what lies between the lines is forgotten again. At the last"
        " checkpoint the lines meet, because nothing is seen of what comes after it.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(_learning_chart(axis, rows), caption) if rows else None,
        checkpoint_table(
            partition,
            "knowledge-learning",
            rows,
            [
                Column("fact_count", "Facts", "count"),
                Column("known_count", "Known", "count"),
                Column("lasting_count", "Known from here on", "count"),
                Column("learned_count", "Newly known", "count"),
                Column("forgotten_count", "Forgotten", "count"),
            ],
        ),
        legend=[("top1", "known (solid)"), ("top10", "known from here on (dashed)")] if rows else [],
        empty=None if rows else "No predictions in this release.",
        query=partition.standalone(sql),
    )


def _learning_chart(axis: charts.TrainingAxis, rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "known": row["known_count"],
            "lasting": row["lasting_count"],
            "facts": row["fact_count"],
        }
        for row in rows
    ]
    base = axis.base(points).encode(x=axis.x())
    scale = alt.Scale(domain=[0, max(row["fact_count"] for row in rows)])
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("known:Q", format=","),
        alt.Tooltip("lasting:Q", format=",", title="known from here on"),
        alt.Tooltip("facts:Q", format=",", title="n"),
    ]
    layers = []
    for column, colour, dash in (
        ("known", charts.METRIC_COLOURS["top1"], [1, 0]),
        ("lasting", charts.METRIC_COLOURS["top10"], [4, 3]),
    ):
        value = alt.Y(f"{column}:Q", title="facts", scale=scale, axis=alt.Axis(format=",d", tickCount=5))
        layers += [
            base.mark_line(strokeWidth=2, color=colour, strokeDash=dash).encode(y=value, detail="line:N"),
            base.mark_point(size=28, opacity=1, color=colour).encode(y=value, tooltip=tooltip),
        ]
    return alt.layer(*layers, *axis.boundary_layers()).properties(width="container", height=220)


def facts(partition: Partition) -> Figure:
    """The searchable table of facts."""
    sql = f"""
        select dim_facts.relation_id, relation_group, subject, object, latest.is_known_top1, latest.is_known_top10,
            latest.is_known_all_tokens, latest.first_token_rank, latest.mean_first_token_log_prob, latest.mean_log_prob,
            latest.mean_mismatched_log_prob, latest.log_prob_gain,
            earliest.checkpoint_name as first_known_checkpoint, earliest.step as first_known_step,
            lasting.checkpoint_name as known_since_checkpoint, lasting.step as known_since_step, known_count,
            checkpoint_count, answer_token_count, template_count, dim_facts.fact_id
        from dim_facts
        left join (
            from fct_fact_predictions join checkpoints using (checkpoint_id)
            where checkpoint_index = (select max(checkpoint_index) from checkpoints)
        ) as latest using (fact_id)
        left join (
            select fact_id, min(checkpoint_index) filter (where is_known_top1) as first_index,
                min(checkpoint_index) filter (where is_lasting) as lasting_index,
                count(*) filter (where is_known_top1) as known_count, count(*) as checkpoint_count
            from ({_LASTING}
            )
            group by fact_id
        ) using (fact_id)
        left join checkpoints as earliest on earliest.checkpoint_index = first_index
        left join checkpoints as lasting on lasting.checkpoint_index = lasting_index
        order by dim_facts.relation_id, subject, dim_facts.fact_id"""
    rows = partition.rows(sql)
    label = last_label(partition)
    known = sum(bool(row["is_known_top1"]) for row in rows)
    ever = sum(row["first_known_checkpoint"] is not None for row in rows)
    return Figure(
        "facts",
        "Every fact, and when it was learned",
        "Known: the first answer token is ranked first in at least half of the fact's prompts. Known since: the first"
        " checkpoint from which it is known at every later one too; n/a where it is not known at the last. Rank 0 is"
        " first; the rank is the median over prompts. Log-probabilities are in nats; the gain is how much more probable"
        f" the answer is than after another subject. All but the checkpoints is as of {label}.",
        f"{known:,} of {wording.count(len(rows), 'fact')} {'is' if known == 1 else 'are'} known at {label};"
        f" {ever:,} at some checkpoint." if rows else "",
        source_line(partition, uses_tau=False),
        None,
        Table(
            "knowledge-facts",
            [
                Column("relation_id", "Relation"),
                Column("subject", "Subject"),
                Column("object", "Answer"),
                Column("known_since_checkpoint", "Known since"),
                Column("first_known_checkpoint", "First known at"),
                Column("known_count", "Checkpoints where known", "count"),
                Column("is_known_top1", "Known", "flag"),
                Column("is_known_top10", "In top 10", "flag"),
                Column("is_known_all_tokens", "All tokens", "flag"),
                Column("first_token_rank", "Rank", "rank"),
                Column("mean_log_prob", "Log-prob.", "decimal"),
                Column("log_prob_gain", "Gain", "decimal"),
                Column("answer_token_count", "Answer tokens", "count"),
            ],
            rows,
            is_searchable=True,
            row_limit=_ROW_LIMIT,
        )
        if rows
        else None,
        empty=None if rows else "No facts in this release.",
        is_table_open=True,
        query=partition.standalone(sql),
    )  # fmt: skip
