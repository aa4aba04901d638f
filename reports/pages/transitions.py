"""How components move between roles from one checkpoint to the next."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Controls, Figure, Page, Prose, Table, source_line
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "transitions", "Transitions"

_PAIR = "pair"


def build(partition: Partition) -> Page:
    """Transition matrices and switches of one partition."""
    pairs = partition.rows(
        """select distinct later.checkpoint_index as pair, from_checkpoint_id, to_checkpoint_id
        from fct_role_transitions join checkpoints as later on later.checkpoint_id = to_checkpoint_id order by pair"""
    )
    lead = "Which primary role the components of each role have at the next checkpoint, for any consecutive two."
    if not pairs:
        return Page(SLUG, TITLE, lead, [Prose(["There is one checkpoint: no transition to show."])])
    options = [
        (
            str(row["pair"]),
            f"{partition.labels[row['from_checkpoint_id']]} → {partition.labels[row['to_checkpoint_id']]}",
        )
        for row in pairs
    ]
    names = dict(options)
    last = options[-1][0]
    return Page(
        SLUG,
        TITLE,
        lead,
        [
            Controls([Control(_PAIR, "Transition", options, last)]),
            *(_matrix(partition, kind, names) for kind in ("head", "ffn")),
            *(_switches(partition, kind, names) for kind in ("head", "ffn")),
        ],
    )


def _matrix(partition: Partition, kind: str, names: dict[str, str]) -> Figure:
    rows = partition.rows(
        f"""select later.checkpoint_index as pair, earlier.checkpoint_name as from_checkpoint,
            later.checkpoint_name as to_checkpoint, from_role, to_role, component_count, share
        from fct_role_transitions
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id
        where component_kind = '{kind}'
        order by pair, list_position({list(charts.PRIMARY_ROLES)}, from_role),
            list_position({list(charts.PRIMARY_ROLES)}, to_role)"""
    )
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
    caption = _matrix_caption(rows, kind, names)
    return Figure(
        f"matrix-{kind}",
        f"From role to role: {noun}",
        f"Number of {noun} by primary role at the first (rows) and at the second checkpoint (columns); the shade is"
        " the share of the row. The diagonal stayed.",
        caption,
        source_line(partition),
        charts.specification(_matrix_chart(points), caption, [charts.bound(_PAIR, list(names)[-1])]) if rows else None,
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


def _matrix_caption(rows: list[Row], kind: str, names: dict[str, str]) -> str:
    if not rows:
        return ""
    pair = int(list(names)[-1])
    final = [row for row in rows if row["pair"] == pair]
    total = sum(row["component_count"] for row in final)
    stayed = sum(row["component_count"] for row in final if row["from_role"] == row["to_role"])
    moves = [row for row in final if row["from_role"] != row["to_role"] and row["component_count"]]
    text = f"{names[str(pair)]}: {stayed:,} of {wording.kind_count(total, kind)} kept their primary role"
    if moves:
        top = max(moves, key=lambda row: row["component_count"])
        text += (
            f"; the largest change is {wording.ROLE_LABELS[top['from_role']]} to {wording.ROLE_LABELS[top['to_role']]}"
            f" ({wording.kind_count(top['component_count'], kind)})"
        )
    return text + ". Rows without any component have no share."


def _switches(partition: Partition, kind: str, names: dict[str, str]) -> Figure:
    rows = partition.rows(
        f"""select later.checkpoint_index as pair, earlier.checkpoint_name as from_checkpoint,
            later.checkpoint_name as to_checkpoint, role, from_count, to_count, left_count, entered_count,
            deactivated_count, activated_count, switched_to_general_count, switched_to_entity_count,
            switched_to_relation_answer_count, switched_to_fact_answer_count
        from fct_role_switches
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id
        where component_kind = '{kind}' order by pair, list_position({list(charts.ROLES)}, role)"""
    )
    noun = wording.KIND_NOUNS[kind][1]
    return Figure(
        f"switches-{kind}",
        f"Members that left, entered and switched: {noun}",
        "By role, sets united over relations and facts. Deactivated: left and holds no role after. Activated:"
        " entered and held none before. Now in a role: left this one and holds that one after, whether or not it"
        " did before (n/a for the role itself); a component can count under several.",
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
    )
