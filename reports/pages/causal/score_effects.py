"""Whether attribution tells which components are needed: its rank correlation with what silencing each one does."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, source_line
from timecourse.reports.pages.causal.methods import SINGLE_METHOD, method_control, method_table
from timecourse.reports.partition import Partition, Row

_MEASURES = {
    "score": ("attribution score", "top1"),
    "rate": ("activity rate", "top10"),
    "c_direct": ("direct contribution", "all_tokens"),
}
"""Measure of fct_score_effects -> its name, and the swatch of the palette that it is drawn in."""

_SQL = f"""select checkpoint_index, checkpoint_name, method, component_kind, measure, component_count,
            rank_correlation
        from fct_score_effects join checkpoints using (checkpoint_id)
        order by method, component_kind desc, list_position({list(_MEASURES)}, measure), checkpoint_index"""


def score_rows(partition: Partition) -> list[Row]:
    """One row per method, kind, measure of attribution and ablated checkpoint."""
    return partition.rows(_SQL)


def scores(partition: Partition, axis: charts.TrainingAxis, rows: list[Row]) -> Figure:
    """The correlations by kind and measure, under a switch of their own."""
    control = method_control(SINGLE_METHOD, rows)
    defined = {row["component_kind"] for row in rows if row["rank_correlation"] is not None}
    caption = _caption(partition, rows, control.selected)
    chart = _chart(axis, [row for row in rows if row["component_kind"] in defined])
    parameters = [charts.bound(SINGLE_METHOD, control.selected)]
    return Figure(
        "scores",
        "Whether attribution tells which components are needed",
        "Spearman's rank correlation, over components, between what attribution says of a component and what silencing"
        " it alone does to the answers: −1 where the answers need a component the more the higher the measure, 0 where"
        " the two are unrelated; over few components it is far from 0 by chance. Measures, at the positions that"
        " predict the answers: mean attribution score, share of positions it is active for, and contribution before"
        " any threshold.",
        caption,
        source_line(partition, thetas=[]),
        charts.specification(chart, caption, parameters) if defined else None,
        method_table(
            partition,
            "causal-scores",
            rows,
            [
                Column("component_kind", "Kind", "kind"),
                Column("measure", "Measure"),
                Column("component_count", "Components", "count"),
                Column("rank_correlation", "Rank correlation", "decimal"),
            ],
            control,
        ),
        legend=[(key, name) for name, key in _MEASURES.values()] if defined else (),
        controls=[control],
        empty=None if defined else "No correlation is defined: too few components, or all alike.",
        query=partition.standalone(_SQL),
    )


def _chart(axis: charts.TrainingAxis, rows: list[Row]) -> alt.FacetChart:
    """One panel per kind, under the number of its components."""
    counts = {row["component_kind"]: row["component_count"] for row in rows}
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "method": row["method"],
            "measure": _MEASURES[row["measure"]][0],
            "panel": wording.kind_count(counts[row["component_kind"]], row["component_kind"]),
            "panel_index": list(wording.KIND_NOUNS).index(row["component_kind"]),
            "correlation": charts.rounded(row["rank_correlation"]),
        }
        for row in rows
    ]
    names = [name for name, _ in _MEASURES.values()]
    colours = [charts.METRIC_COLOURS[key] for _, key in _MEASURES.values()]
    value = alt.Y("correlation:Q", title="rank correlation", scale=alt.Scale(domain=[-1, 1]), axis=charts.zero_axis())
    panel = alt.Chart().encode(
        x=axis.x(),
        y=value,
        color=alt.Color("measure:N", legend=None, scale=alt.Scale(domain=names, range=colours)),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("panel:N", title="over"),
            alt.Tooltip("measure:N"),
            alt.Tooltip("correlation:Q", title="rank correlation", format=".3f"),
        ],
    )
    layers = [
        panel.mark_line(strokeWidth=2).encode(detail="line:N"),
        panel.mark_point(size=28, opacity=1),
        *axis.boundary_layers(),
    ]
    base = axis.base(points).transform_filter(f"datum.method == {SINGLE_METHOD}")
    chart = charts.small_multiples(base, layers, height=170)
    chart.spec.width = 400
    return chart


def _caption(partition: Partition, rows: list[Row], method: str) -> str:
    """The correlations at the last ablated checkpoint, by kind."""
    rows = [row for row in rows if row["method"] == method]
    last = max(row["checkpoint_index"] for row in rows)
    texts = []
    for kind in wording.KIND_NOUNS:
        found = [row for row in rows if row["checkpoint_index"] == last and row["component_kind"] == kind]
        if found:
            parts = [f"{_MEASURES[row['measure']][0]} {wording.signed(row['rank_correlation'])}" for row in found]
            texts.append(f"over {wording.kind_count(found[0]['component_count'], kind)} {wording.listing(parts)}")
    return f"At {partition.label_at(last)}, method {method}: {'; '.join(texts)}."
