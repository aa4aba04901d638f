"""How components flow from role to role over a few checkpoints: ribbons whose width is their number."""

import json

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, Table, source_line
from timecourse.reports.partition import Partition, Row

_COLUMN_LIMIT = 8
_GAP = 0.055
"""Between two roles of a checkpoint, in shares of all components."""


def flows(partition: Partition, kind: str) -> Figure:
    """The flow of one kind of component over the checkpoints that lead to the reference, at most eight of them."""
    chosen, line_count = _chosen(partition)
    sql = f"""select place, from_checkpoint, to_checkpoint, from_role, to_role, count(*)::integer as component_count,
            component_count / sum(component_count) over (partition by place, from_role) as share,
            sum(component_count) over (partition by place, from_role)::integer as from_count,
            sum(component_count) over (partition by place, to_role)::integer as to_count
        from (
            select component_id, checkpoint_index, checkpoint_name as from_checkpoint, primary_role as from_role,
                lead(checkpoint_name) over line as to_checkpoint, lead(primary_role) over line as to_role,
                list_position({chosen}, checkpoint_index) - 1 as place
            from fct_component_histories join checkpoints using (checkpoint_id)
            where component_kind = '{kind}' and checkpoint_index in ({", ".join(map(str, chosen))})
            window line as (partition by component_id order by checkpoint_index)
        )
        where to_role is not null
        group by place, from_checkpoint, to_checkpoint, from_role, to_role
        order by place, list_position({list(charts.PRIMARY_ROLES)}, from_role),
            list_position({list(charts.PRIMARY_ROLES)}, to_role)"""
    rows = partition.rows(sql)
    noun = wording.KIND_NOUNS[kind][1]
    caption = _caption(partition, rows, kind, chosen) if rows else ""
    few = (
        f"The columns are {len(chosen)} of the {line_count} checkpoints that lead to the reference, evenly chosen"
        if len(chosen) < line_count
        else "The columns are the checkpoints that lead to the reference"
    )
    return Figure(
        f"flow-{kind}",
        f"From the first checkpoint to the last: roles of {noun}",
        f"Every {wording.KIND_NOUNS[kind][0]} counts under its primary role; a ribbon is as wide as the number of"
        f" {noun} that go from one role to the other, in the colour of the role they come from. Stronger ribbons"
        f" change their role. {few}: what happens between two of them is not seen.",
        caption,
        source_line(partition),
        charts.specification(_chart(partition, rows, chosen, 330 if kind == "head" else 230), caption)
        if rows
        else None,
        Table(
            f"transitions-flow-{kind}",
            [
                Column("from_checkpoint", "From"),
                Column("to_checkpoint", "To"),
                Column("from_role", "Role before", "role"),
                Column("to_role", "Role after", "role"),
                Column("component_count", noun, "count"),
                Column("share", "Share of the role before", "percent"),
                Column("from_count", "All of the role before", "count"),
                Column("to_count", "All of the role after", "count"),
            ],
            rows,
        ),
        legend=[(role, wording.ROLE_LABELS[role]) for role in charts.PRIMARY_ROLES],
        empty=None if rows else f"This release holds no {noun} at two of these checkpoints.",
        query=partition.standalone(sql),
    )


def _chosen(partition: Partition) -> tuple[list[int], int]:
    """Indices of the checkpoints that are shown, evenly chosen of those that lead to the reference, and the latter's n.

    The last transition of all takes the reference's place where the reference has no roles.
    """
    pairs = partition.rows(
        """select distinct later.checkpoint_index as later, earlier.checkpoint_index as earlier
        from fct_role_transitions
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id order by later, earlier"""
    )
    before = {row["later"]: row["earlier"] for row in pairs}
    reference = partition.reference["checkpoint_index"]
    line = [reference if reference in before else max(before)]
    while line[-1] in before:
        line.append(before[line[-1]])
    line.reverse()
    count = min(len(line), _COLUMN_LIMIT)
    return [line[round(place * (len(line) - 1) / (count - 1))] for place in range(count)], len(line)


