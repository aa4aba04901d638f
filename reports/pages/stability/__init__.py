"""How stable roles are: overlap with the reference and with the previous checkpoint, turnover, drift and seeds."""

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, Page, Prose, Table, checkpoint_table, source_line
from timecourse.reports.pages.stability.overlaps import overlaps
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "stability", "Stability"

_DRIFT, _LIMITS = "drift_measure", "drift_limits"
_DRIFTS = {"contribution_distance": "distance", "rank_correlation": "rank correlation"}
_FLAGS = {"suspect": "looks broken", "identical": "identical", "outlier": "unusually far", "none": "as usual"}
_TURNOVER_COLOURS = {"all": charts.CSS_COLOURS["all"]} | {role: charts.ROLE_COLOURS[role] for role in charts.ROLES}


def build(partition: Partition) -> Page:
    """Overlaps, turnover and drift of one partition."""
    axis = charts.training_axis(partition.checkpoints)
    return Page(
        SLUG,
        TITLE,
        "How much the set of components in a role overlaps with the same role's set at the reference checkpoint"
        " and at the checkpoint before, how many change their role, and how far what they contribute moves.",
        [
            Prose(
                [
                    "IoU (intersection over union) is 1 where two sets are equal and 0 where they share nothing."
                    " Where both sets are empty it is not defined: the line is interrupted and the table says n/a."
                    f" {partition.reference_words}. Its overlap with itself is 1 by definition.",
                    "Two lines say how to read an overlap. Random sets of the same sizes overlap as far as the dotted"
                    " line says: heads drawn within the same layers, FFNs from all. A role that does not change at"
                    " all, seen through other facts, reaches the dashed line: the overlap of the sets that two halves"
                    " of the facts give at this checkpoint. Corrected for chance, 0 is chance and 1 is the largest"
                    " overlap that sets of these sizes can have; it is n/a, and nothing is drawn, where chance already"
                    " is the largest. Corrected for noise, 1 is a role that does not change. Bands are 95\u00a0%"
                    " intervals over draws of the facts; what reaches beyond an axis is cut off.",
                ],
                "How to read this page",
            ),
            *overlaps(partition, axis),
            *(_turnover(partition, axis, kind) for kind in wording.KIND_NOUNS),
            *_drift(partition, axis),
            *_seeds(partition, axis),
        ],
        axis,
    )


def _turnover(partition: Partition, axis: charts.TrainingAxis, kind: str) -> Figure:
    sql = f"""select later.checkpoint_index as checkpoint_index, earlier.checkpoint_name as from_checkpoint,
            later.checkpoint_name as to_checkpoint, component_kind, role, changed_count, component_count, turnover,
            turnover_low, turnover_high
        from fct_turnovers
        join checkpoints as earlier on earlier.checkpoint_id = from_checkpoint_id
        join checkpoints as later on later.checkpoint_id = to_checkpoint_id
        where component_kind = '{kind}' and role <> 'inactive'
        order by list_position({list(_TURNOVER_COLOURS)}, role), later.checkpoint_index"""
    rows = partition.rows(sql)
    noun = wording.KIND_NOUNS[kind][1]
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "role": row["role"],
            "panel": "all roles" if row["role"] == "all" else wording.ROLE_LABELS[row["role"]],
            "panel_index": list(_TURNOVER_COLOURS).index(row["role"]),
            "value": charts.rounded(row["turnover"]),
            "low": charts.rounded(row["turnover_low"]),
            "high": charts.rounded(row["turnover_high"]),
            "changed": row["changed_count"],
            "of": row["component_count"],
        }
        for row in rows
    ]
    total = [row for row in rows if row["role"] == "all" and row["turnover"] is not None]
    caption = _turnover_caption(total, kind) if total else ""
    nothing = (
        "There is one checkpoint: no transition." if len(partition.checkpoints) == 1
        else f"No {noun} hold a role at any checkpoint: turnover is n/a throughout."
    )  # fmt: skip
    return Figure(
        f"turnover-{kind}",
        f"Turnover per transition: {noun}",
        f"Share of {noun} whose primary role changed since the checkpoint before, of those that hold a role at"
        " either end. By role: of those whose primary role is this one at either end. Bands are 95\u00a0% intervals"
        " over draws of the facts. Noise near the threshold counts as change: compare turnovers with each other only.",
        caption,
        source_line(partition),
        charts.specification(_turnover_chart(axis, points), caption) if total else None,
        Table(
            f"stability-turnover-{kind}",
            [
                Column("from_checkpoint", "From"),
                Column("to_checkpoint", "To"),
                Column("role", "Role", "role"),
                Column("changed_count", "Changed", "count"),
                Column("component_count", "of", "count"),
                Column("turnover", "Turnover", "percent"),
                Column("turnover_low", "95 % low", "percent"),
                Column("turnover_high", "95 % high", "percent"),
            ],
            rows,
        ),
        empty=None if total else nothing,
        query=partition.standalone(sql),
    )


