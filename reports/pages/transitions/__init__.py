"""How components move between roles: over training, from one checkpoint to the next, and how long roles last."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Controls, Figure, Page, Prose, Table, source_line
from timecourse.reports.pages.transitions.flows import flows
from timecourse.reports.pages.transitions.spells import change_map, durations, repurposings
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "transitions", "Transitions"

_PAIR = "pair"
_ALL = "-1"
"""In the place of a transition's index: all of them together."""


def build(partition: Partition) -> Page:
    """Flows, transition matrices, durations and repurposings of one partition."""
    pairs = partition.rows(
        """select distinct later.checkpoint_index as pair, from_checkpoint_id, to_checkpoint_id
        from fct_role_transitions join checkpoints as later on later.checkpoint_id = to_checkpoint_id order by pair"""
    )
    lead = (
        "How components move between primary roles: over the whole of training, from one checkpoint to the next, and"
        " how long they stay."
    )
    if not pairs:
        return Page(SLUG, TITLE, lead, [Prose(["There is one checkpoint: no transition to show."])])
    names = {_ALL: "all transitions"} | {
        str(row["pair"]): (
            f"{partition.labels[row['from_checkpoint_id']]} → {partition.labels[row['to_checkpoint_id']]}"
        )
        for row in pairs
    }
    kinds = list(wording.KIND_NOUNS)
    return Page(
        SLUG,
        TITLE,
        lead,
        [
            *(flows(partition, kind) for kind in kinds),
            Controls([Control(_PAIR, "Transition", list(names.items()), _ALL)]),
            *(_matrix(partition, kind, len(pairs)) for kind in kinds),
            *(_switches(partition, kind) for kind in kinds),
            *(figure for kind in kinds for figure in durations(partition, kind)),
            *(figure for kind in kinds for figure in change_map(partition, kind)),
            *(figure for kind in kinds for figure in repurposings(partition, kind)),
        ],
    )


def _matrix(partition: Partition, kind: str, transition_count: int) -> Figure:
    sql = f"""select {_ALL} as pair, 'each' as from_checkpoint, 'its next' as to_checkpoint, from_role, to_role,
            sum(component_count)::integer as component_count,
            sum(component_count) / nullif(sum(sum(component_count)) over (partition by from_role), 0) as share
        from fct_role_transitions where component_kind = '{kind}' group by from_role, to_role
        union all
        select later.checkpoint_index, earlier.checkpoint_name, later.checkpoint_name, from_role, to_role,
            component_count, share
        from fct_role_transitions
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id
        where component_kind = '{kind}'
        order by pair, list_position({list(charts.PRIMARY_ROLES)}, from_role),
            list_position({list(charts.PRIMARY_ROLES)}, to_role)"""
    rows = partition.rows(sql)
    noun = wording.KIND_NOUNS[kind][1]
    points = [
        {
            "pair": row["pair"],
            "from": row["from_role"],
            "to": row["to_role"],
            "components": row["component_count"],
            "share": charts.rounded(row["share"]),
        }
        for row in rows
    ]
    caption = _matrix_caption(rows, kind, transition_count)
    return Figure(
        f"matrix-{kind}",
        f"From role to role: {noun}",
        f"Number of {noun} by primary role at the first (rows) and at the second checkpoint (columns); the shade is"
        f" the share of the row. The diagonal stayed. Over all transitions, every {wording.KIND_NOUNS[kind][0]} counts"
        " once for each.",
        caption,
        source_line(partition),
        charts.specification(_matrix_chart(points), caption, [charts.bound(_PAIR, _ALL)]) if rows else None,
        Table(
            f"transitions-matrix-{kind}",
            [
                Column("from_checkpoint", "From"),
                Column("to_checkpoint", "To"),
                Column("from_role", "Role before", "role"),
                Column("to_role", "Role after", "role"),
                Column("component_count", noun, "count"),
                Column("share", "Share of the role before", "percent"),
            ],
            rows,
            row_limit=25 * 200,
            filter_control=_PAIR,
            filter_key="pair",
        ),
        empty=None if rows else f"This release holds no {noun}.",
        is_half=True,
        query=partition.standalone(sql),
    )


