"""What silencing all components of a role does to the answers and to the language around them, beside random sets."""

from collections.abc import Mapping, Sequence

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Control, Figure, interval_columns, source_line
from timecourse.reports.pages.causal.methods import method_table
from timecourse.reports.partition import Partition, Row

_OTHERS = "as many others like them"
_WHOLE_WIDTH = 500
"""Of a panel: so wide that the page sets one beside another nowhere."""


def effect_sql(*columns: str, condition: str = "true") -> str:
    """Of the scope of all facts: checkpoint, method, role and θ of the silenced sets, and these columns."""
    return f"""select checkpoint_index, checkpoint_name, method, role, theta::double as theta, {", ".join(columns)}
        from fct_role_effects join checkpoints using (checkpoint_id)
        where scope_kind = 'all' and {condition}
        order by method, list_position({list(charts.ROLES)}, role), checkpoint_index"""


def effects(partition: Partition, axis: charts.TrainingAxis, method: Control) -> Figure:
    """The effect on the answers, with its interval and the range of the random sets."""
    columns = {
        "value": "effect", "low": "effect_low", "high": "effect_high", "others": "random_mean",
        "others_low": "random_low", "others_high": "random_high", "others_count": "random_count",
    }  # fmt: skip
    sql = effect_sql("member_count", "fact_count", *columns.values())
    rows = partition.rows(sql)
    tooltip = [
        alt.Tooltip("value:Q", title="effect", format=".3f"),
        alt.Tooltip("low:Q", title="95 % low", format=".3f"),
        alt.Tooltip("high:Q", title="95 % high", format=".3f"),
        alt.Tooltip("others:Q", title="random sets' mean", format=".3f"),
        alt.Tooltip("others_low:Q", title="lowest", format=".3f"),
        alt.Tooltip("others_high:Q", title="highest", format=".3f"),
        alt.Tooltip("others_count:Q", title="random sets"),
    ]
    caption = _caption(partition, rows, method, "effect", "random_mean")
    return Figure(
        "effects",
        "Effect of silencing on the answers, over training",
        "Change of the log-probability of the whole answer in nats, mean over facts with its 95 % interval, when all"
        " components of the role are silenced: below 0, answers got less likely. Each panel has a scale of its own.",
        caption,
        _source(partition, rows),
        _specification(axis, rows, columns, tooltip, caption, method),
        method_table(
            partition,
            "causal-effects",
            rows,
            [
                Column("role", "Role", "role"),
                *interval_columns("effect", "Effect (nats)"),
                Column("random_mean", "Random sets' mean", "decimal"),
                Column("random_low", "lowest", "decimal"),
                Column("random_high", "highest", "decimal"),
            ],
            method,
        ),
        legend=[("inactive", f"{_OTHERS}: random sets' range"), ("ffn", "their mean")],
        is_half=True,
        query=partition.standalone(sql),
    )


def language(partition: Partition, axis: charts.TrainingAxis, method: Control) -> Figure:
    """The effect on the template's tokens, which has neither interval nor range."""
    columns = {"value": "template_effect", "others": "random_template_mean"}
    sql = effect_sql(*columns.values(), condition="template_effect is not null")
    rows = partition.rows(sql)
    tooltip = [
        alt.Tooltip("value:Q", title="change per token", format=".3f"),
        alt.Tooltip("others:Q", title="random sets' mean", format=".3f"),
    ]
    caption = _caption(partition, rows, method, "template_effect", "random_template_mean")
    return Figure(
        "language",
        "Effect of silencing on the language around them",
        "Change of the log-probability of a token of the prompt's template in nats, mean over its tokens and the"
        " facts: where these suffer too, language as such is damaged. Each panel has a scale of its own.",
        caption,
        _source(partition, rows),
        _specification(axis, rows, columns, tooltip, caption, method) if rows else None,
        method_table(
            partition,
            "causal-language",
            rows,
            [
                Column("role", "Role", "role"),
                Column("template_effect", "Change per token (nats)", "decimal"),
                Column("random_template_mean", "Random sets' mean", "decimal"),
            ],
            method,
        ),
        legend=[("ffn", f"{_OTHERS}: random sets' mean")] if rows else (),
        empty=None if rows else "No template token of these prompts is predicted from within them.",
        is_half=True,
        query=partition.standalone(sql),
    )