def _turnover_chart(axis: charts.TrainingAxis, points: list[Row]) -> alt.FacetChart:
    """One panel per role."""
    scale = alt.Scale(domain=list(_TURNOVER_COLOURS), range=list(_TURNOVER_COLOURS.values()))
    y = alt.Y("value:Q", title="turnover", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", tickCount=3))
    panel = alt.Chart().encode(x=axis.x(), detail="line:N", color=alt.Color("role:N", legend=None, scale=scale))
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("panel:N", title="role"),
        alt.Tooltip("value:Q", title="turnover", format=".1%"),
        alt.Tooltip("low:Q", title="95 % low", format=".1%"),
        alt.Tooltip("high:Q", title="95 % high", format=".1%"),
        alt.Tooltip("changed:Q", title="changed"),
        alt.Tooltip("of:Q", title="of"),
    ]
    interval = y.copy()
    interval.shorthand = "low:Q"
    layers = [
        axis.band(panel).encode(y=interval, y2="high:Q"),
        panel.mark_line(strokeWidth=2).encode(y=y),
        panel.mark_point(size=26, opacity=1).encode(y=y, tooltip=tooltip),
        *axis.boundary_layers(),
    ]
    return charts.small_multiples(axis.base(points), layers, height=100)


def _turnover_caption(rows: list[Row], kind: str) -> str:
    """The transitions with the least and with the most turnover; `rows`: of all roles together."""
    parts = []
    for row in (min(rows, key=lambda row: row["turnover"]), max(rows, key=lambda row: row["turnover"])):
        has_interval = row["turnover_low"] is not None
        interval = f", {wording.interval(row['turnover_low'], row['turnover_high'])}" if has_interval else ""
        of = f"{row['changed_count']:,} of {wording.kind_count(row['component_count'], kind)}"
        parts.append(f"{wording.percent(row['turnover'])} ({of}{interval})")
    return f"All roles, {wording.count(len(rows), 'transition')}: between {parts[0]} and {parts[1]}."


