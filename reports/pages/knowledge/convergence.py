"""When each relation converges: between which checkpoints, how sure that is, and where it has not been seen."""

import json

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Table, source_line
from timecourse.reports.partition import Partition, Row

_SUBSET = "convergence_facts"
_SUBSETS = {"all": "all facts", "single_token_unshared": "answers of one token that begins no other answer"}
_METRICS = ("top1", "top10")
_CENSORING = {
    "none": "converged between two checkpoints",
    "left": "already converged at the first checkpoint",
    "right": "not converged by the last checkpoint",
}


def convergences(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    """The interval in which each relation converged, its uncertainty and its censoring."""
    # The ends of an interval over draws are steps: the first checkpoint of a step is where they are drawn.
    sql = """
        select relation_id, fact_subset, metric, censoring, final_fit, majority_share,
            earlier.checkpoint_name as previous_checkpoint, later.checkpoint_name as converged_checkpoint,
            previous_step, converged_step, converged_step_low, converged_step_high, censored_share, is_steady,
            earlier.checkpoint_index as from_checkpoint_index, later.checkpoint_index as checkpoint_index,
            lows.checkpoint_index as low_checkpoint_index, highs.checkpoint_index as high_checkpoint_index
        from fct_relation_convergences as convergences
        left join checkpoints as earlier on earlier.checkpoint_id = convergences.previous_checkpoint_id
        left join checkpoints as later on later.checkpoint_id = convergences.converged_checkpoint_id
        left join (
            select cumulative_step, min(checkpoint_index) as checkpoint_index from dim_checkpoints group by all
        ) as lows on lows.cumulative_step = converged_step_low
        left join (
            select cumulative_step, min(checkpoint_index) as checkpoint_index from dim_checkpoints group by all
        ) as highs on highs.cumulative_step = converged_step_high
        order by fact_subset, metric, censoring = 'right', later.checkpoint_index nulls first,
            convergences.final_fit desc, relation_id"""
    rows = partition.rows(sql)
    relations = list(dict.fromkeys(row["relation_id"] for row in rows))
    subsets = [
        (subset, words) for subset, words in _SUBSETS.items() if any(row["fact_subset"] == subset for row in rows)
    ]
    top1 = [row for row in rows if row["fact_subset"] == "all" and row["metric"] == "top1"]
    caption = _caption(top1) if top1 else ""
    title = "When each relation converges"
    if top1:
        seen = sum(row["censoring"] != "right" for row in top1)
        verb = "has" if 1 in (seen, len(top1)) else "have"
        title = f"{seen} of {wording.count(len(top1), 'relation')} {verb} converged (top-1)"
    return Figure(
        "convergence",
        title,
        "The first checkpoint at which the isotonic fit of the accuracy reaches 0.9 of its last value. Thick bar: the"
        " interval in which that fell, after the previous checkpoint, at the latest at the marked one. Thin line: the"
        " 95 % interval over draws of the relation's facts, with an arrow where it has no end because more than 2.5 %"
        " of the draws do not converge. Triangle at the end: not converged (right-censored), because the last value"
        " does not beat the majority answer's share or is only reached at the last checkpoint. Triangle at the start:"
        " converged before it (left-censored). Open mark: without the last checkpoint the answer would be another.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(
            _chart(axis, rows, relations, len(partition.checkpoints) - 1), caption, [charts.bound(_SUBSET, "all")]
        )
        if rows
        else None,
        Table(
            "knowledge-convergence",
            [
                Column("relation_id", "Relation"),
                Column("metric", "Measure", "metric"),
                Column("censoring", "Censoring"),
                Column("previous_checkpoint", "After"),
                Column("converged_checkpoint", "At the latest at"),
                Column("previous_step", "After step", "count"),
                Column("converged_step", "At the latest at step", "count"),
                Column("converged_step_low", "From step (95 %)", "count"),
                Column("converged_step_high", "To step (95 %)", "count"),
                Column("censored_share", "Draws not converged", "percent"),
                Column("is_steady", "Steady", "flag"),
                Column("final_fit", "Last fitted accuracy", "percent"),
                Column("majority_share", "Majority answer's share", "percent"),
            ],
            rows,
            filter_control=_SUBSET,
            filter_key="fact_subset",
        )
        if rows
        else None,
        legend=[("top1", "top-1 (upper)"), ("top10", "top-10 (lower)")] if rows else [],
        controls=[Control(_SUBSET, "Facts", subsets, "all")] if rows else [],
        empty=None if rows else "No convergence in this release.",
        query=partition.standalone(sql),
    )


