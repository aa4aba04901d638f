"""Which roles components hold: counts and shares by primary role, by relation, beside chance and other thresholds."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import (
    Block,
    Column,
    Control,
    Controls,
    Figure,
    Page,
    Table,
    place_columns,
    source_line,
)
from timecourse.reports.pages.roles.kinds import activity_rates, differences, saturation
from timecourse.reports.pages.roles.relation_roles import caution, fact_answers, relation_answers, specific_roles
from timecourse.reports.pages.roles.sensitivity import other_taus, robustness, thetas
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "roles", "Roles"

_KIND = "role_kind"


def build(partition: Partition) -> Page:
    """Role counts and shares of one partition, heads and FFNs compared, and how far the counts can be trusted."""
    axis = charts.training_axis(partition.checkpoints)
    kinds = [row["component_kind"] for row in partition.rows(
        "select distinct component_kind from fct_component_histories order by component_kind desc"
    )]  # fmt: skip
    blocks: list[Block] = [
        *(_counts(partition, axis, kind) for kind in wording.KIND_NOUNS),
        *(_shares(partition, axis, kind) for kind in wording.KIND_NOUNS),
        saturation(partition),
        activity_rates(partition, axis),
        differences(partition, axis),
    ]
    if kinds:
        # Everything below shows one kind at a time, so that heads and FFNs never share a scale.
        kind = Control(_KIND, "Components", [(kind, wording.KIND_NOUNS[kind][1]) for kind in kinds], kinds[0])
        blocks += [
            Controls([kind]),
            relation_answers(partition, axis, kind),
            fact_answers(partition, axis, kind),
            specific_roles(partition, kind),
            robustness(partition, kind),
            thetas(partition, axis, kind),
            *other_taus(partition),
            caution(partition),
        ]
    return Page(
        SLUG,
        TITLE,
        "How many attention heads and FFNs hold each role at each checkpoint, how many would by chance, and how far"
        " that depends on the thresholds. Heads and FFNs are counted apart.",
        blocks,
        axis,
    )


def _sql(kind: str) -> str:
    """Components by primary role: one row per checkpoint and role, 0 where none holds it."""
    roles = list(charts.PRIMARY_ROLES)
    return f"""
        select checkpoint_index, checkpoint_name, component_kind, roles.role as primary_role,
            count(*) filter (where primary_role = roles.role) as component_count,
            any_value(member_count_low) as count_low, any_value(member_count_high) as count_high,
            count(*) as kind_count, component_count / kind_count as component_share
        from fct_component_histories join checkpoints using (checkpoint_id)
        cross join (select unnest({roles}) as role) as roles
        left join (
            -- General and entity come first in the order of roles: who holds one has it as primary role.
            select checkpoint_id, component_kind, role, member_count_low, member_count_high from fct_role_stabilities
            where role in ('general', 'entity')
        ) as members using (checkpoint_id, component_kind, role)
        where component_kind = '{kind}'
        group by checkpoint_index, checkpoint_name, component_kind, roles.role
        order by checkpoint_index, list_position({roles}, roles.role)"""


def _noun(kind: str) -> str:
    """Heads or FFNs, as a sentence begins."""
    return {"head": "Heads", "ffn": "FFNs"}[kind]


def _table(partition: Partition, name: str, rows: list[Row], kind: str) -> Table | None:
    columns = [
        Column("checkpoint_name", "Checkpoint"),
        *place_columns(partition),
        Column("primary_role", "Primary role", "role"),
        Column("component_count", _noun(kind), "count"),
        Column("count_low", "low (95 %)", "rank"),
        Column("count_high", "high (95 %)", "rank"),
        Column("kind_count", "of", "count"),
        Column("component_share", "Share", "percent"),
    ]
    return Table(name, columns, partition.placed(rows)) if rows else None


def _counts(partition: Partition, axis: charts.TrainingAxis, kind: str) -> Figure:
    sql, noun = _sql(kind), wording.KIND_NOUNS[kind][1]
    rows = partition.rows(sql)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "series": row["primary_role"],
            "value": row["component_count"],
            "low": charts.rounded(row["count_low"]),
            "high": charts.rounded(row["count_high"]),
            "interval": _interval(row) or wording.NOT_AVAILABLE,
        }
        for row in rows
    ]
    base = axis.base(points).encode(
        x=axis.x(),
        color=alt.Color(
            "series:N",
            scale=alt.Scale(domain=list(charts.ROLE_COLOURS), range=list(charts.ROLE_COLOURS.values())),
            legend=None,
        ),
    )
    # Stated, because the band may be without rows.
    scale = alt.Scale(domain=[0, max([1, *(point["high"] or point["value"] for point in points)])], nice=True)
    value = alt.Y("value:Q", title=noun, scale=scale, axis=alt.Axis(format="d", tickCount=5, tickMinStep=1))
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
    caption = _caption(partition, rows, kind, as_share=False)
    return Figure(
        f"counts-{kind}",
        f"{_noun(kind)} by primary role: counts",
        f"Number of {noun} whose first held role, in the order of the legend, is this one. The bands are 95 % intervals"
        " under draws of the facts; only general and entity have one over all facts.",
        caption,
        source_line(partition),
        charts.specification(alt.layer(*layers).properties(width="container", height=220), caption) if rows else None,
        _table(partition, f"roles-counts-{kind}", rows, kind),
        legend=list(wording.ROLE_LABELS.items()) if rows else [],
        empty=None if rows else f"This release holds no {noun}.",
        is_half=True,
        query=partition.standalone(sql),
    )


def _interval(row: Row) -> str:
    """`11.3 to 14.7`; nothing where there is none."""
    return "" if row["count_low"] is None else f"{row['count_low']:,.1f} to {row['count_high']:,.1f}"


def _caption(partition: Partition, rows: list[Row], kind: str, as_share: bool) -> str:
    if not rows:
        return ""
    parts = []
    for index in sorted({rows[0]["checkpoint_index"], rows[-1]["checkpoint_index"]}):
        counts = []
        for row in (row for row in rows if row["checkpoint_index"] == index):
            interval = f" ({_interval(row)})" if _interval(row) and not as_share else ""
            number = wording.percent(row["component_share"]) if as_share else f"{row['component_count']:,}"
            counts.append(f"{number} {wording.ROLE_LABELS[row['primary_role']]}{interval}")
        parts.append(f"{partition.labels[partition.checkpoints[index]['checkpoint_id']]}: {wording.listing(counts)}")
    brackets = "" if as_share else " In brackets: the 95 % interval."
    return f"Of {wording.kind_count(rows[0]['kind_count'], kind)}, at {'; at '.join(parts)}.{brackets}"


def _shares(partition: Partition, axis: charts.TrainingAxis, kind: str) -> Figure:
    sql, noun = _sql(kind), wording.KIND_NOUNS[kind][1]
    rows = partition.rows(sql)
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "role": row["primary_role"],
            "order": charts.PRIMARY_ROLES.index(row["primary_role"]),
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
    shares = mark.encode(
        x=axis.x() if axis.has_one_line else charts.checkpoint_columns(partition.checkpoints),
        y=alt.Y("share:Q", title=f"share of {noun}", stack="zero", scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5)),
        color=alt.Color(
            "role:N",
            legend=None,
            scale=alt.Scale(domain=list(charts.ROLE_COLOURS), range=list(charts.ROLE_COLOURS.values())),
        ),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("role:N", title="primary role")]
        + ([] if is_area else [alt.Tooltip("checkpoint:N"), alt.Tooltip("share:Q", format=".1%")]),
    )  # fmt: skip
    layers = [shares, *(axis.boundary_layers() if is_area else [])]
    chart = alt.layer(*layers).properties(width="container", height=220)
    caption = _caption(partition, rows, kind, as_share=True)
    return Figure(
        f"shares-{kind}",
        f"{_noun(kind)} by primary role: shares",
        f"Share of all {noun}; every one has exactly one primary role, so the shares sum to 1. From the bottom: the"
        " order of the legend.",
        caption,
        source_line(partition),
        charts.specification(chart, caption) if rows else None,
        _table(partition, f"roles-shares-{kind}", rows, kind),
        legend=list(wording.ROLE_LABELS.items()) if rows else [],
        empty=None if rows else f"This release holds no {noun}.",
        is_half=True,
        query=partition.standalone(sql),
    )