def _drift(partition: Partition, axis: charts.TrainingAxis) -> list[Figure]:
    """How far contributions move between neighbours; nothing where the release does not hold it."""
    if not partition.has_mart("fct_checkpoint_drifts"):
        return []
    sql = """select later.checkpoint_index as checkpoint_index, earlier.checkpoint_name as from_checkpoint,
            later.checkpoint_name as to_checkpoint, component_kind, contribution_distance, typical_distance,
            distance_ratio, rank_correlation, bypass_distance, is_outlier, is_identical, is_suspect
        from fct_checkpoint_drifts as drifts
        join checkpoints as earlier on earlier.checkpoint_id = previous_checkpoint_id
        join checkpoints as later on later.checkpoint_id = drifts.checkpoint_id
        order by list_position(['head', 'ffn', 'all'], component_kind), later.checkpoint_index"""
    rows = partition.rows(sql)
    caption = _drift_caption(partition, rows) if rows else ""
    control = Control(_DRIFT, "Shown", list(_DRIFTS.items()), "contribution_distance")
    nothing = (
        "There is one checkpoint: no neighbour to compare it with." if len(partition.checkpoints) == 1
        else "No two neighbouring checkpoints have contributions."
    )  # fmt: skip
    return [
        Figure(
            "drift",
            "Drift: how far contributions move from one checkpoint to the next",
            "Distance of the components' contributions from those at the checkpoint before, free of any threshold: 0"
            " where every component contributes what it did, 1 where nothing is left of it. Thin lines: the median"
            " of the series' other transitions. A checkpoint looks broken where its neighbours are less than half as"
            " far from each other as it is from both; it is unusually far where the distance is more than three times"
            " the median and far outside the others' spread. Rank correlation: Spearman's, over components.",
            caption,
            source_line(partition, uses_tau=False),
            charts.specification(
                _drift_chart(axis, rows), caption,
                [charts.bound(_DRIFT, "contribution_distance"), {"name": _LIMITS, "value": _drift_limits(rows)}],
            ) if rows else None,
            Table(
                "stability-drift",
                [
                    Column("from_checkpoint", "From"),
                    Column("to_checkpoint", "To"),
                    Column("component_kind", "Kind"),
                    Column("contribution_distance", "Distance", "decimal"),
                    Column("typical_distance", "Typical distance", "decimal"),
                    Column("distance_ratio", "Ratio", "rank"),
                    Column("rank_correlation", "Rank correlation", "decimal"),
                    Column("bypass_distance", "Distance past it", "decimal"),
                    Column("is_outlier", "Unusually far", "flag"),
                    Column("is_identical", "Identical", "flag"),
                    Column("is_suspect", "Looks broken", "flag"),
                ],
                rows,
            ),
            legend=[(kind, nouns[1]) for kind, nouns in wording.KIND_NOUNS.items()] if rows else (),
            controls=[control] if rows else (),
            empty=None if rows else nothing,
            query=partition.standalone(sql),
        )
    ]  # fmt: skip


def _flag(row: Row) -> str:
    """The gravest of what is unusual about a transition (a key of `_FLAGS`)."""
    return next((flag for flag in list(_FLAGS)[:-1] if row[f"is_{flag}"]), "none")


def _drift_limits(rows: list[Row]) -> dict[str, list[float]]:
    """Measure -> ends of its axis."""
    largest = max(row["contribution_distance"] for row in rows)
    correlations = [row["rank_correlation"] for row in rows if row["rank_correlation"] is not None]
    return {"contribution_distance": [0, 1.05 * largest or 1], "rank_correlation": [min([0, *correlations]), 1]}


