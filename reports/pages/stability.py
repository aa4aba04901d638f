"""How stable roles are: overlap with the reference and with the previous checkpoint, and turnover."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Controls, Figure, Page, Prose, Table, place_columns, source_line
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "stability", "Stability"

_OVERLAP, _KIND = "overlap", "overlap_kind"
_OVERLAPS = {"reference": "the reference checkpoint", "previous": "the previous checkpoint"}


def build(partition: Partition) -> Page:
    """Overlaps and turnover of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    return Page(
        SLUG,
        TITLE,
        "How much the set of components in a role overlaps with the same role's set at the reference checkpoint"
        " and at the checkpoint before.",
        [
            Prose(
                [
                    "IoU (intersection over union) is 1 where two sets are equal and 0 where they share nothing."
                    " Where both sets are empty it is not defined: the line is interrupted and the table says n/a."
                    f"  {partition.reference_words}. Its overlap with itself is 1 by definition. Small sets overlap"
                    " by chance more unevenly than large ones: the tables give the size of every set."
                ]
            ),
            *(_global(partition, axis, overlap, kind) for kind in ("head", "ffn") for overlap in _OVERLAPS),
            Controls(
                [
                    Control(_OVERLAP, "Overlap by relation, with", list(_OVERLAPS.items()), "reference"),
                    Control(_KIND, "of", [(kind, nouns[1]) for kind, nouns in wording.KIND_NOUNS.items()], "head"),
                ]
            ),
            _by_relation(partition, axis),
            *(_turnover(partition, axis, kind) for kind in ("head", "ffn")),
            *_seeds(partition, axis),
        ],
        axis,
    )


def _global(partition: Partition, axis: charts.TrainingAxis, overlap: str, kind: str) -> Figure:
    rows = partition.rows(
        f"""select checkpoint_index, checkpoint_name, component_kind, role, member_count,
            {overlap}_member_count as other_member_count, iou_{overlap} as iou
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where component_kind = '{kind}' and role in ('general', 'entity') order by role desc, checkpoint_index"""
    )
    noun = wording.KIND_NOUNS[kind][1]
    points = [
        {"checkpoint_index": row["checkpoint_index"], "series": row["role"], "value": charts.rounded(row["iou"])}
        for row in rows
    ]
    is_defined = any(row["iou"] is not None for row in rows)
    caption = _global_caption(partition, rows, overlap) if is_defined else ""
    chart = charts.line_chart(
        axis, points, value_title="IoU", colours=charts.ROLE_COLOURS, series_title="role", domain=(0, 1)
    )
    nothing = (
        "There is one checkpoint: it has no previous one." if overlap == "previous" and len(partition.checkpoints) == 1
        else f"No {noun} hold these roles at any checkpoint: the overlap is n/a throughout."
    )  # fmt: skip
    return Figure(
        f"iou-{overlap}-{kind}",
        f"Overlap with {_OVERLAPS[overlap]}: {noun}",
        f"IoU of the set of {noun} in the role with the same role's set at {_OVERLAPS[overlap]}.",
        caption,
        source_line(partition),
        charts.specification(chart, caption) if is_defined else None,
        Table(
            f"stability-{overlap}-{kind}",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("role", "Role", "role"),
                Column("member_count", wording.KIND_NOUNS[kind][1], "count"),
                Column("other_member_count", f"at {_OVERLAPS[overlap]}", "count"),
                Column("iou", "IoU", "decimal"),
            ],
            partition.placed(rows),
        ),
        legend=[(role, wording.ROLE_LABELS[role]) for role in ("general", "entity")],
        empty=None if is_defined else nothing,
        is_half=True,
    )


def _global_caption(partition: Partition, rows: list[Row], overlap: str) -> str:
    """The first checkpoint's overlap with the reference, or the last one's with the checkpoint before it."""
    index = 0 if overlap == "reference" else len(partition.checkpoints) - 1
    parts = [
        f"{wording.ROLE_LABELS[row['role']]} {wording.decimal(row['iou'])} ({row['member_count']:,} and"
        f" {wording.integer(row['other_member_count'])})"
        for row in rows
        if row["checkpoint_index"] == index
    ]
    if not parts:
        return ""
    label = partition.labels[partition.checkpoints[index]["checkpoint_id"]]
    return f"At {label}: {wording.listing(parts)}; in brackets the sizes of the two sets."


