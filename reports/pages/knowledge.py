"""What the model knows: accuracy by relation and group, convergence, the logit lens, and every fact."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Controls, Figure, Page, Table, place_columns, source_line
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "knowledge", "Knowledge"

_FACT_ROW_LIMIT = 3000
_LENS_CELL_LIMIT = 40_000
_MEASURE = "measure"
_LENS_RELATION, _LENS_VALUE = "lens_relation", "lens_value"


def build(partition: Partition) -> Page:
    """Accuracy, convergence, readouts and facts of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    measure = Control(_MEASURE, "Measure of the accuracy charts", list(charts.METRIC_LABELS.items()), "top1")
    return Page(
        SLUG,
        TITLE,
        "How many facts the model answers at each checkpoint, when each relation settles, and at which depth the answer"
        " can be read.",
        [
            Controls([measure]),
            _accuracies(partition, axis, ("all", "group")),
            _accuracies(partition, axis, ("relation",)),
            _convergences(partition, axis),
            _readouts(partition),
            _facts(partition),
        ],
        axis,
    )


def _accuracies(partition: Partition, axis: charts.TrainingAxis, kinds: tuple[str, ...]) -> Figure:
    rows = partition.rows(
        f"""select checkpoint_index, checkpoint_name, scope_kind, scope_id, fact_count, prompt_count,
            top1_accuracy, top1_low, top1_high, top10_accuracy, top10_low, top10_high,
            all_tokens_accuracy, all_tokens_low, all_tokens_high, mean_log_prob, majority_share
        from fct_relation_accuracies join checkpoints using (checkpoint_id)
        where list_contains({list(kinds)}, scope_kind) order by scope_kind, scope_id, checkpoint_index"""
    )
    is_relations = kinds == ("relation",)
    name = "relation-accuracy" if is_relations else "group-accuracy"
    panels = list(dict.fromkeys((row["scope_kind"], row["scope_id"]) for row in rows))
    titles = {(kind, scope): "all facts" if kind == "all" else scope for kind, scope in panels}
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "panel": titles[row["scope_kind"], row["scope_id"]],
            "panel_index": panels.index((row["scope_kind"], row["scope_id"])),
        }
        | {
            f"{metric}_{part}": charts.rounded(row[f"{metric}_{part}"])
            for metric in charts.METRIC_LABELS
            for part in ("accuracy", "low", "high")
        }
        | {"majority_share": charts.rounded(row["majority_share"]), "facts": row["fact_count"]}
        for row in rows
    ]
    caption = _accuracy_caption(partition, rows, is_relations)
    return Figure(
        name,
        "Accuracy of each relation, over training" if is_relations else "Accuracy by group and overall, over training",
        "Share of facts answered, by the measure chosen above; the band is the 95 % Wilson interval."
        " The dashed line is the majority answer's share: what always giving the most frequent first answer"
        " token would score at top-1.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(
            _accuracy_panels(axis, points),
            caption,
            [charts.bound(_MEASURE, "top1")],
        )
        if rows
        else None,
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
                    for part, suffix in (("accuracy", ""), ("low", ", low"), ("high", ", high"))
                ),
                Column("mean_log_prob", "Mean log-probability (nats)", "decimal"),
                Column("majority_share", "Majority answer's share", "percent"),
            ],
            partition.placed(rows),
        ),
        empty=None if rows else "No accuracies in this release.",
    )


def _accuracy_panels(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    base = axis.base(points)
    for part in ("accuracy", "low", "high"):
        base = base.transform_calculate(**{part: f"datum[{_MEASURE} + '_{part}']"})
    panel = alt.Chart().encode(x=axis.x())
    colour = charts.METRIC_COLOURS["top1"]
    value = alt.Y(
        "accuracy:Q", title="share of facts", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", tickCount=3)
    )
    low = alt.Y("low:Q", title="share of facts", scale=alt.Scale(domain=[0, 1]))
    majority = alt.Y("max(majority_share):Q", title="share of facts")  # the same at every checkpoint
    layers = [
        axis.band(panel).encode(color=alt.value(colour), y=low, y2="high:Q", detail="line:N"),
        alt.Chart().mark_rule(strokeDash=[4, 3], strokeWidth=1, color="#8a8f94").encode(y=majority),
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
                alt.Tooltip("majority_share:Q", format=".1%", title="majority answer"),
            ],
        ),
        *axis.boundary_layers(),
    ]
    return charts.small_multiples(base, layers, height=110)