def _caption(top1: list[Row]) -> str:
    """What is censored, unsteady or without an end, in words; of top-1 over all facts."""
    relations = wording.count(len(top1), "relation")
    totals = {key: sum(row["censoring"] == key for row in top1) for key in _CENSORING}
    parts = [
        f"On top-1, of {relations}, {totals['none']} converged between two checkpoints, {totals['left']} had already"
        f" converged at the first and {totals['right']} had not by the last."
    ]
    unsteady = sum(row["is_steady"] is False for row in top1)
    if unsteady:
        parts.append(f"For {unsteady} of {relations} the last checkpoint makes the difference (open marks).")
    endless = [
        row["censored_share"]
        for row in top1
        if row["censored_share"] is not None and row["converged_step_high"] is None
    ]
    if endless:
        low, high = wording.percent(min(endless)), wording.percent(max(endless))
        shares = low if low == high else f"{low} to {high}"
        parts.append(
            f"For {len(endless)} the 95 % interval has no end: {shares} of the draws of facts do not converge."
        )
    return " ".join(parts)


def _chart(
    axis: charts.TrainingAxis, rows: list[Row], relations: list[str], last: int
) -> alt.LayerChart | alt.FacetChart:
    marks, intervals = [], []
    for row in rows:
        shared = {
            "relation": relations.index(row["relation_id"]),
            "metric": charts.METRIC_LABELS[row["metric"]],
            "subset": row["fact_subset"],
            "low": row["converged_step_low"],
            "high": row["converged_step_high"],
            "censored_share": charts.rounded(row["censored_share"]),
        }
        # What is censored was not seen to cross: its mark stands at that end.
        end = last if row["from_checkpoint_index"] is None else row["from_checkpoint_index"]
        index = {"none": row["checkpoint_index"], "left": 0, "right": end}[row["censoring"]]
        start = row["from_checkpoint_index"] if row["censoring"] == "none" else index
        marks.append(
            shared
            | {
                "checkpoint_index": index,
                "from_checkpoint_index": index if start is None else start,
                "outcome": _CENSORING[row["censoring"]],
                "open": row["is_steady"] is False,
                "final_fit": charts.rounded(row["final_fit"]),
                "majority_share": charts.rounded(row["majority_share"]),
            }
        )
        if row["low_checkpoint_index"] is not None:
            high = row["high_checkpoint_index"]
            intervals.append(
                shared
                | {
                    "checkpoint_index": last if high is None else high,
                    "from_checkpoint_index": row["low_checkpoint_index"],
                    "endless": high is None,
                }
            )
    names = json.dumps(relations)
    metrics = [charts.METRIC_LABELS[metric] for metric in _METRICS]

    def base(points: list[Row], *tooltip: alt.Tooltip) -> alt.Chart:
        return (
            axis.interval_base(points)
            .transform_filter(f"datum.subset == {_SUBSET}")
            .transform_calculate(name=f"{names}[datum.relation]")
            .encode(
                x=axis.x(),
                y=alt.Y(
                    "relation:O",
                    title=None,
                    scale=alt.Scale(domain=list(range(len(relations)))),
                    axis=alt.Axis(
                        labelExpr=f"{names}[datum.value]", labelLimit=120, labelPadding=12, grid=True, ticks=False,
                        domain=False,
                    ),
                ),
                yOffset=alt.YOffset("metric:N", scale=alt.Scale(domain=metrics)),
                color=alt.Color(
                    "metric:N",
                    legend=None,
                    scale=alt.Scale(domain=metrics, range=[charts.METRIC_COLOURS[metric] for metric in _METRICS]),
                ),
                tooltip=[alt.Tooltip("name:N", title="relation"), alt.Tooltip("metric:N", title="measure"), *tooltip],
            )
        )  # fmt: skip

    interval = base(
        intervals,
        alt.Tooltip("low:Q", title="95 % from step", format=","),
        alt.Tooltip("high:Q", title="to step", format=","),
        alt.Tooltip("censored_share:Q", title="draws not converged", format=".1%"),
    )
    mark = base(
        marks,
        alt.Tooltip("outcome:N"),
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("final_fit:Q", format=".1%", title="last fitted accuracy"),
        alt.Tooltip("majority_share:Q", format=".1%", title="majority answer"),
        alt.Tooltip("censored_share:Q", title="draws not converged", format=".1%"),
    )
    shape = alt.Shape(
        "outcome:N",
        legend=None,
        scale=alt.Scale(domain=list(_CENSORING.values()), range=["circle", "triangle-left", "triangle-right"]),
    )
    drawn_intervals = [
        interval.mark_rule(strokeWidth=1.5).encode(x2=axis.x2()),
        interval.transform_filter("datum.endless").mark_point(
            shape="M-1,-0.7L0,0L-1,0.7", filled=False, size=130, strokeWidth=1.5, opacity=1
        ),
    ]
    return alt.layer(
        *(drawn_intervals if intervals else []),
        mark.mark_rule(strokeWidth=6, opacity=0.45).encode(x2=axis.x2()),
        mark.transform_filter("!datum.open").mark_point(size=60, opacity=1).encode(shape=shape),
        mark.transform_filter("datum.open")
        .mark_point(size=60, opacity=1, filled=False, fill="#ffffff", strokeWidth=1.8)
        .encode(shape=shape),
        *axis.boundary_layers(),
    ).properties(width="container", height=max(60, 34 * len(relations)))
