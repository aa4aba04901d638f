"""How many components have each primary role at each checkpoint, and what share of them that is."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, checkpoint_table, source_line
from timecourse.reports.partition import Partition, Row


def role_count_sql(kind: str) -> str:
    """Components of a kind by primary role: one row per checkpoint and role, in their orders."""
    return f"""
        select checkpoint_index, checkpoint_name, role, component_count, component_count_low, component_count_high,
            kind_count, component_share
        from fct_role_counts join checkpoints using (checkpoint_id)
        where component_kind = '{kind}'
        order by checkpoint_index, list_position({list(charts.PRIMARY_ROLES)}, role)"""


def counts(partition: Partition, axis: charts.TrainingAxis, kind: str) -> Figure:
    """The numbers of components by primary role, with the intervals of general and entity."""
    noun = wording.KIND_NOUNS[kind][1]
    rows = _rows(partition, kind)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "series": row["role"],
            "value": row["component_count"],
            "low": charts.rounded(row["component_count_low"]),
            "high": charts.rounded(row["component_count_high"]),
            "interval": _interval(row) or wording.NOT_AVAILABLE,
        }
        for row in rows
    ]
    base = axis.base(points).encode(x=axis.x(), color=charts.role_colour("series"))
    # Stated, because the band may be without rows.
    scale = alt.Scale(domain=[0, max([1, *(point["high"] or point["value"] for point in points)])], nice=True)
    value = alt.Y("value:Q", title=noun, scale=scale, axis=charts.count_axis(5))
    name = charts.role_name_expression("datum.series")
    band = base.transform_filter("isValid(datum.low)")
    layers = [
        axis.band(band).encode(y=alt.Y("low:Q", title=noun, scale=scale), y2="high:Q", detail="line:N"),
        base.mark_line(strokeWidth=2).encode(y=value, detail="line:N"),
        base.transform_calculate(role=name)
        .mark_point(size=28, opacity=1)
        .encode(
            y=value,
            tooltip=[
                alt.Tooltip("checkpoint:N"),
                alt.Tooltip("role:N", title="primary role"),
                alt.Tooltip("value:Q", title=noun),
                alt.Tooltip("interval:N", title="95 % interval"),
            ],
        ),
        *axis.boundary_layers(),
    ]
    return _figure(
        partition,
        kind,
        "counts",
        rows,
        f"Number of {noun} whose first held role, in the order of the legend, is this one. The bands are 95 % intervals"
        " under draws of the facts; only general and entity have one over all facts.",
        alt.layer(*layers),
    )


def shares(partition: Partition, axis: charts.TrainingAxis, kind: str) -> Figure:
    """The same as shares of all components of the kind, on one another."""
    noun = wording.KIND_NOUNS[kind][1]
    rows = _rows(partition, kind)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "role": row["role"],
            "order": charts.PRIMARY_ROLES.index(row["role"]),
            "share": charts.rounded(row["component_share"]),
            "components": row["component_count"],
        }
        for row in rows
    ]
    base = axis.base(points)
    # An area needs two points, and areas of siblings would lie on one another: there every checkpoint is a bar.
    is_area = axis.has_one_line and len(partition.checkpoints) > 1
    bar_size = 60 if len(partition.checkpoints) == 1 else alt.Undefined
    mark = base.mark_area(line=False, opacity=0.92) if is_area else base.mark_bar(size=bar_size)
    share = mark.encode(
        x=axis.x() if axis.has_one_line else charts.checkpoint_columns(partition.checkpoints),
        y=alt.Y("share:Q", title=f"share of {noun}", stack="zero", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5)),
        color=charts.role_colour("role"),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("role:N", title="primary role")]
        + ([] if is_area else [alt.Tooltip("checkpoint:N"), alt.Tooltip("share:Q", format=".1%")]),
    )  # fmt: skip
    return _figure(
        partition,
        kind,
        "shares",
        rows,
        f"Share of all {noun}; every one has exactly one primary role, so the shares sum to 1. From the bottom: the"
        " order of the legend.",
        alt.layer(share, *(axis.boundary_layers() if is_area else [])),
    )


def _rows(partition: Partition, kind: str) -> list[Row]:
    return partition.rows(role_count_sql(kind)) if partition.has_mart("fct_role_counts") else []


def _figure(
    partition: Partition,
    kind: str,
    name: str,
    rows: list[Row],
    definition: str,
    chart: alt.LayerChart | alt.FacetChart,
) -> Figure:
    """A figure of both: `name` is `counts` or `shares`."""
    noun = {"head": "Heads", "ffn": "FFNs"}[kind]
    caption = _caption(partition, rows, kind, as_share=name == "shares") if rows else ""
    return Figure(
        f"{name}-{kind}",
        f"{noun} by primary role: {name}",
        definition,
        caption,
        source_line(partition),
        charts.specification(chart.properties(width="container", height=220), caption) if rows else None,
        checkpoint_table(
            partition,
            f"roles-{name}-{kind}",
            rows,
            [
                Column("role", "Primary role", "role"),
                Column("component_count", noun, "count"),
                Column("component_count_low", "low (95 %)", "rank"),
                Column("component_count_high", "high (95 %)", "rank"),
                Column("kind_count", "of", "count"),
                Column("component_share", "Share", "percent"),
            ],
        ),
        legend=list(wording.ROLE_LABELS.items()) if rows else [],
        empty=None if rows else f"This release holds no counts of roles of {wording.KIND_NOUNS[kind][1]}.",
        is_half=True,
        query=partition.standalone(role_count_sql(kind)) if partition.has_mart("fct_role_counts") else None,
    )


def _interval(row: Row) -> str:
    """`11.3 to 14.7`; nothing where there is none."""
    low, high = row["component_count_low"], row["component_count_high"]
    return "" if low is None else f"{low:,.1f} to {high:,.1f}"


def _caption(partition: Partition, rows: list[Row], kind: str, as_share: bool) -> str:
    """The counts or shares at the first and the last checkpoint."""
    parts = []
    for index in sorted({rows[0]["checkpoint_index"], rows[-1]["checkpoint_index"]}):
        numbers = []
        for row in (row for row in rows if row["checkpoint_index"] == index):
            interval = f" ({_interval(row)})" if _interval(row) and not as_share else ""
            number = wording.percent(row["component_share"]) if as_share else f"{row['component_count']:,}"
            numbers.append(f"{number} {wording.ROLE_LABELS[row['role']]}{interval}")
        parts.append(f"{partition.label_at(index)}: {wording.listing(numbers)}")
    brackets = "" if as_share else " In brackets: the 95 % interval."
    return f"Of {wording.kind_count(rows[0]['kind_count'], kind)}, at {'; at '.join(parts)}.{brackets}"
