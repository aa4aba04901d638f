"""Overlap of a role's components with the reference's and with the previous checkpoint's, beside chance and noise."""

from collections.abc import Sequence

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Block, Column, Control, Controls, Figure, checkpoint_table, source_line
from timecourse.reports.partition import Partition, Row

OVERLAPS = {"reference": "the reference checkpoint", "previous": "the previous checkpoint"}

_MEASURE, _OVERLAP, _ROLE, _KIND = "overlap_measure", "overlap", "overlap_role", "overlap_kind"
_ANSWER_ROLES = ("relation_answer", "fact_answer")
_MEASURES = {
    "iou": "IoU as it is",
    "corrected": "corrected for chance",
    "noise": "corrected for noise",
}
_LIMITS = "overlap_limits"
_UNCERTAINTY_LEGEND = [
    ("band", "95 % interval"),
    ("dotted", "overlap expected by chance"),
    ("dashed", "what a role that does not change would reach"),
]
_FIELDS = {
    "reference": {
        "iou": "iou_reference", "low": "iou_reference_low", "high": "iou_reference_high",
        "chance": "iou_reference_chance", "corrected": "iou_reference_corrected",
        "corrected_low": "iou_reference_corrected_low", "corrected_high": "iou_reference_corrected_high",
        "noise": "iou_reference_noise_corrected", "floor": "iou_noise_floor",
    },
    "previous": {
        "iou": "iou_previous", "low": "iou_previous_low", "high": "iou_previous_high", "chance": "iou_previous_chance",
        "corrected": "iou_previous_corrected", "noise": "iou_previous_noise_corrected", "floor": "iou_noise_floor",
    },
}  # fmt: skip
"""Overlap -> name in the charts -> column of fct_role_stabilities."""


def overlaps(partition: Partition, axis: charts.TrainingAxis) -> list[Block]:
    """All figures of overlaps, under one switch of the measure."""
    return [
        Controls([Control(_MEASURE, "Overlap in the charts below", list(_MEASURES.items()), "iou")]),
        *(_of_kind(partition, axis, overlap, kind) for kind in wording.KIND_NOUNS for overlap in OVERLAPS),
        Controls(
            [
                Control(_OVERLAP, "Overlap by relation, with", list(OVERLAPS.items()), "reference"),
                Control(
                    _ROLE,
                    "in the role",
                    [(role, wording.ROLE_LABELS[role]) for role in _ANSWER_ROLES],
                    _ANSWER_ROLES[0],
                ),
                Control(_KIND, "of", [(kind, nouns[1]) for kind, nouns in wording.KIND_NOUNS.items()], "head"),
            ]
        ),
        _by_relation(partition, axis),
    ]


def _of_kind(partition: Partition, axis: charts.TrainingAxis, overlap: str, kind: str) -> Figure:
    fields = _FIELDS[overlap]
    sql = f"""select checkpoint_index, checkpoint_name, component_kind, role, member_count,
            {overlap}_member_count as other_member_count, {", ".join(fields.values())}
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where component_kind = '{kind}' and role in ('general', 'entity') order by role desc, checkpoint_index"""
    rows = partition.rows(sql)
    noun, at = wording.KIND_NOUNS[kind][1], OVERLAPS[overlap]
    points = [
        _point(row, overlap, role=row["role"], panel=wording.ROLE_LABELS[row["role"]],
               panel_index=charts.ROLES.index(row["role"]))
        for row in rows
    ]  # fmt: skip
    is_defined = any(row[fields["iou"]] is not None for row in rows)
    caption = _caption(partition, rows, overlap) if is_defined else ""
    chart = charts.small_multiples(_measured(axis.base(points), ""), _layers(axis, ["general", "entity"]), height=120)
    parameters = [charts.bound(_MEASURE, "iou"), {"name": _LIMITS, "value": _limits(points, "")}]
    nothing = (
        "There is one checkpoint: it has no previous one." if overlap == "previous" and len(partition.checkpoints) == 1
        else f"No {noun} hold these roles at any checkpoint: the overlap is n/a throughout."
    )  # fmt: skip
    return Figure(
        f"iou-{overlap}-{kind}",
        f"Overlap with {at}: {noun}",
        f"IoU of the set of {noun} in the role with the same role's set at {at}.",
        caption,
        source_line(partition),
        charts.specification(chart, caption, parameters) if is_defined else None,
        checkpoint_table(
            partition,
            f"stability-{overlap}-{kind}",
            rows,
            [
                Column("role", "Role", "role"),
                Column("member_count", noun, "count"),
                Column("other_member_count", f"at {at}", "count"),
                *_measure_columns(overlap),
            ],
        ),
        legend=_UNCERTAINTY_LEGEND if is_defined else (),
        empty=None if is_defined else nothing,
        is_half=True,
        query=partition.standalone(sql),
    )


