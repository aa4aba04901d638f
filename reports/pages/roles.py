"""Which roles components hold: counts and shares by primary role, and members by relation."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Page, Prose, Table, place_columns, source_line
from timecourse.reports.pages.overview import role_count_rows
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "roles", "Roles"

_MEMBER_ROLE, _MEMBER_KIND = "member_role", "member_kind"


def build(partition: Partition) -> Page:
    """Role counts and shares of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    rows = role_count_rows(partition)
    return Page(
        SLUG,
        TITLE,
        "How many attention heads and FFNs hold each role at each checkpoint. Heads and FFNs are counted apart.",
        [
            _saturation(partition),
            *(_counts(partition, axis, [row for row in rows if row["component_kind"] == kind], kind)
              for kind in ("head", "ffn")),
            *(_shares(partition, axis, [row for row in rows if row["component_kind"] == kind], kind)
              for kind in ("head", "ffn")),
            _members(partition),
            Prose(
                [
                    "Relation answer and fact answer are any-of-many roles: a component that is active on 5 % of"
                    " all answers, whatever the relation, passes θ = 0.1 for some relation with probability 0.85."
                    " The counts here are not compared with chance, so none of them shows that a component is"
                    " specific to a relation or fact."
                ],
                "Counts of relation and fact roles",
                is_caution=True,
            ),
        ],
        axis,
    )  # fmt: skip


def _saturation(partition: Partition) -> Prose:
    rows = partition.rows(
        """select component_kind, count(*) as total, count(*) filter (where primary_role = 'general') as general
        from fct_component_histories join checkpoints using (checkpoint_id)
        where checkpoint_id = (select max_by(checkpoint_id, checkpoint_index) from checkpoints where is_reference)
        group by component_kind order by component_kind desc"""
    )
    seen = [
        f"{row['general']:,} of {wording.kind_count(row['total'], row['component_kind'])}"
        f" {'is' if row['general'] == 1 else 'are'} general"
        for row in rows
    ]
    reference = partition.labels[partition.reference["checkpoint_id"]]
    explanation = (
        "In a parallel block the FFN is a part of the same sum as every head at every position, so it does not pass τ"
        " as a matter of course. It is still a single part, a head one part per position: heads and FFNs are not"
        " comparable. Nor are these roles with those of models with sequential blocks."
        if partition.series["block"] == "parallel"
        else "At one common τ, heads and FFNs are not comparable. An FFN is one of two parts of its sum, a head's write"
        " one of many (one per head and position), so an FFN is almost always above τ: FFNs that are all general are a"
        " ceiling of the measure, not a finding about FFNs."
    )
    return Prose(
        [explanation + (f" Here, at {reference}: {wording.listing(seen)}." if seen else "")],
        "Heads and FFNs at the same τ",
        is_caution=True,
    )


def _caption(partition: Partition, rows: list[Row], kind: str, as_share: bool) -> str:
    if not rows:
        return ""
    parts = []
    for index in sorted({rows[0]["checkpoint_index"], rows[-1]["checkpoint_index"]}):
        counts = [
            (wording.percent(row["component_share"]) if as_share else f"{row['component_count']:,}")
            + f" {wording.ROLE_LABELS[row['primary_role']]}"
            for row in rows
            if row["checkpoint_index"] == index
        ]
        parts.append(f"{partition.labels[partition.checkpoints[index]['checkpoint_id']]}: {wording.listing(counts)}")
    return f"Of {wording.kind_count(rows[0]['kind_count'], kind)}, at {'; at '.join(parts)}."


def _table(partition: Partition, name: str, rows: list[Row], kind: str) -> Table:
    return Table(
        name,
        [
            Column("checkpoint_name", "Checkpoint"),
            *place_columns(partition),
            Column("primary_role", "Primary role", "role"),
            Column("component_count", wording.KIND_NOUNS[kind][1].capitalize().replace("Ffn", "FFN"), "count"),
            Column("kind_count", "of", "count"),
            Column("component_share", "Share", "percent"),
        ],
        partition.placed(rows),
    )


