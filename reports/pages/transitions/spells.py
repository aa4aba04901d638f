"""How long roles last, which components change most often, and what became of those that answered a relation."""

import json

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, Table, interval_columns, source_line
from timecourse.reports.partition import Partition, Row

_OUTCOMES = {"kept": "still answers the relation", "repurposed": "does something else", "dropped": "holds no role"}
_OUTCOME_SWATCHES = {"kept": "top1", "repurposed": "all_tokens", "dropped": "inactive"}
_NUMBERS_LIMIT = 16
"""Heads of a layer up to which the cells of the map have room for their numbers."""


def durations(partition: Partition, kind: str) -> list[Figure]:
    """How long spells in a primary role last, with censoring; nothing where the release does not hold it."""
    if not partition.has_mart("fct_role_durations"):
        return []
    sql = f"""select role, duration, at_risk_count, ended_count, censored_count, lasting_share, lasting_share_low,
            lasting_share_high, spell_count, left_censored_count, right_censored_count
        from fct_role_durations where component_kind = '{kind}'
        order by list_position({list(charts.PRIMARY_ROLES)}, role), duration"""
    rows = partition.rows(sql)
    singular, noun = wording.KIND_NOUNS[kind]
    caption = _duration_caption(rows, kind) if rows else ""
    return [
        Figure(
            f"durations-{kind}",
            f"How long a role lasts: {noun}",
            f"Of the spells that a {singular} spends in one primary role, the share that lasts longer than so many"
            " checkpoints (Kaplan and Meier's estimate). A spell that still lasts at the last checkpoint counts for as"
            " long as it was seen; one that begins at the first checkpoint is left out, since it may have begun before."
            " The band is the pointwise 95 % interval if spells were independent; those of one model are not, so that"
            " it is too narrow. Checkpoints are not equally far apart in training.",
            caption,
            source_line(partition),
            charts.specification(_duration_chart(rows), caption) if rows else None,
            Table(
                f"transitions-durations-{kind}",
                [
                    Column("role", "Role", "role"),
                    Column("duration", "Checkpoints", "count"),
                    Column("at_risk_count", "Spells seen as long", "count"),
                    Column("ended_count", "ended then", "count"),
                    Column("censored_count", "still lasting", "count"),
                    *interval_columns("lasting_share", "Share that lasts longer", "percent"),
                    Column("spell_count", "All spells", "count"),
                    Column("left_censored_count", "lasting from the first", "count"),
                    Column("right_censored_count", "lasting at the last", "count"),
                ],
                rows,
            ),
            legend=[(role, wording.ROLE_LABELS[role]) for role in dict.fromkeys(row["role"] for row in rows)],
            empty=None if rows else f"No {singular} begins a spell in a role after the first checkpoint.",
            is_half=True,
            query=partition.standalone(sql),
        )
    ]