def _measure_columns(overlap: str, suffix: str = "") -> list[Column]:
    labels = {
        "iou": f"IoU{suffix}", "low": f"95 % low{suffix}", "high": f"95 % high{suffix}", "chance": f"by chance{suffix}",
        "floor": "noise floor", "corrected": f"corrected for chance{suffix}", "noise": f"corrected for noise{suffix}",
    }  # fmt: skip
    return [Column(_FIELDS[overlap][name], label, "decimal") for name, label in labels.items()]


def _point(row: Row, overlap: str, prefix: str = "", **others: str | int | None) -> Row:
    """A row of a chart: `others`, and the measures under their names with a prefix. What is null is left out."""
    values = {prefix + name: charts.rounded(row[column]) for name, column in _FIELDS[overlap].items()}
    point = {"checkpoint_index": row["checkpoint_index"], "members": row["member_count"]} | others | values
    return {name: value for name, value in point.items() if value is not None}


def _measured(base: alt.Chart, prefix: str) -> alt.Chart:
    """The chart's fields by the chosen measure; `prefix`: an expression of what stands before the names in the data.

    Corrected for chance, chance is 0; corrected for noise, a role that does not change is 1.
    """
    start = f"{prefix} + " if prefix else ""
    is_iou, is_corrected = f"{_MEASURE} == 'iou'", f"{_MEASURE} == 'corrected'"

    def ends(end: str) -> str:
        return f"{is_iou} ? datum[{start}'{end}'] : {is_corrected} ? datum[{start}'corrected_{end}'] : null"

    return base.transform_calculate(
        value=f"datum[{start}{_MEASURE}]",
        value_low=ends("low"),
        value_high=ends("high"),
        value_chance=f"{is_iou} ? datum[{start}'chance'] : {is_corrected} ? 0 : null",
        value_floor=f"{is_iou} ? datum[{start}'floor'] : {is_corrected} ? null : 1",
    )


def _limits(points: Sequence[Row], *prefixes: str) -> dict[str, list[float]]:
    """Measure -> ends of its axis: what is drawn as a line fits, wider intervals are cut off."""
    limits = {"iou": [0.0, 1.0]}
    for measure in ("corrected", "noise"):
        values = [point[prefix + measure] for point in points for prefix in prefixes if prefix + measure in point]
        limits[measure] = [min([0, *values]), max([1, *values])]
    return limits


def _layers(axis: charts.TrainingAxis, roles: Sequence[str], *others: alt.Tooltip) -> list[alt.Chart]:
    """Interval, chance, noise floor and the overlap itself, in a panel of the chart."""
    scale = alt.Scale(domain=alt.ExprRef(f"{_LIMITS}[{_MEASURE}]"), nice=False)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title="overlap", scale=scale, axis=alt.Axis(tickCount=4, minExtent=30))

    panel = alt.Chart().encode(
        x=axis.x(),
        detail="line:N",
        color=alt.Color(
            "role:N",
            legend=None,
            scale=alt.Scale(domain=list(roles), range=[charts.ROLE_COLOURS[role] for role in roles]),
        ),
    )
    band = axis.band(panel)
    band.mark.clip = True
    tooltip = [
        *others,
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("role:N"),
        alt.Tooltip("value:Q", title="overlap", format=".3f"),
        alt.Tooltip("value_low:Q", title="95 % low", format=".3f"),
        alt.Tooltip("value_high:Q", title="95 % high", format=".3f"),
        alt.Tooltip("value_chance:Q", title="by chance", format=".3f"),
        alt.Tooltip("value_floor:Q", title="unchanged role", format=".3f"),
        alt.Tooltip("members:Q", title="components"),
    ]
    return [
        band.encode(y=y("value_low"), y2="value_high:Q"),
        panel.mark_line(strokeWidth=1.5, strokeDash=[1.5, 3]).encode(y=y("value_chance")),
        panel.mark_line(strokeWidth=1.2, strokeDash=[6, 4]).encode(y=y("value_floor")),
        panel.mark_line(strokeWidth=2).encode(y=y("value")),
        panel.mark_point(size=26, opacity=1).encode(y=y("value"), tooltip=tooltip),
        *axis.boundary_layers(),
    ]


