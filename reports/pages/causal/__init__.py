"""What silencing a role's components does: beside random sets, relation by relation, and against attribution."""

from collections.abc import Sequence

import altair as alt
from markupsafe import Markup

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Block, Column, Control, Controls, Figure, Page, Prose, Table, place_columns
from timecourse.reports.pages.causal.relation_matrices import matrices
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "causal", "Causal"

_METHOD, _SINGLE_METHOD = "method", "single_method"
_METHODS = {
    "mean": "its mean over the prompts",
    "resample": "its value in another fact's prompt",
    "zero": "nothing",
}
_LIVE_NORM = "_live_norm"
_OTHERS = "as many others like them"
_MEASURES = {
    "score": ("attribution score", "top1"),
    "rate": ("activity rate", "top10"),
    "c_direct": ("direct contribution", "all_tokens"),
}
"""Measure of fct_score_effects -> its name, and the swatch of the palette that it is drawn in."""
_SCORES = f"""select checkpoint_index, checkpoint_name, method, component_kind, measure, component_count,
            rank_correlation
        from fct_score_effects join checkpoints using (checkpoint_id)
        order by method, component_kind desc, list_position({list(_MEASURES)}, measure), checkpoint_index"""
_WHOLE_WIDTH = 500
"""Of a panel: so wide that the page sets one beside another nowhere."""


def build(partition: Partition) -> Page:
    """Effects of silencing in one partition; one sentence where nothing was silenced."""
    lead = "What the answers lose when a role's components are silenced, and when as many others like them are."
    effects, scores = partition.rows(_effects("effect")), partition.rows(_SCORES)
    if not effects and not scores:
        return Page(SLUG, TITLE, lead, [_nothing_silenced(partition)])
    axis = charts.training_axis(partition.checkpoints)
    blocks: list[Block] = [_explanation(partition, [*effects, *scores])]
    if effects:
        control = _method_control(_METHOD, effects)
        blocks += [
            *_thetas_differ(partition, effects),
            Controls([control]),
            _answers(partition, axis, control.selected),
            _language(partition, axis, control.selected),
            _excess(partition),
            *matrices(partition, control, _source(partition, effects)),
        ]
    else:
        blocks.append(_other_tau())
    if scores:
        blocks.append(_scores(partition, axis, scores))
    return Page(SLUG, TITLE, lead, blocks, axis)


def _effects(*columns: str, condition: str = "true") -> str:
    """Of the scope of all facts: checkpoint, method, role and θ of the silenced sets, and these columns."""
    return f"""select checkpoint_index, checkpoint_name, method, role, theta::double as theta, {", ".join(columns)}
        from fct_role_effects join checkpoints using (checkpoint_id)
        where scope_kind = 'all' and {condition}
        order by method, list_position({list(charts.ROLES)}, role), checkpoint_index"""


def _method_control(control_id: str, rows: list[Row]) -> Control:
    """A switch of the methods that the rows are of, in the order of `_METHODS`."""
    order = list(_METHODS)
    methods = sorted({row["method"] for row in rows})
    methods.sort(key=lambda method: order.index(base) if (base := _base(method)) in order else len(order))
    options = [(method, _method_words(method)) for method in methods]
    return Control(control_id, "What takes the place of a silenced component", options, methods[0])


def _base(method: str) -> str:
    return method.removesuffix(_LIVE_NORM)


def _method_words(method: str) -> str:
    """`mean: its mean over the prompts`; a method that this page does not know by its name alone."""
    words = _METHODS.get(_base(method))
    anew = ", and the norm behind it computed anew" if method.endswith(_LIVE_NORM) else ""
    return f"{method}: {words}{anew}" if words else method


def _source(partition: Partition, rows: Sequence[Row] = ()) -> str:
    """As page.source_line, with the θ that the silenced sets were found at; none where θ does not matter."""
    thetas = [f"{theta:g}" for theta in sorted({row["theta"] for row in rows})]
    threshold = f" · θ = {wording.listing(thetas)}" if thetas else ""
    return f"Source: {partition.series_id} · τ = {partition.tau_words}{threshold} · release {partition.release}"


def _label(partition: Partition, checkpoint_index: int) -> str:
    return partition.labels[partition.checkpoints[checkpoint_index]["checkpoint_id"]]


def _nothing_silenced(partition: Partition) -> Prose:
    return Prose(
        [
            Markup(
                "Nothing of {} has been silenced yet: <code>timecourse ablate</code>, with the settings that it was"
                " extracted with, silences its roles' components at some checkpoints and writes this report anew."
            ).format(partition.series_id)
        ]
    )