def _accuracy_caption(partition: Partition, rows: list[Row], is_relations: bool) -> str:
    last = partition.checkpoints[-1]
    rows = [row for row in rows if row["checkpoint_index"] == last["checkpoint_index"]]
    if not rows:
        return ""
    at = f"At {partition.labels[last['checkpoint_id']]}"
    if not is_relations:
        parts = [
            f"{'all facts' if row['scope_kind'] == 'all' else row['scope_id']} {wording.percent(row['top1_accuracy'])}"
            f" (n = {row['fact_count']:,})"
            for row in rows
        ]
        return f"{at}, top-1: {wording.listing(parts)}."
    best = max(rows, key=lambda row: row["top1_accuracy"])
    worst = min(rows, key=lambda row: row["top1_accuracy"])
    if len(rows) == 1:
        return (
            f"{at}, top-1 of {best['scope_id']}: {wording.percent(best['top1_accuracy'])} (n = {best['fact_count']:,})."
        )
    if best["top1_accuracy"] == worst["top1_accuracy"]:
        relations = wording.count(len(rows), "relation")
        return f"{at}, top-1 is {wording.percent(best['top1_accuracy'])} for each of {relations}."
    above = sum(row["top1_accuracy"] > row["majority_share"] for row in rows)
    return (
        f"{at}, top-1 is highest for {best['scope_id']} ({wording.percent(best['top1_accuracy'])}, n ="
        f" {best['fact_count']:,}) and lowest for {worst['scope_id']} ({wording.percent(worst['top1_accuracy'])}, n ="
        f" {worst['fact_count']:,}); it is above the majority answer's share in {above} of"
        f" {wording.count(len(rows), 'relation')}."
    )


_CENSORING = {
    "none": "converged within the interval",
    "left": "already converged at the first checkpoint",
    "right": "not converged by the last checkpoint",
}


def _convergences(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    rows = partition.rows(
        """select relation_id, metric, censoring, final_fit, majority_share,
            earlier.checkpoint_name as previous_checkpoint, later.checkpoint_name as converged_checkpoint,
            previous_step, converged_step, converged_step_low, converged_step_high, censored_share, is_steady,
            earlier.checkpoint_index as from_checkpoint_index, later.checkpoint_index as checkpoint_index
        from fct_relation_convergences as convergences
        left join checkpoints as earlier on earlier.checkpoint_id = convergences.previous_checkpoint_id
        left join checkpoints as later on later.checkpoint_id = convergences.converged_checkpoint_id
        where fact_subset = 'all'
        order by relation_id, metric"""
    )
    last = len(partition.checkpoints) - 1
    points = []
    for row in rows:
        # A censored relation has no interval: its mark stands at the end that it was not seen to cross.
        end = last if row["from_checkpoint_index"] is None else row["from_checkpoint_index"]
        index = {"none": row["checkpoint_index"], "left": 0, "right": end}[row["censoring"]]
        start = row["from_checkpoint_index"] if row["censoring"] == "none" else index
        points.append(
            {
                "relation": row["relation_id"],
                "metric": charts.METRIC_LABELS[row["metric"]],
                "checkpoint_index": index,
                "from_checkpoint_index": index if start is None else start,
                "outcome": _CENSORING[row["censoring"]],
                "final_fit": charts.rounded(row["final_fit"]),
                "majority_share": charts.rounded(row["majority_share"]),
            }
        )
    top1 = [row for row in rows if row["metric"] == "top1"]
    totals = {key: sum(row["censoring"] == key for row in top1) for key in _CENSORING}
    caption = (
        f"Top-1: of {wording.count(len(top1), 'relation')}, {totals['none']} converged between two checkpoints,"
        f" {totals['left']} had already converged at the first and {totals['right']} had not by the last."
        " A bar is the interval in which convergence fell; a triangle marks a relation for which there is none."
    )
    return Figure(
        "convergence",
        "When each relation converges",
        "The first checkpoint at which the isotonic fit of the accuracy reaches 0.9 of its last value, as an"
        " interval: after the previous checkpoint, at the latest at this one. Not converged (right-censored): the"
        " last value does not beat the majority answer's share, or is only reached at the last checkpoint. The 95 %"
        " interval comes from draws of the relation's facts; it has no end (n/a) where more than 2.5 % of them do not"
        " converge. Steady: the same without the last checkpoint.",
        caption,
        source_line(partition, uses_tau=False),
        charts.specification(_convergence_chart(axis, points), caption) if rows else None,
        Table(
            "knowledge-convergence",
            [
                Column("relation_id", "Relation"),
                Column("metric", "Measure"),
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
        ),
        legend=[(key, charts.METRIC_LABELS[key]) for key in ("top1", "top10")],
        empty=None if rows else "No convergence in this release.",
    )


def _convergence_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.LayerChart | alt.FacetChart:
    metrics = [charts.METRIC_LABELS[key] for key in ("top1", "top10")]
    base = axis.interval_base(points).encode(
        x=axis.x(),
        y=alt.Y(
            "relation:N",
            title=None,
            axis=alt.Axis(labelLimit=120, labelPadding=12, grid=True, ticks=False, domain=False),
        ),
        yOffset=alt.YOffset("metric:N", sort=metrics),
        color=alt.Color(
            "metric:N",
            legend=None,
            scale=alt.Scale(domain=metrics, range=[charts.METRIC_COLOURS[key] for key in ("top1", "top10")]),
        ),
        tooltip=[
            alt.Tooltip("relation:N"),
            alt.Tooltip("metric:N", title="measure"),
            alt.Tooltip("outcome:N"),
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("final_fit:Q", format=".1%", title="last fitted accuracy"),
            alt.Tooltip("majority_share:Q", format=".1%", title="majority answer"),
        ],
    )
    outcomes = list(_CENSORING.values())
    shape = alt.Shape(
        "outcome:N",
        legend=None,
        scale=alt.Scale(domain=outcomes, range=["circle", "triangle-left", "triangle-right"]),
    )
    return alt.layer(
        base.mark_rule(strokeWidth=5, opacity=0.45).encode(x2=axis.x2()),
        base.mark_point(size=60, opacity=1).encode(shape=shape),
        *axis.boundary_layers(),
    ).properties(width="container", height=max(60, 28 * len({point["relation"] for point in points})))


def _readouts(partition: Partition) -> Figure:
    every = partition.rows(
        """select relation_id, checkpoint_index, checkpoint_name, readout, fact_count, top1_accuracy, top10_accuracy,
            median_rank
        from fct_layer_readouts join checkpoints using (checkpoint_id)
        order by relation_id, checkpoint_index, readout"""
    )
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
        .transform_filter(f"datum.relation == toNumber({_LENS_RELATION})")
        .transform_flatten(list(columns))
        .transform_calculate(share=f"datum[{_LENS_VALUE}]")
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
        charts.specification(chart, caption, [charts.bound(_LENS_RELATION, "0"), charts.bound(_LENS_VALUE, "top1")])
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
        ),
        controls=[
            Control(_LENS_RELATION, "Relation", [(str(n), relation) for relation, n in numbers.items()], "0"),
            Control(_LENS_VALUE, "Value", [("top1", "top-1"), ("top10", "top-10")], "top1"),
        ]
        if every
        else [],
        empty=None if every else "No logit-lens readouts in this release.",
    )