def _caption(partition: Partition, rows: list[Row], overlap: str) -> str:
    """The first checkpoint's overlap with the reference, or the last one's with the checkpoint before it."""
    index = 0 if overlap == "reference" else len(partition.checkpoints) - 1
    fields = _FIELDS[overlap]
    parts = []
    for row in rows:
        if row["checkpoint_index"] != index:
            continue
        text = f"{wording.ROLE_LABELS[row['role']]} {wording.decimal(row[fields['iou']])}"
        if row[fields["low"]] is not None:
            low, high = (wording.decimal(row[fields[end]]) for end in ("low", "high"))
            text += f" (95\u00a0% interval {low} to {high}; by chance {wording.decimal(row[fields['chance']])}"
        else:
            text += " (no interval"
        parts.append(f"{text}; {row['member_count']:,} and {wording.integer(row['other_member_count'])} components)")
    if not parts:
        return ""
    label = partition.label_at(index)
    return f"IoU at {label}: {wording.listing(parts)}."


def _by_relation(partition: Partition, axis: charts.TrainingAxis) -> Figure:
    columns = list(dict.fromkeys(column for fields in _FIELDS.values() for column in fields.values()))
    sql = f"""select checkpoint_index, checkpoint_name, component_kind, role, scope_id as relation_id, member_count,
            reference_member_count, previous_member_count, {", ".join(columns)}
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where role in ('relation_answer', 'fact_answer')
        order by component_kind desc, relation_id, role desc, checkpoint_index"""
    rows = partition.rows(sql)
    relations = sorted({row["relation_id"] for row in rows})
    points = []
    for row in rows:
        point = {
            "kind": row["component_kind"],
            "role": row["role"],
            "panel": row["relation_id"],
            "panel_index": relations.index(row["relation_id"]),
        }
        points.append(_point(row, "reference", "reference_", **point) | _point(row, "previous", "previous_", **point))
    base = axis.base(points).transform_filter(f"datum.kind == {_KIND} && datum.role == {_ROLE}")
    layers = _layers(axis, _ANSWER_ROLES, alt.Tooltip("panel:N", title="relation"))
    chart = charts.small_multiples(_measured(base, f"{_OVERLAP} + '_'"), layers, height=90)
    parameters = [
        charts.bound(_MEASURE, "iou"),
        charts.bound(_OVERLAP, "reference"),
        charts.bound(_ROLE, _ANSWER_ROLES[0]),
        charts.bound(_KIND, "head"),
        {"name": _LIMITS, "value": _limits(points, "reference_", "previous_")},
    ]
    is_defined = any(row["iou_reference"] is not None or row["iou_previous"] is not None for row in rows)
    caption = _relation_caption(partition, rows)
    return Figure(
        "iou-relations",
        "Overlap of relation-answer and fact-answer components, by relation",
        "IoU of the set of components that hold the role for the relation (fact answer: for at least one of its"
        " facts). Fact-answer sets have no interval.",
        caption,
        source_line(partition),
        charts.specification(chart, caption, parameters) if is_defined else None,
        checkpoint_table(
            partition,
            "stability-relations",
            rows,
            [
                Column("component_kind", "Kind", "kind"),
                Column("relation_id", "Relation"),
                Column("role", "Role", "role"),
                Column("member_count", "Components", "count"),
                Column("reference_member_count", "at the reference", "count"),
                *_measure_columns("reference", ", reference"),
                Column("previous_member_count", "at the previous", "count"),
                *(column for column in _measure_columns("previous", ", previous") if column.key != "iou_noise_floor"),
            ],
        ),
        legend=_UNCERTAINTY_LEGEND if is_defined else (),
        empty=None
        if is_defined
        else "No component holds these roles at any checkpoint: the overlap is n/a throughout.",
        query=partition.standalone(sql),
    )  # fmt: skip


def _relation_caption(partition: Partition, rows: list[Row]) -> str:
    """Between which values the overlaps of heads with the reference lie at the first and at the last one before it."""
    heads = [row for row in rows if row["component_kind"] == "head" and row["role"] == _ANSWER_ROLES[0]]
    count = len(partition.checkpoints)
    sentences = []
    for index in sorted({0, max(count - 2, 0)}):
        found = [row for row in heads if row["checkpoint_index"] == index]
        defined = [row["iou_reference"] for row in found if row["iou_reference"] is not None]
        if found:
            spread = f": between {min(defined):.2f} and {max(defined):.2f}" if defined else ""
            sentences.append(
                f"at {partition.label_at(index)} it is defined for"
                f" {len(defined):,} of {wording.count(len(found), 'relation')}{spread}"
            )
    if not sentences:
        return ""
    return f"IoU of relation-answer heads with the reference: {'; '.join(sentences)}."