def _by_relation(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    rows = partition.rows(
        """select checkpoint_index, checkpoint_name, component_kind, role, scope_id as relation_id, member_count,
            reference_member_count, iou_reference, previous_member_count, iou_previous
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where role in ('relation_answer', 'fact_answer')
        order by component_kind desc, relation_id, role desc, checkpoint_index"""
    )
    roles = ("relation_answer", "fact_answer")
    relations = sorted({row["relation_id"] for row in rows})
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "kind": row["component_kind"],
            "role": row["role"],
            "panel": row["relation_id"],
            "panel_index": relations.index(row["relation_id"]),
            "members": row["member_count"],
            "reference": charts.rounded(row["iou_reference"]),
            "previous": charts.rounded(row["iou_previous"]),
        }
        for row in rows
    ]
    base = axis.base(points).transform_filter(f"datum.kind == {_KIND}").transform_calculate(iou=f"datum[{_OVERLAP}]")
    panel = alt.Chart().encode(
        x=axis.x(),
        y=alt.Y("iou:Q", title="IoU", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3)),
        color=alt.Color(
            "role:N",
            legend=None,
            scale=alt.Scale(domain=list(roles), range=[charts.ROLE_COLOURS[role] for role in roles]),
        ),
    )
    tooltip = [
        alt.Tooltip("panel:N", title="relation"),
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("role:N"),
        alt.Tooltip("iou:Q", title="IoU", format=".3f"),
        alt.Tooltip("members:Q", title="components"),
    ]
    chart = charts.small_multiples(
        base,
        [
            panel.mark_line(strokeWidth=2).encode(detail="line:N"),
            panel.mark_point(size=22, opacity=1).encode(tooltip=tooltip),
            *axis.boundary_layers(),
        ],
        height=90,
    )
    first = [row for row in rows if row["checkpoint_index"] == 0 and row["component_kind"] == "head"]
    defined = [row["iou_reference"] for row in first if row["iou_reference"] is not None]
    is_defined = any(row["iou_reference"] is not None or row["iou_previous"] is not None for row in rows)
    caption = ""
    if first:
        label = partition.labels[partition.checkpoints[0]["checkpoint_id"]]
        low, high = min(defined, default=0), max(defined, default=0)
        spread = f" and lies between {low:.2f} and {high:.2f} there" if defined else ""
        caption = (
            f"Heads at {label}, with the reference: the overlap is defined for {len(defined):,} of"
            f" {wording.count(len(first), 'pair')} of relation and role{spread}."
        )
    return Figure(
        "iou-relations",
        "Overlap of relation-answer and fact-answer components, by relation",
        "IoU of the set of components that hold the role for the relation (fact answer: for at least one of its"
        " facts).",
        caption,
        source_line(partition),
        charts.specification(chart, caption, [charts.bound(_OVERLAP, "reference"), charts.bound(_KIND, "head")])
        if is_defined
        else None,
        Table(
            "stability-relations",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("component_kind", "Kind", "kind"),
                Column("relation_id", "Relation"),
                Column("role", "Role", "role"),
                Column("member_count", "Components", "count"),
                Column("reference_member_count", "at the reference", "count"),
                Column("iou_reference", "IoU with the reference", "decimal"),
                Column("previous_member_count", "at the previous", "count"),
                Column("iou_previous", "IoU with the previous", "decimal"),
            ],
            partition.placed(rows),
        ),
        legend=[(role, wording.ROLE_LABELS[role]) for role in roles],
        empty=None
        if is_defined
        else "No component holds these roles at any checkpoint: the overlap is n/a throughout.",
    )


