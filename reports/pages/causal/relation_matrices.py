"""What silencing one relation's components does to every relation: a matrix per answer role."""

import json
from dataclasses import dataclass

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Block, Column, Control, Controls, Figure, checkpoint_table, interval_columns
from timecourse.reports.partition import Partition, Row

_CHECKPOINT, _LIMITS = "matrix_checkpoint", "matrix_limits"
_DIVERGING = [charts.SEQUENTIAL[1], charts.SEQUENTIAL[0], charts.METRIC_COLOURS["all_tokens"]]
"""Dark is harm, light no change, brown gain."""
_CELL_LIMIT = 30_000
_ROW_LIMIT = 2000
_TEXT_LIMIT = 16
"""Relations up to which the cells of a matrix have room for their numbers."""


@dataclass(frozen=True)
class _Shared:
    """What both matrices share: relations on the axes, checkpoints on offer, what is chosen at first, and the scales.

    `limits`: method -> largest effect in absolute value over roles and checkpoints, so that one shade is one effect.
    """

    relations: list[str]
    indices: list[int]
    selected: int
    method: Control
    source: str
    limits: dict[str, float]
    note: str


def matrices(partition: Partition, method: Control, source: str) -> list[Block]:
    """The matrices of both answer roles under a switch of the checkpoint; nothing where no relation has a set.

    `method`: the page's control of the method.
    """
    rows_of = {role: partition.rows(_cells(role)) for role in ("relation_answer", "fact_answer")}
    rows = [row for of_role in rows_of.values() for row in of_role]
    if not rows:
        return []
    indices = sorted({row["checkpoint_index"] for row in rows})
    stride = -(-len(rows) // _CELL_LIMIT)
    indices = indices[::-1][::stride][::-1]
    limits: dict[str, float] = {}
    for row in rows:
        limits[row["method"]] = max(limits.get(row["method"], 1e-6), abs(row["effect"]))
    shared = _Shared(
        sorted({row[end] for row in rows for end in ("set_relation_id", "scored_relation_id")}),
        indices,
        max(
            {row["checkpoint_index"] for row in rows if row["method"] == method.selected} & {*indices},
            default=indices[-1],
        ),
        method,
        source,
        limits,
        "" if stride == 1 else f" The chart shows one ablated checkpoint in {stride}; the CSV file holds all.",
    )
    options = [(str(index), partition.label_at(index)) for index in indices]
    return [
        Controls([Control(_CHECKPOINT, "Silenced at", options, str(shared.selected))]),
        *(_matrix(partition, shared, of_role, role) for role, of_role in rows_of.items()),
    ]


def _cells(role: str) -> str:
    return f"""select checkpoint_index, checkpoint_name, method, role, set_relation_id, scored_relation_id,
            member_count, fact_count, effect, effect_low, effect_high, template_effect, mean_rank_change
        from fct_relation_specificities join checkpoints using (checkpoint_id)
        where role = '{role}'
        order by checkpoint_index desc, method, set_relation_id, scored_relation_id"""


def _matrix(partition: Partition, shared: _Shared, rows: list[Row], role: str) -> Figure:
    label = wording.ROLE_LABELS[role]
    held = "for the relation" if role == "relation_answer" else "for any fact of the relation"
    columns = {"effect": "effect", "low": "effect_low", "high": "effect_high", "facts": "fact_count"}
    lists: dict[tuple[int, str], Row] = {}
    # One row of lists per checkpoint and method, spread out by the chart: a third of the bytes of one object per cell.
    for row in rows:
        if row["checkpoint_index"] in shared.indices:
            key = {"at": row["checkpoint_index"], "method": row["method"]}
            cells = lists.setdefault(
                (key["at"], key["method"]), key | {name: [] for name in ("own", "scored", *columns)}
            )
            cells["own"].append(shared.relations.index(row["set_relation_id"]))
            cells["scored"].append(shared.relations.index(row["scored_relation_id"]))
            for name, column in columns.items():
                cells[name].append(charts.rounded(row[column]))
    caption = _caption(partition, rows, shared) if rows else ""
    parameters = [
        charts.bound(shared.method.control_id, shared.method.selected),
        charts.bound(_CHECKPOINT, str(shared.selected)),
        {"name": _LIMITS, "value": shared.limits},
    ]
    chart = _chart(list(lists.values()), shared.relations, shared.method.control_id)
    return Figure(
        f"matrix-{role.replace('_', '-')}",
        f"Silencing {label} components of one relation, scored on every relation",
        f"Change of the answers' log-probability in nats: rows are the relation whose components were silenced, those"
        f" that hold the role {held}; columns the relation whose facts were scored. On the outlined diagonal both are"
        " the same; a row without cells has no such components.",
        caption,
        shared.source,
        charts.specification(chart, caption, parameters) if lists else None,
        checkpoint_table(
            partition,
            f"causal-matrix-{role.replace('_', '-')}",
            rows,
            [
                Column("method", "Method"),
                Column("set_relation_id", "Silenced: components of"),
                Column("member_count", "Silenced", "rank"),
                Column("scored_relation_id", "Scored: facts of"),
                Column("fact_count", "Facts", "count"),
                *interval_columns("effect", "Effect (nats)"),
                Column("template_effect", "Language", "decimal"),
                Column("mean_rank_change", "Change of rank", "rank"),
            ],
            row_limit=_ROW_LIMIT,
            filter_control=_CHECKPOINT,
            filter_key="checkpoint_index",
        ),
        empty=None if lists else f"No {label} components of one relation were silenced.",
        is_half=True,
        query=partition.standalone(_cells(role)) if rows else None,
    )


def _chart(lists: list[Row], relations: list[str], method: str) -> alt.LayerChart | alt.FacetChart:
    count = len(relations)
    names = json.dumps(relations)
    axis = alt.Axis(labelExpr=f"{names}[datum.value]", labelLimit=110, labelAngle=0, ticks=False, domain=False)
    slanted = axis.copy()
    slanted.labelAngle = -40 if count <= _TEXT_LIMIT else -90
    scale = alt.Scale(domain=list(range(count)))
    limit = f"{_LIMITS}[{method}]"
    base = (
        charts.chart_of(lists)
        .transform_filter(f"datum.method == {method} && datum.at == toNumber({_CHECKPOINT})")
        .transform_flatten(["own", "scored", "effect", "low", "high", "facts"])
        .transform_calculate(
            silenced=f"{names}[datum.own]",
            measured=f"{names}[datum.scored]",
            number="format(datum.effect, abs(datum.effect) < 9.995 ? '.2f' : '.1f')",
        )
        .encode(
            x=alt.X("scored:O", title="scored: facts of", scale=scale, axis=slanted),
            y=alt.Y("own:O", title="silenced: components of", scale=scale, axis=axis),
            tooltip=[
                alt.Tooltip("silenced:N", title="components of"),
                alt.Tooltip("measured:N", title="facts of"),
                alt.Tooltip("effect:Q", title="effect (nats)", format=".3f"),
                alt.Tooltip("low:Q", title="95 % low", format=".3f"),
                alt.Tooltip("high:Q", title="95 % high", format=".3f"),
                alt.Tooltip("facts:Q", title="n"),
            ],
        )
    )
    shade = alt.Color(
        "effect:Q",
        title="nats",
        scale=alt.Scale(
            domainMin=alt.ExprRef(f"-{limit}"),
            domainMid=0,
            domainMax=alt.ExprRef(limit),
            range=_DIVERGING,
            interpolate="rgb",
        ),
        legend=alt.Legend(format=".2~g", orient="top", gradientLength=160, gradientThickness=10, tickCount=3),
    )
    layers = [
        base.mark_rect(stroke="#ffffff", strokeWidth=1).encode(color=shade),
        *(  # dark on white, to be seen on any shade
            base.transform_filter("datum.own == datum.scored").mark_rect(
                filled=False, fillOpacity=0, stroke=colour, strokeWidth=width
            )
            for colour, width in (("#ffffff", 4.5), (charts.CSS_COLOURS["all"], 1.5))
        ),
    ]
    if count <= _TEXT_LIMIT:  # and where a cell is wide enough
        is_dark = f"abs(datum.effect) > 0.55 * {limit}"
        layers.append(
            base.mark_text(fontSize=10, opacity=alt.ExprRef(f"width >= {34 * count} ? 1 : 0")).encode(
                text="number:N",
                color=alt.condition(is_dark, alt.value("#ffffff"), alt.value("#1f2428")),
            )
        )
    return alt.layer(*layers).properties(
        width="container", height=max(90, (26 if count <= _TEXT_LIMIT else 18) * count)
    )


def _caption(partition: Partition, rows: list[Row], shared: _Shared) -> str:
    """For how many sets the own relation is the one that suffers most."""
    worst: dict[str, Row] = {}
    for row in rows:
        if row["checkpoint_index"] == shared.selected and row["method"] == shared.method.selected:
            before = worst.setdefault(row["set_relation_id"], row)
            if row["effect"] < before["effect"]:
                worst[row["set_relation_id"]] = row
    own = sum(row["scored_relation_id"] == relation for relation, row in worst.items())
    at = f"At {partition.label_at(shared.selected)}, method {shared.method.selected}"
    found = (
        f"the relation harmed most is the own one for {own} of {wording.count(len(worst), 'silenced set')}"
        if worst
        else "no such components were silenced"
    )
    return f"{at}: {found}.{shared.note}"