def _duration_chart(rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    roles = list(dict.fromkeys(row["role"] for row in rows))
    nothing = {"low": None, "high": None, "interval": None, "seen": None}
    points = [{"role": role, "duration": 0, "share": 1} | nothing for role in roles]
    points += [
        {
            "role": row["role"],
            "duration": row["duration"],
            "share": charts.rounded(row["lasting_share"]),
            "low": charts.rounded(row["lasting_share_low"]),
            "high": charts.rounded(row["lasting_share_high"]),
            "interval": wording.NOT_AVAILABLE
            if row["lasting_share_low"] is None
            else f"{wording.percent(row['lasting_share_low'])} to {wording.percent(row['lasting_share_high'])}",
            "seen": row["at_risk_count"],
        }
        for row in rows
    ]
    dashes = [[1, 0], [7, 3], [2, 2], [7, 2, 2, 2], [4, 2]]
    scale = alt.Scale(domain=[0, 1])
    share = alt.Y("share:Q", title="share that lasts longer", scale=scale, axis=alt.Axis(format=".0%", tickCount=5))
    base = charts.chart_of(points).encode(
        x=alt.X("duration:Q", title="checkpoints", axis=charts.count_axis(10, grid=False)),
        color=charts.role_colour("role"),
    )
    dash = alt.StrokeDash("role:N", legend=None, scale=alt.Scale(domain=list(charts.PRIMARY_ROLES), range=dashes))
    tooltip = [
        alt.Tooltip("role:N"),
        alt.Tooltip("duration:Q", title="longer than (checkpoints)"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("seen:Q", title="spells seen as long"),
    ]
    band = base.transform_filter("isValid(datum.low)").mark_area(interpolate="step-after", opacity=0.1)
    return alt.layer(
        band.encode(y=alt.Y("low:Q", title="share that lasts longer", scale=scale), y2="high:Q"),
        base.mark_line(interpolate="step-after", strokeWidth=2).encode(y=share, strokeDash=dash),
        base.mark_point(size=22, opacity=1).encode(y=share, tooltip=tooltip),
    ).properties(width="container", height=240)


def _duration_caption(rows: list[Row], kind: str) -> str:
    """The median of every role, and the share of the spells that is censored."""
    by_role: dict[str, list[Row]] = {}
    for row in rows:
        by_role.setdefault(row["role"], []).append(row)
    parts = []
    for role, found in by_role.items():
        median = next((row["duration"] for row in found if row["lasting_share"] <= 0.5), None)
        lasts = f"{wording.count(median, 'checkpoint')}" if median else "not reached"
        seen = found[0]["spell_count"] - found[0]["left_censored_count"]
        parts.append(f"{wording.ROLE_LABELS[role]} {lasts} ({wording.count(seen, 'spell')})")
    spells, left, right = (
        sum(found[0][column] for found in by_role.values())
        for column in ("spell_count", "left_censored_count", "right_censored_count")
    )
    return (
        f"Median duration of {wording.KIND_NOUNS[kind][1]}: {wording.listing(parts)}."
        f" Of {wording.count(spells, 'spell')} in these roles, {wording.percent(left / spells)} begin at the first"
        f" checkpoint and {wording.percent(right / spells)} still last at the last."
    )


def change_map(partition: Partition, kind: str) -> list[Figure]:
    """How often each component changed its primary role, by place; nothing where the release does not hold it."""
    if not partition.has_mart("fct_role_spells"):
        return []
    sql = f"""select component_id, layer, head, (count(*) - 1)::integer as change_count,
            sum(checkpoint_count)::integer as checkpoint_count
        from fct_role_spells join dim_components using (component_id, component_kind)
        where component_kind = '{kind}' group by component_id, layer, head order by layer, head"""
    rows = partition.rows(sql)
    singular, noun = wording.KIND_NOUNS[kind]
    most = max(rows, key=lambda row: row["change_count"], default=None)
    caption, empty = "", f"This release holds no {noun}."
    if most and most["change_count"]:
        never = sum(row["change_count"] == 0 for row in rows)
        caption = (
            f"Over {wording.count(most['checkpoint_count'], 'checkpoint')}, {never:,} of"
            f" {wording.kind_count(len(rows), kind)} never changed; {most['component_id']} changed"
            f" {wording.count(most['change_count'], 'time')}, no {singular} more often."
        )
    elif most:
        empty = (
            f"Not one of {wording.kind_count(len(rows), kind)} changed its primary role over"
            f" {wording.count(most['checkpoint_count'], 'checkpoint')}."
        )
    return [
        Figure(
            f"changes-{kind}",
            f"How often each {singular} changed its primary role",
            "Changes from one checkpoint to the next along the main line of training, becoming active or inactive among"
            " them. Darker is more.",
            caption,
            source_line(partition),
            charts.specification(_change_chart(rows, kind), caption) if caption else None,
            Table(
                f"transitions-changes-{kind}",
                [
                    Column("component_id", singular, "code"),
                    Column("layer", "Layer", "count"),
                    Column("head", "Head", "count"),
                    Column("change_count", "Changes", "count"),
                    Column("checkpoint_count", "Checkpoints", "count"),
                ],
                rows,
            ),
            empty=None if caption else empty,
            is_half=True,
            query=partition.standalone(sql),
        )
    ]


def _change_chart(rows: list[Row], kind: str) -> alt.LayerChart | alt.FacetChart:
    points = [
        {"layer": row["layer"], "head": row["head"] or 0, "name": row["component_id"], "changes": row["change_count"]}
        for row in rows
    ]
    layers = sorted({row["layer"] for row in points}, reverse=True)
    width = len({row["head"] for row in points})
    most = max(row["changes"] for row in points)
    height = max(90, (22 if width <= _NUMBERS_LIMIT and len(layers) <= _NUMBERS_LIMIT else 14) * len(layers))
    tooltip = [alt.Tooltip("name:N", title=wording.KIND_NOUNS[kind][0]), alt.Tooltip("changes:Q")]
    base = charts.chart_of(points).encode(
        y=alt.Y("layer:O", title="layer", sort=layers, axis=alt.Axis(ticks=False, domain=False, labelOverlap=True)),
        tooltip=tooltip,
    )
    if kind == "ffn":  # one for each layer: a bar says more than a shade
        bars = base.encode(
            x=alt.X("changes:Q", title="changes", scale=alt.Scale(domain=[0, most]),
                    axis=charts.count_axis(6)),
        )  # fmt: skip
        bar = bars.mark_bar(color=charts.KIND_COLOURS["ffn"], height=alt.RelativeBandSize(0.7))
        number = bars.mark_text(align="left", dx=4, fontSize=10, color="#24292e").encode(text="changes:Q")
        return alt.layer(bar, number).properties(width="container", height=height)
    base = base.encode(
        x=alt.X("head:O", title="head", axis=alt.Axis(ticks=False, domain=False, labelAngle=0, labelOverlap=True))
    )
    shade = alt.Color("changes:Q", legend=None, scale=alt.Scale(domain=[0, most], range=charts.SEQUENTIAL))
    cells = base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(color=shade)
    if width > _NUMBERS_LIMIT:
        return alt.layer(cells).properties(width="container", height=height)
    numbers = base.mark_text(fontSize=10).encode(
        text="changes:Q",
        color=alt.condition(f"datum.changes > {0.5 * most}", alt.value("#ffffff"), alt.value("#1f2428")),
    )
    return alt.layer(cells, numbers).properties(width="container", height=height)


def repurposings(partition: Partition, kind: str) -> list[Figure]:
    """What became of the components that answered each relation; nothing where the release does not hold it."""
    if not partition.has_mart("fct_repurposings"):
        return []
    sql = f"""select relation_id, converged.checkpoint_name as converged_at, lasts.checkpoint_name as last_checkpoint,
            count(*)::integer as component_count, count_if(is_answer_related_at_last)::integer as kept_count,
            count_if(is_repurposed)::integer as repurposed_count, count_if(is_dropped)::integer as dropped_count,
            kept_count / component_count as kept_share
        from fct_repurposings as repurposings
        join checkpoints as converged on converged.checkpoint_id = repurposings.checkpoint_id
        join checkpoints as lasts on lasts.checkpoint_id = last_checkpoint_id
        where component_kind = '{kind}'
        group by relation_id, converged.checkpoint_name, lasts.checkpoint_name
        order by relation_id, converged_at, last_checkpoint"""
    rows = partition.rows(sql)
    singular, noun = wording.KIND_NOUNS[kind]
    total = sum(row["component_count"] for row in rows)
    kept, repurposed, dropped = (sum(row[f"{outcome}_count"] for row in rows) for outcome in _OUTCOMES)
    caption = (
        f"Over {wording.count(len(rows), 'relation')} that converged, {total:,} times a {singular} answered one: it"
        f" still does at the last checkpoint {kept:,} times, does something else {repurposed:,} times and holds no role"
        f" {dropped:,} times. A {singular} that answered several relations counts for each."
        if rows
        else ""
    )
    return [
        Figure(
            f"repurposings-{kind}",
            f"What became of the {noun} that answered each relation"
            + (f": {wording.percent(kept / total)} still do" if rows else ""),
            f"The {noun} that held relation answer or fact answer for the relation at the checkpoint at which it"
            " converged, by what they do at the last. Two halves of the facts would disagree about some of them at one"
            " and the same checkpoint: the second claim on the overview takes that off.",
            caption,
            source_line(partition),
            charts.specification(_repurposing_chart(rows), caption) if rows else None,
            Table(
                f"transitions-repurposings-{kind}",
                [
                    Column("relation_id", "Relation"),
                    Column("converged_at", "Converged at"),
                    Column("last_checkpoint", "Last checkpoint"),
                    Column("component_count", f"{noun[0].upper()}{noun[1:]} that answered", "count"),
                    *(Column(f"{outcome}_count", label, "count") for outcome, label in _OUTCOMES.items()),
                    Column("kept_share", "Share that still answers", "percent"),
                ],
                rows,
            ),
            legend=[(_OUTCOME_SWATCHES[outcome], label) for outcome, label in _OUTCOMES.items()] if rows else (),
            empty=None if rows else f"No relation converged with {noun} that answered it.",
            is_half=True,
            query=partition.standalone(sql),
        )
    ]


def _repurposing_chart(rows: list[Row]) -> alt.LayerChart | alt.FacetChart:
    names = json.dumps([row["relation_id"] for row in rows])
    outcomes = list(_OUTCOMES)
    points = [
        {"relation": index, "outcome": outcome, "place": place, "components": row[f"{outcome}_count"],
         "of": row["component_count"], "converged": row["converged_at"]}
        for index, row in enumerate(rows)
        for place, outcome in enumerate(outcomes)
        if row[f"{outcome}_count"]
    ]  # fmt: skip
    colours = [charts.CSS_COLOURS[_OUTCOME_SWATCHES[outcome]] for outcome in outcomes]
    base = (
        charts.chart_of(points)
        .transform_stack(
            stack="components", as_=["start", "end"], groupby=["relation"], sort=[alt.SortField("place")]
        )
        .transform_calculate(
            middle="(datum.start + datum.end) / 2",
            name=f"{names}[datum.relation]",
            words=f"{json.dumps(_OUTCOMES)}[datum.outcome]",
        )
        .encode(
            y=alt.Y("relation:O", title=None, scale=alt.Scale(domain=list(range(len(rows)))),
                    axis=alt.Axis(labelExpr=f"{names}[datum.value]", labelLimit=120, ticks=False, domain=False)),
            tooltip=[
                alt.Tooltip("name:N", title="relation"),
                alt.Tooltip("converged:N", title="converged at"),
                alt.Tooltip("words:N", title="at the last"),
                alt.Tooltip("components:Q"),
                alt.Tooltip("of:Q"),
            ],
        )
    )  # fmt: skip
    x = alt.X("start:Q", title="components that answered", axis=charts.count_axis(6))
    middle = x.copy()
    middle.shorthand = "middle:Q"
    bars = base.mark_bar(stroke="#ffffff", strokeWidth=1).encode(
        x=x, x2="end:Q", color=alt.Color("outcome:N", legend=None, scale=alt.Scale(domain=outcomes, range=colours))
    )
    numbers = base.mark_text(fontSize=10).encode(
        x=middle,
        text="components:Q",
        color=alt.condition("datum.outcome === 'dropped'", alt.value("#1f2428"), alt.value("#ffffff")),
    )
    return alt.layer(bars, numbers).properties(width="container", height=max(70, 26 * len(rows)))