def _other_tau() -> Prose:
    return Prose(
        [
            Markup(
                "No role of this τ was silenced: <code>timecourse ablate</code> takes the roles at the first τ of the"
                " settings. Single components are silenced whatever τ is; below is how that goes with attribution at"
                " this τ."
            )
        ]
    )


def _explanation(partition: Partition, rows: list[Row]) -> Prose:
    ablated = [_label(partition, index) for index in sorted({row["checkpoint_index"] for row in rows})]
    return Prose(
        [
            "A role says where information flowed, not that the answer needed it. So all components that hold a role"
            " are silenced at once: what they add is replaced at every position of the prompt. Any damage to a model"
            " costs something; therefore as many others like them are silenced too: random sets with as many"
            " heads in every layer and as many FFNs, which may share some with the role. A role matters to the answers"
            " as far as silencing it costs more.",
            "Which components hold a role is decided by one half of the facts, what silencing them does is measured on"
            " the other half, and the other way round. Effects are in nats: −0.69 halves the probability of an answer."
            f" Silenced at {wording.listing(ablated)}.",
        ],
        "How to read this page",
    )


def _thetas_differ(partition: Partition, rows: list[Row]) -> list[Prose]:
    """A caution where the silenced sets were found at another θ than the roles on the other pages."""
    thetas = sorted({row["theta"] for row in rows})
    if all(theta == float(partition.setting["theta"]) for theta in thetas):
        return []
    return [
        Prose(
            [
                Markup(
                    "The silenced roles were found at θ = {}, those on the other pages at θ = {:g}."
                    " <code>timecourse ablate</code> silences those."
                ).format(wording.listing([f"{theta:g}" for theta in thetas]), partition.setting["theta"])
            ],
            "Another θ",
            is_caution=True,
        )
    ]


def _role_panels(
    axis: charts.TrainingAxis, rows: list[Row], columns: dict[str, str], layers: Sequence[alt.Chart]
) -> alt.FacetChart:
    """One panel per role, below each other; `columns`: name in the chart -> column of the rows."""
    found = {(row["method"], row["role"], row["checkpoint_index"]): row for row in rows}
    ablated = sorted({(method, index) for method, _, index in found})
    points = []
    for method, role in dict.fromkeys((row["method"], row["role"]) for row in rows):
        for index in (index for other, index in ablated if other == method):
            row = found.get((method, role, index))  # none where no component held the role: the line is interrupted
            values = {name: charts.rounded(row[column]) if row else None for name, column in columns.items()}
            place = {"panel": wording.ROLE_LABELS[role], "panel_index": charts.ROLES.index(role)}
            points.append({"checkpoint_index": index, "method": method, "role": role} | place | values)
    base = axis.base(points).transform_filter(f"datum.method == {_METHOD}")
    # A null would leave a panel in which all are null without a scale: it is drawn where the role's value is, unseen.
    for name in columns:
        base = base.transform_calculate(**{f"y_{name}": f"isValid(datum.{name}) ? datum.{name} : datum.value"})
    # Roles differ by orders of magnitude; every panel needs a scale, and so the whole width, of its own.
    chart: alt.FacetChart = charts.small_multiples(base, [*layers, *axis.boundary_layers()], height=84).resolve_scale(
        y="independent"
    )
    chart.spec.width = _WHOLE_WIDTH
    return chart


def _zero_line() -> alt.Axis:
    """An axis on which the line of no change is darker than the others."""
    colour = alt.condition("datum.value === 0", alt.value("#9aa1a8"), alt.value("#e8ebee"))
    return alt.Axis(format=".3~g", tickCount=4, gridColor=colour)


def _nats(column: str) -> alt.Y:
    return alt.Y(f"y_{column}:Q", title=None, axis=_zero_line())


def _role_layers(axis: charts.TrainingAxis, tooltip: list[alt.Tooltip], has_spread: bool) -> list[alt.Chart]:
    """The random sets' mean in grey, and the role's `value`; with a spread, the ranges and intervals of both."""
    panel = alt.Chart().encode(x=axis.x(), tooltip=tooltip)
    colours = [charts.ROLE_COLOURS[role] for role in charts.ROLES]
    role = panel.encode(
        color=alt.Color("role:N", legend=None, scale=alt.Scale(domain=list(charts.ROLES), range=colours))
    )
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