def _counts(partition: Partition, axis: charts.TrainingAxis, rows: list[Row], kind: str) -> Figure:
    noun = wording.KIND_NOUNS[kind][1]
    points = [
        {"checkpoint_index": row["checkpoint_index"], "series": row["primary_role"], "value": row["component_count"]}
        for row in rows
    ]
    caption = _caption(partition, rows, kind, as_share=False)
    chart = charts.line_chart(
        axis, points, value_title=noun, colours=charts.ROLE_COLOURS, series_title="primary role", value_format="d"
    )
    return Figure(
        f"counts-{kind}",
        f"{noun.capitalize() if kind == 'head' else noun} by primary role: counts",
        f"Number of {noun} whose first held role, in the order of the legend, is this one.",
        caption,
        source_line(partition),
        charts.specification(chart, caption) if rows else None,
        _table(partition, f"roles-counts-{kind}", rows, kind),
        legend=list(wording.ROLE_LABELS.items()),
        empty=None if rows else f"This release holds no {noun}.",
        is_half=True,
    )


def _shares(partition: Partition, axis: charts.TrainingAxis, rows: list[Row], kind: str) -> Figure:
    noun = wording.KIND_NOUNS[kind][1]
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
        f"{noun.capitalize() if kind == 'head' else noun} by primary role: shares",
        f"Share of all {noun}; every one has exactly one primary role, so the shares sum to 1.",
        caption,
        source_line(partition),
        charts.specification(chart, caption) if rows else None,
        _table(partition, f"roles-shares-{kind}", rows, kind),
        legend=list(wording.ROLE_LABELS.items()),
        empty=None if rows else f"This release holds no {noun}.",
        is_half=True,
    )


def _members(partition: Partition) -> Figure:
    rows = partition.rows(
        """select checkpoint_index, checkpoint_name, component_kind, role, scope_id as relation_id, member_count
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where role in ('relation_answer', 'fact_answer')
        order by component_kind desc, role desc, relation_id, checkpoint_index"""
    )
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "kind": row["component_kind"],
            "role": row["role"],
            "relation": row["relation_id"],
            "members": row["member_count"],
        }
        for row in rows
    ]
    caption = _member_caption(partition, rows)
    chart = (
        charts.chart_of(points)
        .transform_filter(f"datum.role == {_MEMBER_ROLE} && datum.kind == {_MEMBER_KIND}")
        .mark_rect()
        .encode(
            x=charts.checkpoint_columns(partition.checkpoints),
            y=alt.Y("relation:N", title=None, axis=alt.Axis(labelLimit=120, ticks=False, domain=False)),
            color=alt.Color(
                "members:Q",
                title="components",
                scale=alt.Scale(domainMin=0, range=charts.SEQUENTIAL),
                legend=alt.Legend(format="d", orient="top", gradientLength=160, gradientThickness=10, tickMinStep=1),
            ),
            tooltip=[alt.Tooltip("relation:N"), alt.Tooltip("members:Q", title="components")],
        )
        .properties(width="container", height=max(60, 18 * len({row["relation_id"] for row in rows})))
    )
    return Figure(
        "members",
        "Components that hold a role for each relation",
        "Relation answer: holds the role for this relation. Fact answer: holds it for at least one fact of this"
        " relation. A component can count in several relations.",
        caption,
        source_line(partition),
        charts.specification(
            chart, caption, [charts.bound(_MEMBER_ROLE, "relation_answer"), charts.bound(_MEMBER_KIND, "head")]
        )
        if rows
        else None,
        Table(
            "roles-members",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("component_kind", "Kind", "kind"),
                Column("role", "Role", "role"),
                Column("relation_id", "Relation"),
                Column("member_count", "Components", "count"),
            ],
            partition.placed(rows),
        ),
        controls=[
            Control(
                _MEMBER_ROLE,
                "Role",
                [(role, wording.ROLE_LABELS[role]) for role in ("relation_answer", "fact_answer")],
                "relation_answer",
            ),
            Control(
                _MEMBER_KIND, "Components", [(kind, nouns[1]) for kind, nouns in wording.KIND_NOUNS.items()], "head"
            ),
        ]
        if rows
        else [],
        empty=None if rows else "No relation or fact roles in this release.",
    )


def _member_caption(partition: Partition, rows: list[Row]) -> str:
    last = partition.checkpoints[-1]
    parts = []
    for role in ("relation_answer", "fact_answer"):
        final = [
            row
            for row in rows
            if row["checkpoint_index"] == last["checkpoint_index"]
            and row["component_kind"] == "head"
            and row["role"] == role
        ]
        if final:
            counts = [row["member_count"] for row in final]
            parts.append(f"{wording.ROLE_LABELS[role]} between {min(counts):,} and {max(counts):,} heads per relation")
    return f"At {partition.labels[last['checkpoint_id']]}: {wording.listing(parts)}." if parts else ""
