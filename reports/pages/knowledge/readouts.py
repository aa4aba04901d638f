"""The logit lens: at which depth of the model the answer can be read, over training."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Table, place_columns, source_line
from timecourse.reports.partition import Partition, Row

_CELL_LIMIT = 40_000
_RELATION, _VALUE = "lens_relation", "lens_value"


def readouts(partition: Partition) -> Figure:
    """The share of facts whose answer is read off after each block, at each checkpoint, for a relation at choice."""
    sql = """
        select relation_id, checkpoint_index, checkpoint_name, readout, fact_count, top1_accuracy, top10_accuracy,
            median_rank
        from fct_layer_readouts join checkpoints using (checkpoint_id)
        order by relation_id, checkpoint_index, readout"""
    every = partition.rows(sql)
    relations = sorted({row["relation_id"] for row in every})
    shown, note = _within_limit(partition, every)
    output = max((row["readout"] for row in every), default=0)
    numbers = {relation: number for number, relation in enumerate(relations)}
    columns = {"checkpoint_index": "checkpoint_index", "readout": "readout", "top1": "top1_accuracy",
               "top10": "top10_accuracy", "rank": "median_rank"}  # fmt: skip
    # One row of lists per relation, spread out by the chart: a third of the bytes of one object per cell.
    lists: list[Row] = [{"relation": number} | {name: [] for name in columns} for number in numbers.values()]
    for row in shown:
        for name, column in columns.items():
            lists[numbers[row["relation_id"]]][name].append(charts.rounded(row[column]))
    caption = _readout_caption(partition, every, output) + note
    chart = (
        charts.chart_of(lists)
        .transform_filter(f"datum.relation == toNumber({_RELATION})")
        .transform_flatten(list(columns))
        .transform_calculate(share=f"datum[{_VALUE}]")
        .mark_rect()
        .encode(
            x=charts.checkpoint_columns(partition.checkpoints),
            y=alt.Y(
                "readout:O",
                sort="descending",
                title="read after block",
                axis=alt.Axis(
                    labelExpr=f"datum.value == -1 ? 'embeddings' : datum.value == {output} ? 'output' : datum.value",
                    ticks=False,
                    domain=False,
                    labelOverlap="greedy",
                ),
            ),
            color=alt.Color(
                "share:Q",
                title="share of facts",
                scale=alt.Scale(domain=[0, 1], range=charts.SEQUENTIAL),
                legend=alt.Legend(format=".0%", orient="top", gradientLength=160, gradientThickness=10),
            ),
            tooltip=[
                alt.Tooltip("readout:Q", title="read after block (-1: embeddings)"),
                alt.Tooltip("top1:Q", format=".1%", title="top-1"),
                alt.Tooltip("top10:Q", format=".1%", title="top-10"),
                alt.Tooltip("rank:Q", format=",.1f", title="median rank (0 is first)"),
            ],
        )
        .properties(width="container", height=max(160, 14 * (output + 2)))
    )
    return Figure(
        "lens",
        "At which depth the answer can be read",
        "Logit lens: the model's own final norm and unembedding applied after each block, at the position that"
        " predicts the first answer token. Share of the relation's facts whose answer is ranked first or among the"
        " first ten.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(chart, caption, [charts.bound(_RELATION, "0"), charts.bound(_VALUE, "top1")])
        if every
        else None,
        Table(
            "knowledge-lens",
            [
                Column("relation_id", "Relation"),
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("readout", "Read after block", "count"),
                Column("fact_count", "Facts", "count"),
                Column("top1_accuracy", "Top-1", "percent"),
                Column("top10_accuracy", "Top-10", "percent"),
                Column("median_rank", "Median rank", "rank"),
            ],
            partition.placed(every),
        )
        if every
        else None,
        controls=[
            Control(_RELATION, "Relation", [(str(n), relation) for relation, n in numbers.items()], "0"),
            Control(_VALUE, "Value", [("top1", "top-1"), ("top10", "top-10")], "top1"),
        ]
        if every
        else [],
        empty=None if every else "No logit-lens readouts in this release.",
        query=partition.standalone(sql),
    )


def _within_limit(partition: Partition, rows: list[Row]) -> tuple[list[Row], str]:
    """Rows of evenly spaced checkpoints, the last among them, so that the page stays small; and a note that says so."""
    stride = -(-len(rows) // _CELL_LIMIT) or 1
    last = len(partition.checkpoints) - 1
    kept = [row for row in rows if (last - row["checkpoint_index"]) % stride == 0]
    note = "" if stride == 1 else f" The chart shows one checkpoint in {stride}; the CSV file holds all."
    return kept, note


def _readout_caption(partition: Partition, rows: list[Row], output: int) -> str:
    last = partition.checkpoints[-1]
    if not rows:
        return ""
    first = rows[0]["relation_id"]
    final = [row for row in rows if row["checkpoint_index"] == last["checkpoint_index"] and row["relation_id"] == first]
    end = next(row for row in final if row["readout"] == output)
    middle = next(row for row in final if row["readout"] == output // 2)
    return (
        f"{end['relation_id']} at {partition.labels[last['checkpoint_id']]}: top-1"
        f" {wording.percent(middle['top1_accuracy'])} after block {middle['readout']},"
        f" {wording.percent(end['top1_accuracy'])} at the output (n = {end['fact_count']:,})."
    )