def _matrix_chart(points: list[Row]) -> alt.LayerChart | alt.FacetChart:
    order = list(charts.PRIMARY_ROLES)
    label = charts.role_name_expression("datum.label")
    base = (
        charts.chart_of(points)
        .transform_filter(f"datum.pair == toNumber({_PAIR})")
        .encode(
            x=alt.X("to:N", title="role after", sort=order, scale=alt.Scale(domain=order),
                    axis=alt.Axis(labelExpr=label, labelAngle=-30, orient="top", ticks=False, domain=False)),
            y=alt.Y("from:N", title="role before", sort=order, scale=alt.Scale(domain=order),
                    axis=alt.Axis(labelExpr=label, ticks=False, domain=False)),
            tooltip=[
                alt.Tooltip("from:N", title="before"),
                alt.Tooltip("to:N", title="after"),
                alt.Tooltip("components:Q"),
                alt.Tooltip("share:Q", title="share of the role before", format=".1%"),
            ],
        )
    )  # fmt: skip
    shade = alt.Color("share:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=charts.SEQUENTIAL))
    cells = base.mark_rect(stroke="#ffffff", strokeWidth=2, invalid=None).encode(color=shade)
    counts = base.mark_text(fontSize=13).encode(
        text=alt.Text("components:Q", format=","),
        color=alt.condition("datum.share > 0.5", alt.value("#ffffff"), alt.value("#1f2428")),
    )
    return alt.layer(cells, counts).properties(
        width="container", height=250, padding={"left": 5, "top": 5, "right": 28, "bottom": 5}
    )


def _matrix_caption(rows: list[Row], kind: str, transition_count: int) -> str:
    """Over all transitions: how many stayed, and the largest change."""
    if not rows:
        return ""
    pooled = [row for row in rows if str(row["pair"]) == _ALL]
    total = sum(row["component_count"] for row in pooled)
    stayed = sum(row["component_count"] for row in pooled if row["from_role"] == row["to_role"])
    moves = [row for row in pooled if row["from_role"] != row["to_role"] and row["component_count"]]
    text = (
        f"Over {wording.count(transition_count, 'transition')}: of {total:,} times that a {wording.KIND_NOUNS[kind][0]}"
        f" came to the next checkpoint, it kept its primary role {stayed:,} times"
    )
    if moves:
        top = max(moves, key=lambda row: row["component_count"])
        text += (
            f"; the most frequent change is {wording.ROLE_LABELS[top['from_role']]} to"
            f" {wording.ROLE_LABELS[top['to_role']]} ({wording.count(top['component_count'], 'time')})"
        )
    return text + ". Rows without any component have no share."


def _switches(partition: Partition, kind: str) -> Figure:
    counts = ["from_count", "to_count", "left_count", "entered_count", "deactivated_count", "activated_count"]
    counts += [f"switched_to_{role}_count" for role in charts.ROLES]
    sql = f"""select {_ALL} as pair, 'each' as from_checkpoint, 'its next' as to_checkpoint, role,
            {", ".join(f"sum({count})::integer as {count}" for count in counts)}
        from fct_role_switches where component_kind = '{kind}' group by role
        union all
        select later.checkpoint_index, earlier.checkpoint_name, later.checkpoint_name, role, {", ".join(counts)}
        from fct_role_switches
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id
        where component_kind = '{kind}' order by pair, list_position({list(charts.ROLES)}, role)"""
    rows = partition.rows(sql)
    noun = wording.KIND_NOUNS[kind][1]
    return Figure(
        f"switches-{kind}",
        f"Members that left, entered and switched: {noun}",
        "By role, sets united over relations and facts. Deactivated: left and holds no role after. Activated:"
        " entered and held none before. Now in a role: left this one and holds that one after, whether or not it"
        " did before (n/a for the role itself); a component can count under several. Over all transitions, the counts"
        " are sums.",
        "",
        source_line(partition),
        None,
        Table(
            f"transitions-switches-{kind}",
            [
                Column("from_checkpoint", "From"),
                Column("to_checkpoint", "To"),
                Column("role", "Role", "role"),
                Column("from_count", "Before", "count"),
                Column("to_count", "After", "count"),
                Column("left_count", "Left", "count"),
                Column("entered_count", "Entered", "count"),
                Column("deactivated_count", "Deactivated", "count"),
                Column("activated_count", "Activated", "count"),
                *(
                    Column(f"switched_to_{role}_count", f"Now {wording.ROLE_LABELS[role]}", "count")
                    for role in charts.ROLES
                ),
            ],
            rows,
            row_limit=4 * 200,
            filter_control=_PAIR,
            filter_key="pair",
        ),
        empty=None if rows else f"This release holds no {noun}.",
        is_table_open=True,
        query=partition.standalone(sql),
    )