def _within_limit(partition: Partition, rows: list[Row]) -> tuple[list[Row], str]:
    """Rows of evenly spaced checkpoints, the last among them, so that the page stays small; and a note that says so."""
    stride = -(-len(rows) // _LENS_CELL_LIMIT) or 1
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


def _facts(partition: Partition) -> Figure:
    rows = partition.rows(
        """with seen as (
            select fact_id, min(checkpoint_index) filter (where is_known_top1) as first_index,
                count(*) filter (where is_known_top1) as known_count, count(*) as checkpoint_count
            from fct_fact_predictions join checkpoints using (checkpoint_id) group by fact_id
        ), latest as (
            from fct_fact_predictions join checkpoints using (checkpoint_id)
            where checkpoint_index = (select max(checkpoint_index) from checkpoints)
        )
        select dim_facts.relation_id, relation_group, subject, object, latest.is_known_top1, latest.is_known_top10,
            latest.is_known_all_tokens, latest.first_token_rank, latest.mean_first_token_log_prob, latest.mean_log_prob,
            earliest.checkpoint_name as first_known_checkpoint, earliest.step as first_known_step, known_count,
            seen.checkpoint_count, dim_facts.answer_token_count, dim_facts.template_count, dim_facts.fact_id
        from dim_facts left join latest using (fact_id) left join seen using (fact_id)
        left join checkpoints as earliest on earliest.checkpoint_index = seen.first_index
        order by dim_facts.relation_id, subject, dim_facts.fact_id"""
    )
    label = partition.labels[partition.checkpoints[-1]["checkpoint_id"]]
    known = sum(bool(row["is_known_top1"]) for row in rows)
    ever = sum(row["first_known_checkpoint"] is not None for row in rows)
    return Figure(
        "facts",
        f"Every fact: known at {label}, and known first",
        "Known: the first answer token is ranked first in at least half of the fact's prompts. Rank 0 is first;"
        " the rank is the median over prompts. Log-probabilities in nats.",
        f"{known:,} of {wording.count(len(rows), 'fact')} {'is' if known == 1 else 'are'} known at {label};"
        f" {ever:,} at some checkpoint.",
        source_line(partition, uses_tau=False),
        None,
        Table(
            "knowledge-facts",
            [
                Column("relation_id", "Relation"),
                Column("subject", "Subject"),
                Column("object", "Answer"),
                Column("is_known_top1", "Known", "flag"),
                Column("is_known_top10", "In top 10", "flag"),
                Column("is_known_all_tokens", "All tokens", "flag"),
                Column("first_token_rank", "Rank", "rank"),
                Column("mean_first_token_log_prob", "Log-prob., first token", "decimal"),
                Column("mean_log_prob", "Log-prob., answer", "decimal"),
                Column("first_known_checkpoint", "First known at"),
                Column("known_count", "Checkpoints where known", "count"),
            ],
            rows,
            is_searchable=True,
            row_limit=_FACT_ROW_LIMIT,
        ),
        is_table_open=True,
    )