def excess(partition: Partition, method: Control) -> Figure:
    """How much more than random sets each role costs, with p and q."""
    sql = effect_sql(
        "member_count", "fact_count", "effect", "random_count", "random_mean", "excess", "excess_low", "excess_high",
        "p_value", "q_value", "mean_rank_change", "random_mean_rank_change",
    )  # fmt: skip
    rows = partition.rows(sql)
    return Figure(
        "excess",
        f"How much more a role's set costs than {_OTHERS}",
        "Excess: effect − mean of the random sets, with its 95 % interval; below 0 where the answers need the role"
        " more. p: share of the random sets, and the role's own, that cost as much or more: one-sided, never below"
        " 1 / (1 + random sets). q: p adjusted for the roles tested at one checkpoint (Benjamini-Hochberg). Silenced:"
        " number of components, mean of both halves' sets. Facts: those that were scored.",
        "",
        _source(partition, rows),
        None,
        method_table(
            partition,
            "causal-excess",
            rows,
            [
                Column("role", "Role", "role"),
                Column("member_count", "Silenced", "rank"),
                Column("fact_count", "Facts", "count"),
                Column("effect", "Effect (nats)", "decimal"),
                Column("random_count", "Random sets", "count"),
                Column("random_mean", "Their mean", "decimal"),
                *interval_columns("excess", "Excess"),
                Column("p_value", "p", "decimal"),
                Column("q_value", "q", "decimal"),
            ],
            method,
        ),
        is_table_open=True,
        query=partition.standalone(sql),
    )


def _source(partition: Partition, rows: list[Row]) -> str:
    return source_line(partition, thetas=[row["theta"] for row in rows])


def _specification(
    axis: charts.TrainingAxis,
    rows: list[Row],
    columns: Mapping[str, str],
    tooltip: Sequence[alt.Tooltip],
    caption: str,
    method: Control,
) -> Row:
    """One panel per role, below each other; `columns`: name in the chart -> column of the rows."""
    found = {(row["method"], row["role"], row["checkpoint_index"]): row for row in rows}
    ablated = sorted({(name, index) for name, _, index in found})
    points = []
    for name, role in dict.fromkeys((row["method"], row["role"]) for row in rows):
        for index in (index for other, index in ablated if other == name):
            row = found.get((name, role, index))  # none where no component held the role: the line is interrupted
            values = {field: charts.rounded(row[column]) if row else None for field, column in columns.items()}
            place = {"panel": wording.ROLE_LABELS[role], "panel_index": charts.ROLES.index(role)}
            points.append({"checkpoint_index": index, "method": name, "role": role} | place | values)
    base = axis.base(points).transform_filter(f"datum.method == {method.control_id}")
    # A null would leave a panel in which all are null without a scale: it is drawn where the role's value is, unseen.
    for field in columns:
        base = base.transform_calculate(**{f"y_{field}": f"isValid(datum.{field}) ? datum.{field} : datum.value"})
    layers = [*_layers(axis, tooltip, has_spread="low" in columns), *axis.boundary_layers()]
    # Roles differ by orders of magnitude; every panel needs a scale, and so the whole width, of its own.
    chart = charts.small_multiples(base, layers, height=84).resolve_scale(y="independent")
    chart.spec.width = _WHOLE_WIDTH
    return charts.specification(chart, caption, [charts.bound(method.control_id, method.selected)])


def _layers(axis: charts.TrainingAxis, tooltip: Sequence[alt.Tooltip], has_spread: bool) -> list[alt.Chart]:
    """The random sets' mean in grey, and the role's `value`; with a spread, the ranges and intervals of both."""
    names = [alt.Tooltip("checkpoint:N"), alt.Tooltip("panel:N", title="silenced")]
    panel = alt.Chart().encode(x=axis.x(), tooltip=[*names, *tooltip])
    role = panel.encode(color=charts.role_colour("role"))
    others = panel.encode(opacity=alt.condition("isValid(datum.others)", alt.value(1), alt.value(0)))
    span = others.mark_rule(strokeWidth=11, color=charts.ROLE_COLOURS["inactive"])
    mean = others.mark_tick(orient="horizontal", size=15, thickness=3, color=charts.KIND_COLOURS["ffn"])
    layers = [
        span.encode(y=_nats("others_low"), y2="y_others_high:Q"),
        mean.encode(y=_nats("others")),
        role.mark_rule(strokeWidth=2).encode(y=_nats("low"), y2="y_high:Q"),
        role.mark_line(strokeWidth=1.5).encode(y=_nats("value"), detail="line:N"),
        role.mark_point(size=36, opacity=1).encode(y=_nats("value")),
    ]
    return layers if has_spread else [layers[1], *layers[3:]]


def _nats(field: str) -> alt.Y:
    return alt.Y(f"y_{field}:Q", title=None, axis=charts.zero_axis())


def _caption(partition: Partition, rows: list[Row], method: Control, value: str, others: str) -> str:
    """Each role's value at the last ablated checkpoint, beside the random sets'."""
    rows = [row for row in rows if row["method"] == method.selected]
    if not rows:
        return ""
    last = max(row["checkpoint_index"] for row in rows)
    parts = [
        f"{wording.ROLE_LABELS[row['role']]} {wording.signed(row[value])} ({wording.signed(row[others])})"
        for row in rows
        if row["checkpoint_index"] == last
    ]
    missing = [wording.ROLE_LABELS[role] for role in charts.ROLES if all(row["role"] != role for row in rows)]
    none = f" Not silenced, for want of components or by choice: {wording.listing(missing)}." if missing else ""
    at = f"At {partition.label_at(last)}, method {method.selected}, in nats ({_OTHERS} in brackets)"
    return f"{at}: {wording.listing(parts)}.{none}"