def _answers(partition: Partition, axis: charts.TrainingAxis, method: str) -> Figure:
    columns = {
        "value": "effect", "low": "effect_low", "high": "effect_high", "others": "random_mean",
        "others_low": "random_low", "others_high": "random_high", "others_count": "random_count",
    }  # fmt: skip
    sql = _effects("member_count", "fact_count", *columns.values())
    rows = partition.rows(sql)
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("panel:N", title="silenced"),
        alt.Tooltip("value:Q", title="effect", format=".3f"),
        alt.Tooltip("low:Q", title="95 % low", format=".3f"),
        alt.Tooltip("high:Q", title="95 % high", format=".3f"),
        alt.Tooltip("others:Q", title="random sets' mean", format=".3f"),
        alt.Tooltip("others_low:Q", title="lowest", format=".3f"),
        alt.Tooltip("others_high:Q", title="highest", format=".3f"),
        alt.Tooltip("others_count:Q", title="random sets"),
    ]
    caption = _caption(partition, rows, method, "effect", "random_mean")
    chart = _role_panels(axis, rows, columns, _role_layers(axis, tooltip, has_spread=True))
    return Figure(
        "effects",
        "Effect of silencing on the answers, over training",
        "Change of the log-probability of the whole answer in nats, mean over facts with its 95 % interval, when all"
        " components of the role are silenced: below 0, answers got less likely. Each panel has a scale of its own.",
        caption,
        _source(partition, rows),
        charts.specification(chart, caption, [charts.bound(_METHOD, method)]),
        Table(
            "causal-effects",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("role", "Role", "role"),
                Column("effect", "Effect (nats)", "decimal"),
                Column("effect_low", "low", "decimal"),
                Column("effect_high", "high", "decimal"),
                Column("random_mean", "Random sets' mean", "decimal"),
                Column("random_low", "lowest", "decimal"),
                Column("random_high", "highest", "decimal"),
                Column("method", "Method"),
            ],
            partition.placed(rows),
            filter_control=_METHOD,
            filter_key="method",
        ),
        legend=[("inactive", f"{_OTHERS}: random sets' range"), ("ffn", "their mean")],
        is_half=True,
        query=partition.standalone(sql),
    )


def _language(partition: Partition, axis: charts.TrainingAxis, method: str) -> Figure:
    sql = _effects("template_effect", "random_template_mean", condition="template_effect is not null")
    rows = partition.rows(sql)
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("panel:N", title="silenced"),
        alt.Tooltip("value:Q", title="change per token", format=".3f"),
        alt.Tooltip("others:Q", title="random sets' mean", format=".3f"),
    ]
    caption = _caption(partition, rows, method, "template_effect", "random_template_mean")
    columns = {"value": "template_effect", "others": "random_template_mean"}
    chart = _role_panels(axis, rows, columns, _role_layers(axis, tooltip, has_spread=False))
    return Figure(
        "language",
        "Effect of silencing on the language around them",
        "Change of the log-probability of a token of the prompt's template in nats, mean over its tokens and the"
        " facts: where these suffer too, language as such is damaged. Each panel has a scale of its own.",
        caption,
        _source(partition, rows),
        charts.specification(chart, caption, [charts.bound(_METHOD, method)]) if rows else None,
        Table(
            "causal-language",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("role", "Role", "role"),
                Column("template_effect", "Change per token (nats)", "decimal"),
                Column("random_template_mean", "Random sets' mean", "decimal"),
                Column("method", "Method"),
            ],
            partition.placed(rows),
            filter_control=_METHOD,
            filter_key="method",
        ),
        legend=[("ffn", f"{_OTHERS}: random sets' mean")] if rows else (),
        empty=None if rows else "No template token of these prompts is predicted from within them.",
        is_half=True,
        query=partition.standalone(sql),
    )


def _caption(partition: Partition, rows: list[Row], method: str, value: str, others: str) -> str:
    """Each role's value at the last ablated checkpoint, beside the random sets'."""
    rows = [row for row in rows if row["method"] == method]
    if not rows:
        return ""
    last = max(row["checkpoint_index"] for row in rows)
    parts = [
        f"{wording.ROLE_LABELS[row['role']]} {_signed(row[value])} ({_signed(row[others])})"
        for row in rows
        if row["checkpoint_index"] == last
    ]
    missing = [wording.ROLE_LABELS[role] for role in charts.ROLES if all(row["role"] != role for row in rows)]
    none = f" Not silenced, for want of components or by choice: {wording.listing(missing)}." if missing else ""
    at = f"At {_label(partition, last)}, method {method}, in nats ({_OTHERS} in brackets)"
    return f"{at}: {wording.listing(parts)}.{none}"


def _signed(number: float | None) -> str:
    """Two decimals with a minus sign, and none before zero."""
    return wording.NOT_AVAILABLE if number is None else f"{round(number, 2) + 0.0:,.2f}".replace("-", "−")


