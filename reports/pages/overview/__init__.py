"""The first page: headline numbers with their n, the claims, what was measured, how to read it and how to cite it."""

from collections.abc import Sequence

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, Page, Prose, Table, Terms, checkpoint_table, source_line
from timecourse.reports.pages.overview.claims import build_claims
from timecourse.reports.pages.overview.headlines import headlines
from timecourse.reports.pages.overview.provenance import citation, comparisons, measured, reference, versions
from timecourse.reports.pages.roles.counts import role_count_sql
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "index", "Overview"

_ROLE_DEFINITIONS = (
    ("general", "active on more than a share θ of all tokens"),
    ("entity", "active on more than θ of the subject tokens and the positions that predict the answer; not general"),
    ("relation answer", "active on more than θ of a relation's answer-predicting positions; not general, not entity"),
    ("fact answer", "active on more than θ of a single fact's answer-predicting positions; none of the above for it"),
    ("inactive", "none of these"),
)


def build(partition: Partition) -> Page:
    """The overview of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    source = source_line(partition)
    return Page(
        SLUG,
        TITLE,
        f"Which attention heads and feed-forward networks (FFNs) of {partition.series_id} carry factual knowledge"
        " at each checkpoint of its training, and how that changes.",
        [
            headlines(partition),
            _accuracy(partition, axis),
            _roles(partition, axis, source),
            *build_claims(partition),
            _role_counts(partition, source),
            measured(partition),
            *comparisons(partition),
            Terms("How to read the roles", _ROLE_DEFINITIONS),
            Prose(
                [
                    "A component is active for a token when a part of what it writes into the residual stream"
                    " survives τ on the route to that token. A component can hold several relation-answer and"
                    " fact-answer roles; its primary role is the first held in the order above, so that primary"
                    " roles are exclusive.",
                    "Relation answer and fact answer ask whether a component passes θ for any of many relations or"
                    " facts: their counts grow by chance alone with the number of relations and facts. Read them"
                    " as descriptions, not as evidence of specialisation.",
                ]
            ),
            reference(partition),
            versions(partition),
            citation(partition),
        ],
        axis,
    )


def _accuracy(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    sql = """select checkpoint_index, checkpoint_name, fact_count, prompt_count,
        top1_accuracy, top1_low, top1_high, top10_accuracy, top10_low, top10_high,
        all_tokens_accuracy, all_tokens_low, all_tokens_high
    from fct_relation_accuracies join checkpoints using (checkpoint_id)
    where scope_kind = 'all' order by checkpoint_index"""
    rows = partition.rows(sql)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "series": metric,
            "value": charts.rounded(row[f"{metric}_accuracy"]),
            "low": charts.rounded(row[f"{metric}_low"]),
            "high": charts.rounded(row[f"{metric}_high"]),
        }
        for metric in charts.METRIC_LABELS
        for row in rows
    ]
    caption = (
        f"At {partition.label_at(rows[-1]['checkpoint_index'])}: "
        + wording.listing(
            [f"{label} {wording.percent(rows[-1][f'{key}_accuracy'])}" for key, label in charts.METRIC_LABELS.items()]
        )
        + f", over {wording.count(rows[-1]['fact_count'], 'fact')}. Bands are 95 % Wilson intervals."
        if rows
        else ""
    )
    chart = charts.line_chart(
        axis, points, value_title="share of facts", colours=charts.METRIC_COLOURS, series_title="measure",
        value_format=".0%", domain=(0, 1), has_band=True,
    )  # fmt: skip
    return Figure(
        "accuracy",
        _accuracy_title(rows),
        "Share of facts whose first answer token is ranked first (top-1) or among the first ten (top-10), and"
        " whose answer tokens are all ranked first; mean over facts of the mean over templates.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(chart, caption) if rows else None,
        checkpoint_table(
            partition,
            "overview-accuracy",
            rows,
            [
                Column("fact_count", "Facts", "count"),
                *(
                    Column(f"{metric}_{part}", f"{label}{suffix}", "percent")
                    for metric, label in charts.METRIC_LABELS.items()
                    for part, suffix in (("accuracy", ""), ("low", ", low"), ("high", ", high"))
                ),
            ],
        ),
        legend=list(charts.METRIC_LABELS.items()),
        empty=None if rows else "No accuracies in this release.",
        is_half=True,
        query=partition.standalone(sql),
    )


def _accuracy_title(rows: Sequence[Row]) -> str:
    """What is found, where the intervals of the first and the last checkpoint lie apart."""
    if len(rows) < 2 or rows[-1]["all_tokens_low"] is None or rows[0]["all_tokens_high"] is None:
        return "Facts the model knows, over training"
    first, last = rows[0], rows[-1]
    numbers = f"from {wording.percent(first['all_tokens_accuracy'])} to {wording.percent(last['all_tokens_accuracy'])}"
    if last["all_tokens_low"] > first["all_tokens_high"]:
        return f"Facts are learned in training: {numbers} are known whole"
    if last["all_tokens_high"] < first["all_tokens_low"]:
        return f"Facts are lost in training: {numbers} are known whole"
    return "Facts the model knows, over training: no clear change"


def _roles(partition: Partition, axis: charts.TrainingAxis, source: str) -> Figure:
    sql = role_count_sql("head")
    has_mart = partition.has_mart("fct_role_counts")
    rows = partition.rows(sql) if has_mart else []
    points = [
        {"checkpoint_index": row["checkpoint_index"], "series": row["role"], "value": row["component_count"]}
        for row in rows
    ]
    caption = ""
    if rows:
        index = rows[-1]["checkpoint_index"]
        counts = [
            f"{row['component_count']:,} {wording.ROLE_LABELS[row['role']]}"
            for row in rows
            if row["checkpoint_index"] == index
        ]
        caption = (
            f"At {partition.label_at(index)}, of"
            f" {wording.kind_count(rows[-1]['kind_count'], 'head')}: {wording.listing(counts)}."
        )
    chart = charts.line_chart(
        axis, points, value_title="heads", colours=charts.ROLE_COLOURS, series_title="primary role", value_format="d"
    )
    return Figure(
        "roles",
        "Attention heads by primary role, over training",
        "Number of heads whose first held role, in the order of the legend, is this one.",
        caption,
        source,
        charts.specification(chart, caption) if rows else None,
        checkpoint_table(
            partition,
            "overview-roles",
            rows,
            [
                Column("role", "Primary role", "role"),
                Column("component_count", "Heads", "count"),
                Column("kind_count", "of", "count"),
            ],
        ),
        legend=list(wording.ROLE_LABELS.items()),
        empty=None if rows else "No counts of roles in this release.",
        is_half=True,
        query=partition.standalone(sql) if has_mart else None,
    )


def _role_counts(partition: Partition, source: str) -> Figure:
    last = len(partition.checkpoints) - 1
    indices = sorted({0, last // 2, last})
    labels = [partition.label_at(index) for index in indices]
    counts = ",\n        ".join(
        f"any_value(component_count) filter (where component_kind = '{kind}' and checkpoint_index = {index})"
        f" as {kind}_{index}"
        for kind in ("head", "ffn")
        for index in indices
    )
    sql = f"""select role,
        {counts}
    from fct_role_counts join checkpoints using (checkpoint_id)
    group by role order by list_position({list(charts.PRIMARY_ROLES)}, role)"""
    has_mart = partition.has_mart("fct_role_counts")
    rows = partition.rows(sql) if has_mart else []
    return Figure(
        "role-counts",
        f"Components by primary role at {wording.listing(labels)}",
        "The first, the middle and the last checkpoint measured."
        if len(indices) == 3
        else "Every checkpoint measured.",
        "",
        source,
        None,
        Table(
            "overview-role-counts",
            [
                Column("role", "Primary role", "role"),
                *(
                    Column(f"{kind}_{index}", f"{noun}, {label}", "count")
                    for kind, noun in (("head", "Heads"), ("ffn", "FFNs"))
                    for index, label in zip(indices, labels, strict=True)
                ),
            ],
            rows,
        )
        if rows
        else None,
        empty=None if rows else "No counts of roles in this release.",
        is_table_open=True,
        query=partition.standalone(sql) if has_mart else None,
    )