def _turnover(partition: Partition, axis: charts.TrainingAxis, kind: str) -> Figure:
    rows = partition.rows(
        f"""select later.checkpoint_index as checkpoint_index, earlier.checkpoint_name as from_checkpoint,
            later.checkpoint_name as to_checkpoint, component_kind, role, changed_count, component_count, turnover
        from fct_turnovers
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id
        where component_kind = '{kind}' order by role, checkpoint_index"""
    )
    noun = wording.KIND_NOUNS[kind][1]
    colours = {"all": "#1f2428"} | {role: charts.ROLE_COLOURS[role] for role in charts.ROLES}
    points = [
        {"checkpoint_index": row["checkpoint_index"], "series": row["role"], "value": charts.rounded(row["turnover"])}
        for row in rows
    ]
    total = [row for row in rows if row["role"] == "all" and row["turnover"] is not None]
    caption = ""
    if total:
        low, high = min(total, key=lambda row: row["turnover"]), max(total, key=lambda row: row["turnover"])
        caption = (
            f"All roles, {wording.count(len(total), 'transition')}: between {wording.percent(low['turnover'])}"
            f" ({low['changed_count']:,} of {wording.kind_count(low['component_count'], kind)}) and"
            f" {wording.percent(high['turnover'])} ({high['changed_count']:,} of"
            f" {wording.kind_count(high['component_count'], kind)})."
        )
    chart = charts.line_chart(
        axis, points, value_title="turnover", colours=colours, series_title="role", value_format=".0%", domain=(0, 1)
    )
    nothing = (
        "There is one checkpoint: no transition." if len(partition.checkpoints) == 1
        else f"No {noun} hold a role at any checkpoint: turnover is n/a throughout."
    )  # fmt: skip
    return Figure(
        f"turnover-{kind}",
        f"Turnover per transition: {noun}",
        f"Share of {noun} whose primary role changed since the checkpoint before, of those that hold a role at"
        " either end. By role: of those whose primary role is this one at either end.",
        caption,
        source_line(partition),
        charts.specification(chart, caption) if total else None,
        Table(
            f"stability-turnover-{kind}",
            [
                Column("from_checkpoint", "From"),
                Column("to_checkpoint", "To"),
                Column("role", "Role", "role"),
                Column("changed_count", "Changed", "count"),
                Column("component_count", "of", "count"),
                Column("turnover", "Turnover", "percent"),
            ],
            rows,
        ),
        legend=[("all", "all"), *((role, wording.ROLE_LABELS[role]) for role in charts.ROLES)],
        empty=None if total else nothing,
        is_half=True,
    )


def _seeds(partition: Partition, axis: charts.TrainingAxis) -> list[Figure]:
    """How much the roles differ between runs of one recipe; nothing where the release holds no other run."""
    rows = partition.rows(
        """select checkpoint_index, checkpoint_name, component_kind, role, other_series_id, member_count,
            other_member_count, iou, differing_count, component_count, differing_share
        from fct_recipe_overlaps join checkpoints using (checkpoint_id)
        order by checkpoint_index, component_kind desc, other_series_id,
            list_position(['all', 'general', 'entity', 'relation_answer', 'fact_answer'], role)"""
    )
    if not rows:
        return []
    groups: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        if row["role"] == "all" and row["differing_share"] is not None:
            groups.setdefault((row["checkpoint_index"], row["component_kind"]), []).append(row["differing_share"])
    points = [
        {"checkpoint_index": index, "series": kind, "value": charts.rounded(sum(shares) / len(shares))}
        for (index, kind), shares in groups.items()
    ]
    others = sorted({row["other_series_id"] for row in rows})
    spans = [
        f"{wording.KIND_NOUNS[kind][1]} between {wording.percent(min(shares))} and {wording.percent(max(shares))}"
        for kind in wording.KIND_NOUNS
        if (shares := [share for (_, other), found in groups.items() if other == kind for share in found])
    ]
    caption = (
        f"{wording.count(len({row['checkpoint_index'] for row in rows}), 'checkpoint')} with a counterpart in"
        f" {wording.listing(others)}. With another primary role there: {wording.listing(spans)}."
        if spans
        else ""
    )
    chart = charts.line_chart(
        axis, points, value_title="share that differs", colours=charts.KIND_COLOURS, series_title="kind",
        value_format=".0%", domain=(0, 1),
    )  # fmt: skip
    return [
        Figure(
            "seeds",
            "Other seeds of the same recipe, at the same step",
            "Share of components whose primary role differs in another run of this recipe at the same place in"
            " training, of those that hold a role in either; mean over the other runs. It is the floor under every"
            " finding: a change over training or a difference between models that is no larger may be the seed's.",
            caption,
            source_line(partition),
            charts.specification(chart, caption) if points else None,
            Table(
                "stability-seeds",
                [
                    Column("checkpoint_name", "Checkpoint"),
                    *place_columns(partition),
                    Column("other_series_id", "Other run"),
                    Column("component_kind", "Kind", "kind"),
                    Column("role", "Role", "role"),
                    Column("member_count", "Components", "count"),
                    Column("other_member_count", "in the other", "count"),
                    Column("iou", "IoU", "decimal"),
                    Column("differing_count", "Other primary role", "count"),
                    Column("component_count", "of", "count"),
                    Column("differing_share", "Share", "percent"),
                ],
                partition.placed(rows),
            ),
            legend=[(kind, nouns[1]) for kind, nouns in wording.KIND_NOUNS.items()],
            empty=None if points else "No component holds a role in either run: the share is n/a throughout.",
        )
    ]