def _excess(partition: Partition) -> Figure:
    sql = _effects(
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
        Table(
            "causal-excess",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("role", "Role", "role"),
                Column("member_count", "Silenced", "rank"),
                Column("fact_count", "Facts", "count"),
                Column("effect", "Effect (nats)", "decimal"),
                Column("random_count", "Random sets", "count"),
                Column("random_mean", "Their mean", "decimal"),
                Column("excess", "Excess", "decimal"),
                Column("excess_low", "low", "decimal"),
                Column("excess_high", "high", "decimal"),
                Column("p_value", "p", "decimal"),
                Column("q_value", "q", "decimal"),
                Column("method", "Method"),
            ],
            partition.placed(rows),
            filter_control=_METHOD,
            filter_key="method",
        ),
        is_table_open=True,
        query=partition.standalone(sql),
    )


def _scores(partition: Partition, axis: charts.TrainingAxis, rows: list[Row]) -> Figure:
    control = _method_control(_SINGLE_METHOD, rows)
    defined = {row["component_kind"] for row in rows if row["rank_correlation"] is not None}
    counts = {row["component_kind"]: row["component_count"] for row in rows}
    points = [
        {
            "checkpoint_index": row["checkpoint_index"],
            "method": row["method"],
            "measure": _MEASURES[row["measure"]][0],
            "panel": wording.kind_count(counts[row["component_kind"]], row["component_kind"]),
            "panel_index": list(wording.KIND_NOUNS).index(row["component_kind"]),
            "correlation": charts.rounded(row["rank_correlation"]),
        }
        for row in rows
        if row["component_kind"] in defined
    ]
    base = axis.base(points).transform_filter(f"datum.method == {_SINGLE_METHOD}")
    names = [name for name, _ in _MEASURES.values()]
    panel = alt.Chart().encode(
        x=axis.x(),
        y=alt.Y("correlation:Q", title="rank correlation", scale=alt.Scale(domain=[-1, 1]), axis=_zero_line()),
        color=alt.Color(
            "measure:N",
            legend=None,
            scale=alt.Scale(domain=names, range=[charts.METRIC_COLOURS[key] for _, key in _MEASURES.values()]),
        ),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("panel:N", title="over"),
            alt.Tooltip("measure:N"),
            alt.Tooltip("correlation:Q", title="rank correlation", format=".3f"),
        ],
    )
    layers = [
        panel.mark_line(strokeWidth=2).encode(detail="line:N"),
        panel.mark_point(size=28, opacity=1),
        *axis.boundary_layers(),
    ]
    chart = charts.small_multiples(base, layers, height=170)
    chart.spec.width = 400
    caption = _score_caption(partition, rows, control.selected)
    return Figure(
        "scores",
        "Whether attribution tells which components are needed",
        "Spearman's rank correlation, over components, between what attribution says of a component and what silencing"
        " it alone does to the answers: −1 where the answers need a component the more the higher the measure, 0 where"
        " the two are unrelated; over few components it is far from 0 by chance. Measures, at the positions that"
        " predict the answers: mean attribution score, share of positions it is active for, and contribution before"
        " any threshold.",
        caption,
        _source(partition),
        charts.specification(chart, caption, [charts.bound(_SINGLE_METHOD, control.selected)]) if defined else None,
        Table(
            "causal-scores",
            [
                Column("checkpoint_name", "Checkpoint"),
                *place_columns(partition),
                Column("component_kind", "Kind", "kind"),
                Column("measure", "Measure"),
                Column("component_count", "Components", "count"),
                Column("rank_correlation", "Rank correlation", "decimal"),
                Column("method", "Method"),
            ],
            partition.placed(rows),
            filter_control=_SINGLE_METHOD,
            filter_key="method",
        ),
        legend=[(key, name) for name, key in _MEASURES.values()] if defined else (),
        controls=[control],
        empty=None if defined else "No correlation is defined: too few components, or all alike.",
        query=partition.standalone(_SCORES),
    )


def _score_caption(partition: Partition, rows: list[Row], method: str) -> str:
    """The correlations at the last ablated checkpoint, by kind."""
    rows = [row for row in rows if row["method"] == method]
    last = max(row["checkpoint_index"] for row in rows)
    texts = []
    for kind in wording.KIND_NOUNS:
        found = [row for row in rows if row["checkpoint_index"] == last and row["component_kind"] == kind]
        if found:
            parts = [f"{_MEASURES[row['measure']][0]} {_signed(row['rank_correlation'])}" for row in found]
            texts.append(f"over {wording.kind_count(found[0]['component_count'], kind)} {wording.listing(parts)}")
    return f"At {_label(partition, last)}, method {method}: {'; '.join(texts)}."
