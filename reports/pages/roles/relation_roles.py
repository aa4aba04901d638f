"""Roles of relations and facts: how many components hold them, how many would by chance, and which are specific."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Prose, Table, last_label, source_line
from timecourse.reports.pages.roles.chosen_kind import kind_caption, kind_table
from timecourse.reports.partition import Partition, Row

_REFERENCE, _SPECIFIC = "#6a7177", charts.CSS_COLOURS["all"]
_ROW_LIMIT = 1000
_LIMITS = "count_limits"


def relation_answers(partition: Partition, axis: charts.TrainingAxis, kind: Control) -> Figure:
    """Holders of relation_answer by relation: interval, the number expected by chance, and the specific ones."""
    sql = """
        select checkpoint_index, checkpoint_name, component_kind, scope_id as relation_id, member_count,
            member_count_low, member_count_high, expected_count, specific_count
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where role = 'relation_answer'
        order by checkpoint_index desc, component_kind desc, relation_id"""
    rows = partition.rows(sql)
    caption = kind_caption(partition, rows, kind, lambda last, one: _relation_caption(partition, last, one))
    return Figure(
        "relation-answers",
        "Components that hold relation answer for each relation",
        "Green: components that hold the role for this relation, with the 95 % interval under draws of its facts."
        " Dashed: how many would on average if relations meant nothing. Squares: those that are specific,"
        " active for more of the relation's facts than relabelled facts would give (q ≤ 0.05). A component can count in"
        " several relations.",
        caption,
        source_line(partition),
        _specification(axis, rows, "relation_answer", "expected_count", "expected by chance", caption, kind)
        if rows
        else None,
        kind_table(
            partition,
            "roles-relation-answers",
            rows,
            [
                Column("relation_id", "Relation"),
                Column("member_count", "Components", "count"),
                Column("member_count_low", "low (95 %)", "rank"),
                Column("member_count_high", "high (95 %)", "rank"),
                Column("expected_count", "Expected by chance", "rank"),
                Column("specific_count", "Specific", "count"),
            ],
            kind,
        ),
        legend=[
            ("relation_answer", "hold the role"),
            ("ffn", "expected by chance (dashed)"),
            ("all", "specific (squares)"),
        ]
        if rows
        else [],
        empty=None if rows else "No relation roles in this release.",
        query=partition.standalone(sql),
    )


def fact_answers(partition: Partition, axis: charts.TrainingAxis, kind: Control) -> Figure:
    """Holders of fact_answer by relation, and how many there would be with 12 facts."""
    sql = """
        select checkpoint_index, checkpoint_name, component_kind, scope_id as relation_id, member_count,
            rarefied_count, specific_count, template_count
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        left join dim_relations on relation_id = scope_id
        where role = 'fact_answer'
        order by checkpoint_index desc, component_kind desc, relation_id"""
    rows = partition.rows(sql)
    tested = any(row["specific_count"] is not None for row in rows)
    caption = kind_caption(partition, rows, kind, lambda last, one: _fact_caption(partition, last, one))
    specificity = (
        " Squares: those specific to one of its facts."
        if tested
        else " Whether a component is specific to a fact is not known: that needs at least 3 templates."
    )
    return Figure(
        "fact-answers",
        "Components that hold fact answer in each relation",
        "Pink: components that hold the role for at least one fact of this relation. More facts give more chances:"
        " dashed is how many there would be on average with 12 facts, which makes relations comparable. The role has no"
        f" interval and no number expected by chance.{specificity}",
        caption,
        source_line(partition),
        _specification(axis, rows, "fact_answer", "rarefied_count", "with 12 facts", caption, kind) if rows else None,
        kind_table(
            partition,
            "roles-fact-answers",
            rows,
            [
                Column("relation_id", "Relation"),
                Column("member_count", "Components", "count"),
                Column("rarefied_count", "With 12 facts", "rank"),
                Column("specific_count", "Specific", "count"),
                Column("template_count", "Templates", "count"),
            ],
            kind,
        ),
        legend=[("fact_answer", "hold the role"), ("ffn", "with 12 facts (dashed)"), *([("all", "specific")] * tested)]
        if rows
        else [],
        empty=None if rows else "No fact roles in this release.",
        query=partition.standalone(sql),
    )


def specific_roles(partition: Partition, kind: Control) -> Figure:
    """Which components are specific to which relation or fact at the last checkpoint, and how clearly."""
    sql = """
        select checkpoint_index, checkpoint_name, component_kind, component_id, role, relation_id, subject,
            active_count, total_count, other_active_count, other_total_count, rate_difference, p_value, q_value,
            is_held is not null as is_held, specific_checkpoint_count
        from fct_role_specificities
        join checkpoints using (checkpoint_id)
        join (
            select component_id, scope_kind, scope_id, count(*) as specific_checkpoint_count
            from fct_role_specificities where is_specific group by all
        ) using (component_id, scope_kind, scope_id)
        left join (
            select checkpoint_id, component_id, role, scope_id, true as is_held from fct_role_memberships
        ) using (checkpoint_id, component_id, role, scope_id)
        left join (select 'fact' as scope_kind, fact_id as scope_id, subject from dim_facts)
            using (scope_kind, scope_id)
        where is_specific and checkpoint_index = (select max(checkpoint_index) from checkpoints)
        order by component_kind desc, q_value, rate_difference desc, component_id, role, scope_id"""
    has_mart = partition.has_mart("fct_role_specificities")
    rows = partition.rows(sql) if has_mart else []
    parts = []
    for one, _ in kind.options:
        found = [row for row in rows if row["component_kind"] == one]
        holders = sum(row["is_held"] for row in found)
        components = wording.kind_count(len({row["component_id"] for row in found}), one)
        if found:
            roles = wording.count(len(found), "relation or fact", "relations or facts")
            parts.append(f"{components} in {roles} ({holders:,} of {len(found):,} hold the role too)")
        else:
            parts.append(f"no {wording.KIND_NOUNS[one][0]}")
    return Figure(
        "specific",
        f"What is specific at {last_label(partition)}",
        "A component is specific to a relation where it is active for more of its facts than of others', compared with"
        " all relabellings of the facts: q ≤ 0.05 (Benjamini-Hochberg, over all pairs of the checkpoint and kind). It"
        " need not hold the role, which asks for a rate above θ and no earlier role.",
        f"Specific at {last_label(partition)}: {wording.listing(parts)}." if rows else "",
        source_line(partition),
        None,
        Table(
            "roles-specific",
            [
                Column("component_id", "Component"),
                Column("component_kind", "Kind", "kind"),
                Column("role", "Role", "role"),
                Column("relation_id", "Relation"),
                *([Column("subject", "Fact of")] if any(row["subject"] is not None for row in rows) else []),
                Column("q_value", "q", "scientific"),
                Column("active_count", "Active for", "count"),
                Column("total_count", "of", "count"),
                Column("other_active_count", "Elsewhere", "count"),
                Column("other_total_count", "of", "count"),
                Column("rate_difference", "Difference of shares", "percent"),
                Column("is_held", "Holds the role", "flag"),
                Column("specific_checkpoint_count", "Checkpoints where specific", "count"),
            ],
            partition.placed(rows),
            is_searchable=True,
            row_limit=_ROW_LIMIT,
        )
        if rows
        else None,
        empty=None
        if rows
        else f"No component is specific to a relation or fact at {last_label(partition)}."
        if has_mart
        else "This release has no test of specific roles.",
        is_table_open=True,
        query=partition.standalone(sql) if has_mart else None,
    )


def caution(partition: Partition) -> Prose:
    """What the counts of answer roles are worth, in numbers of the last checkpoint."""
    parts = []
    for row in partition.rows(
        """select component_kind, sum(member_count) as member_count, sum(expected_count) as expected_count,
            sum(specific_count) as specific_count
        from fct_role_stabilities join checkpoints using (checkpoint_id)
        where role = 'relation_answer' and checkpoint_index = (select max(checkpoint_index) from checkpoints)
        group by component_kind having sum(member_count) > 0 order by component_kind desc"""
    ):
        noun = wording.KIND_NOUNS[row["component_kind"]][1]
        parts.append(
            f"{noun} hold relation answer {int(row['member_count']):,} times over all relations,"
            f" {wording.decimal(row['expected_count'], 1)} times would be expected if relations meant nothing, and"
            f" {wording.integer(row['specific_count'])} are specific"
        )
    found = f" At {last_label(partition)}, {'; '.join(parts)}." if parts else ""
    return Prose(
        [
            "Relation answer and fact answer are any-of-many roles: a component that is active now and then, whatever"
            " the relation, passes θ for one of many relations or facts by chance. The counts by primary role, at the"
            " top, are not compared with chance and do not show that a component is specific. The counts of relation"
            " answer by relation stand beside the number that chance gives, and the table of specific roles names the"
            f" components that a test against chance finds.{found}",
            "Fact answer has neither: it is compared with chance only where facts have at least 3 templates, and then"
            " few facts can pass.",
        ],
        "Counts of relation and fact roles",
        is_caution=True,
    )


def _specification(
    axis: charts.TrainingAxis, rows: list[Row], role: str, reference: str, words: str, caption: str, kind: Control
) -> Row:
    relations = list(dict.fromkeys(row["relation_id"] for row in rows))
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "kind": row["component_kind"],
            "panel": row["relation_id"],
            "panel_index": relations.index(row["relation_id"]),
            "members": row["member_count"],
            "low": charts.rounded(row.get("member_count_low")),
            "high": charts.rounded(row.get("member_count_high")),
            "reference": charts.rounded(row[reference]),
            "specific": row["specific_count"],
        }
        for row in rows
    ]
    base = axis.base(points).transform_filter(f"datum.kind == {kind.control_id}")
    panel = alt.Chart().encode(x=axis.x())
    colour, title = charts.ROLE_COLOURS[role], "components"

    # Stated for each kind, because a layer may be without rows of one.
    drawn = ("members", "high", "reference", "specific")
    limits = {
        one: max([1, *(point[name] or 0 for point in points if point["kind"] == one for name in drawn)])
        for one, _ in kind.options
    }
    scale = alt.Scale(domain=[0, alt.ExprRef(f"{_LIMITS}[{kind.control_id}]")], nice=True)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=title, scale=scale, axis=charts.count_axis(3))

    def has(field: str) -> bool:
        return any(point[field] is not None for point in points)

    known = {field: panel.transform_filter(f"isValid(datum.{field})") for field in ("low", "reference", "specific")}
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("panel:N", title="relation"),
        alt.Tooltip("members:Q", title="hold the role"),
        *(
            alt.Tooltip(f"{field}:Q", title=name, format=form)
            for field, name, form in (
                ("low", "95 % low", ".1f"),
                ("high", "95 % high", ".1f"),
                ("reference", words, ".1f"),
                ("specific", "specific", "d"),
            )
            if has(field)
        ),
    ]
    layers = [
        *([axis.band(known["low"]).encode(color=alt.value(colour), y=y("low"), y2="high:Q", detail="line:N")]
          * has("low")),
        *([known["reference"].mark_line(strokeWidth=1.5, strokeDash=[4, 3], color=_REFERENCE, point=len(axis.rows) == 1)
           .encode(y=y("reference"), detail="line:N")] * has("reference")),
        panel.mark_line(strokeWidth=2, color=colour).encode(y=y("members"), detail="line:N"),
        panel.mark_point(size=22, opacity=1, color=colour).encode(y=y("members"), tooltip=tooltip),
        *([known["specific"].mark_line(strokeWidth=1, color=_SPECIFIC).encode(y=y("specific"), detail="line:N"),
           known["specific"].mark_point(size=16, opacity=1, shape="square", color=_SPECIFIC)
           .encode(y=y("specific"), tooltip=tooltip)] * has("specific")),
        *axis.boundary_layers(),
    ]  # fmt: skip
    chart = charts.small_multiples(base, layers, height=110)
    parameters = [charts.bound(kind.control_id, kind.selected), {"name": _LIMITS, "value": limits}]
    return charts.specification(chart, caption, parameters)


def _relation_caption(partition: Partition, last: list[Row], kind: str) -> str:
    counts = [row["member_count"] for row in last]
    relations = wording.count(len(last), "relation")
    if not any(counts):
        return f"At {last_label(partition)} no {wording.KIND_NOUNS[kind][0]} holds it for any of {relations}."
    certain = sum(row["member_count_low"] > row["expected_count"] for row in last
                  if None not in (row["member_count_low"], row["expected_count"]))  # fmt: skip
    specific = sum(bool(row["specific_count"]) for row in last)
    between = f"{counts[0]:,}" if len({*counts}) == 1 else f"between {min(counts):,} and {max(counts):,}"
    return (
        f"At {last_label(partition)} {between} {wording.KIND_NOUNS[kind][1]} hold it for a relation; the whole interval"
        f" lies above what chance gives in {certain} of {relations}, and {specific} of them"
        f" {'has' if specific == 1 else 'have'} a specific one."
    )


def _fact_caption(partition: Partition, last: list[Row], kind: str) -> str:
    counts = [row["member_count"] for row in last]
    if not any(counts):
        return f"At {last_label(partition)} no {wording.KIND_NOUNS[kind][0]} holds it for any fact."
    rarefied = [row["rarefied_count"] for row in last if row["rarefied_count"] is not None]
    thin = f", {min(rarefied):,.1f} to {max(rarefied):,.1f} with 12 facts" if rarefied else ""
    between = f"{counts[0]:,}" if len({*counts}) == 1 else f"between {min(counts):,} and {max(counts):,}"
    return f"At {last_label(partition)} {between} {wording.KIND_NOUNS[kind][1]} hold it in a relation{thin}."