def _drift_chart(axis: charts.TrainingAxis, rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "kind": row["component_kind"],
            "from": row["from_checkpoint"],
            "flag": _FLAGS[_flag(row)],
            "typical": charts.rounded(row["typical_distance"]),
            **{column: charts.rounded(row[column]) for column in _DRIFTS},
        }
        for row in rows
        if row["component_kind"] in wording.KIND_NOUNS
    ]
    kinds = list(wording.KIND_NOUNS)
    colours = alt.Scale(domain=kinds, range=[charts.KIND_COLOURS[kind] for kind in kinds])
    scale = alt.Scale(domain=alt.ExprRef(f"{_LIMITS}[{_DRIFT}]"), nice=False)
    y = alt.Y("value:Q", title="from the checkpoint before", scale=scale, axis=alt.Axis(tickCount=5))
    base = (
        axis.base(points)
        .transform_calculate(
            value=f"datum[{_DRIFT}]", usual=f"{_DRIFT} == 'contribution_distance' ? datum.typical : null"
        )
        .encode(x=axis.x(), color=alt.Color("kind:N", legend=None, scale=colours))
    )
    dash = alt.StrokeDash("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=[[1, 0], [6, 3]]))
    usual = y.copy()
    usual.shorthand = "usual:Q"
    marks = ["cross", "square", "triangle-up", "circle"]
    flags = list(_FLAGS.values())
    present = [flag for flag in flags if any(point["flag"] == flag for point in points)]
    legend = (
        alt.Legend(title=None, orient="top", symbolFillColor="#6a7177", symbolStrokeColor="#6a7177")
        if present != [_FLAGS["none"]]
        else None
    )
    shape = alt.Shape(
        "flag:N",
        legend=legend,
        scale=alt.Scale(
            domain=present, range=[mark for mark, flag in zip(marks, flags, strict=True) if flag in present]
        ),
    )
    tooltip = [
        alt.Tooltip("from:N"),
        alt.Tooltip("checkpoint:N", title="to"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("contribution_distance:Q", title="distance", format=".4f"),
        alt.Tooltip("typical:Q", title="typical", format=".4f"),
        alt.Tooltip("rank_correlation:Q", title="rank correlation", format=".3f"),
        alt.Tooltip("flag:N"),
    ]
    size = alt.condition(f"datum.flag == '{_FLAGS['none']}'", alt.value(30), alt.value(110))
    return alt.layer(
        base.mark_line(strokeWidth=1, opacity=0.7).encode(y=usual, strokeDash=dash, detail="line:N"),
        base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash, detail="line:N"),
        base.mark_point(opacity=1).encode(y=y, shape=shape, size=size, tooltip=tooltip),
        *axis.boundary_layers(),
    ).properties(width="container", height=240)  # fmt: skip


def _drift_caption(partition: Partition, rows: list[Row]) -> str:
    """Where either kind moved furthest, and which checkpoints look broken."""
    names = {row["checkpoint_name"]: partition.labels[row["checkpoint_id"]] for row in partition.checkpoints}
    sentences = []
    for kind, nouns in wording.KIND_NOUNS.items():
        found = [row for row in rows if row["component_kind"] == kind]
        if found:
            far = max(found, key=lambda row: row["contribution_distance"])
            typical = (
                f"; the median of the other transitions is {wording.decimal(far['typical_distance'])}"
                if far["typical_distance"] is not None
                else ""
            )
            sentences.append(
                f"{nouns[1][0].upper()}{nouns[1][1:]} moved furthest to {names[far['to_checkpoint']]}: distance"
                f" {wording.decimal(far['contribution_distance'])}{typical}."
            )
    for flag, words in (("is_suspect", "looks broken"), ("is_identical", "is identical with the one before")):
        flagged = [names[row["to_checkpoint"]] for row in rows if row["component_kind"] == "all" and row[flag]]
        if flagged:
            shown = wording.listing([*flagged[:4], *([f"{len(flagged) - 4:,} more"] * (len(flagged) > 4))])
            sentences.append(f"Over all components, {words}: {shown}.")
        elif flag == "is_suspect":
            sentences.append("Over all components, no checkpoint looks broken.")
    return " ".join(sentences)


def _seeds(partition: Partition, axis: charts.TrainingAxis) -> list[Figure]:
    """How much the roles differ between runs of one recipe; nothing where the release holds no other run."""
    sql = f"""select checkpoint_index, checkpoint_name, component_kind, role, other_series_id, member_count,
            other_member_count, iou, differing_count, component_count, differing_share
        from fct_recipe_overlaps join checkpoints using (checkpoint_id)
        order by checkpoint_index, component_kind desc, other_series_id, other_checkpoint_id,
            list_position({list(_TURNOVER_COLOURS)}, role)"""
    rows = partition.rows(sql)
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
            checkpoint_table(
                partition,
                "stability-seeds",
                rows,
                [
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
            ),
            legend=[(kind, nouns[1]) for kind, nouns in wording.KIND_NOUNS.items()],
            empty=None if points else "No component holds a role in either run: the share is n/a throughout.",
            query=partition.standalone(sql),
        )
    ]