def _chart(partition: Partition, rows: list[Row], chosen: list[int], height: int) -> alt.LayerChart | alt.FacetChart:
    names = json.dumps([partition.checkpoints[index]["label"] for index in chosen])
    order = list(charts.PRIMARY_ROLES)
    last = len(chosen) - 1
    total = max(sum(row["component_count"] for row in rows if row["place"] == place) for place in range(last))
    gap = _GAP * total
    labels = [partition.checkpoints[index]["checkpoint_name"] for index in chosen]
    ribbons = [
        {
            "place": row["place"],
            "from": order.index(row["from_role"]),
            "to": order.index(row["to_role"]),
            "components": row["component_count"],
            "share": charts.rounded(row["share"]),
        }
        for row in rows
    ]
    nodes = {(row["place"], row["from_role"]): row["from_count"] for row in rows}
    nodes |= {(last, row["to_role"]): row["to_count"] for row in rows if row["place"] == last - 1}
    points = [
        {"place": place, "role": order.index(role), "components": count, "checkpoint": labels[place]}
        for (place, role), count in nodes.items()
    ]
    role_names = json.dumps([wording.ROLE_LABELS[role] for role in order])
    colours = [charts.ROLE_COLOURS[role] for role in order]
    scale = alt.Scale(domain=list(range(len(order))), range=colours)
    x = alt.X(
        "x:Q",
        title="checkpoint",
        scale=alt.Scale(domain=[0, last], nice=False, zero=False, padding=8),
        axis=alt.Axis(
            values=list(range(last + 1)), labelExpr=f"{names}[datum.value]", labelAngle=-40, labelLimit=90, grid=False,
            ticks=False, domain=False,
        ),
    )  # fmt: skip
    y = alt.Scale(domain=[total + (len(order) - 1) * gap, 0], nice=False, zero=False)

    def from_top(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=None, axis=None, scale=y)

    # Each end of a ribbon lies among those of its role, in the order of the roles at the other end.
    by_from, by_to = alt.SortField("from"), alt.SortField("to")
    smooth = "datum.t * datum.t * (3 - 2 * datum.t)"
    ribbon = (
        charts.chart_of(ribbons)
        .transform_stack(stack="components", as_=["left", "left_end"], groupby=["place"], sort=[by_from, by_to])
        .transform_stack(stack="components", as_=["right", "right_end"], groupby=["place"], sort=[by_to, by_from])
        .transform_calculate(
            t="sequence(0, 1.05, 0.1)",
            before=f"{role_names}[datum.from]",
            after=f"{role_names}[datum.to]",
            is_change="datum.from !== datum.to",
        )
        .transform_flatten(["t"])
        .transform_calculate(
            x="datum.place + datum.t",
            top=f"datum.left + datum.from * {gap} + (datum.right - datum.left + (datum.to - datum.from) * {gap})"
            f" * {smooth}",
            bottom="datum.top + datum.components",
        )
        .mark_area()
        .encode(
            x=x,
            y=from_top("top"),
            y2="bottom:Q",
            color=alt.Color("from:N", legend=None, scale=scale),
            opacity=alt.condition("datum.is_change", alt.value(0.65), alt.value(0.25)),
            detail=["place:N", "to:N"],
            tooltip=[
                alt.Tooltip("before:N"),
                alt.Tooltip("after:N"),
                alt.Tooltip("components:Q"),
                alt.Tooltip("share:Q", title="share of the role before", format=".1%"),
            ],
        )
    )
    node = (
        charts.chart_of(points)
        .transform_stack(stack="components", as_=["start", "end"], groupby=["place"], sort=[alt.SortField("role")])
        .transform_calculate(
            x="datum.place",
            top=f"datum.start + datum.role * {gap}",
            bottom=f"datum.end + datum.role * {gap}",
            middle="(datum.top + datum.bottom) / 2",
            name=f"{role_names}[datum.role]",
        )
        .encode(x=x)
    )
    text = node.encode(y=from_top("middle"))
    chart: alt.LayerChart = (
        alt.layer(
            ribbon,
            node.mark_bar(width=alt.ExprRef(f"min(9, width / {4 * last})")).encode(
                y=from_top("top"),
                y2="bottom:Q",
                color=alt.Color("role:N", legend=None, scale=scale),
                tooltip=[alt.Tooltip("checkpoint:N"), alt.Tooltip("name:N", title="role"), alt.Tooltip("components:Q")],
            ),
            text.transform_filter(f"datum.place < {last}")
            .mark_text(
                align="left", dx=7, fontSize=10, color="#24292e", opacity=alt.ExprRef(f"width >= {44 * last} ? 1 : 0")
            )
            .encode(text=alt.Text("components:Q", format=",")),
            text.transform_filter(f"datum.place === {last}")
            .transform_calculate(label="format(datum.components, ',') + ' ' + datum.name")
            .mark_text(align="left", dx=8, fontSize=11, color="#24292e")
            .encode(text="label:N"),
        )
        .resolve_scale(color="shared")
        .properties(width="container", height=height)
    )
    return chart


def _caption(partition: Partition, rows: list[Row], kind: str, chosen: list[int]) -> str:
    """How many components each role has at the first and at the last checkpoint."""
    last = rows[-1]["place"]
    ends = [
        (chosen[0], {row["from_role"]: row["from_count"] for row in rows if row["place"] == rows[0]["place"]}),
        (chosen[-1], {row["to_role"]: row["to_count"] for row in rows if row["place"] == last}),
    ]
    sentences = []
    for index, counts in ends:
        parts = [f"{counts[role]:,} {wording.ROLE_LABELS[role]}" for role in charts.PRIMARY_ROLES if role in counts]
        label = partition.label_at(index)
        of = wording.kind_count(sum(counts.values()), kind)
        sentences.append(f"At {label}, of {of}: {wording.listing(parts)}.")
    return " ".join(sentences)
