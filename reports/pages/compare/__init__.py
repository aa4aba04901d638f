"""This series beside the others of the release, at matched checkpoints: what is matched, and every statistic."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Block, Column, Control, Controls, Figure, Page, Table, source_line
from timecourse.reports.pages.compare.series_distances import ORDER, distances, oriented, seed_overlaps
from timecourse.reports.partition import Partition, Row

SLUG, TITLE = "compare", "Compare"

_OTHER, _STATISTIC = "compared_series", "compared_statistic"
_OWN_COLOUR, _OTHER_COLOUR = "all", "all_tokens"
_PANELS = {"all": "the whole model", "head": "heads", "ffn": "FFNs"}
_NAMED_LIMIT = 4


def is_needed(partition: Partition) -> bool:
    """Whether the release holds anything that stands beside this partition."""
    mart = "fct_series_comparisons"
    return partition.has_mart(mart) and bool(partition.rows(f"select 1 as found from {mart} limit 1"))


def build(partition: Partition) -> Page:
    """The comparisons of one partition, which `is_needed`."""
    axis = charts.training_axis(partition.checkpoints)
    side_by_side, differences = _side_by_side_sql(), _difference_sql()
    rows = partition.rows(side_by_side)
    names = {row["pair"]: _name(partition, row) for row in rows}
    statistics = [name for name in wording.STATISTIC_LABELS if any(row["statistic"] == name for row in rows)]
    first = next(iter(names))
    controls = [
        Control(_OTHER, "Beside this series", [(str(pair), name) for pair, name in names.items()], str(first)),
        Control(_STATISTIC, "Statistic", [(name, wording.STATISTIC_LABELS[name]) for name in statistics],
                next(row["statistic"] for row in rows)),
    ]  # fmt: skip
    blocks: list[Block] = [
        _series(partition),
        Controls(controls),
        _side_by_side(partition, axis, rows, side_by_side, names, controls),
        _differences(partition, axis, partition.rows(differences), differences, controls),
        distances(partition),
        *seed_overlaps(partition, axis),
    ]
    lead = (
        "This series beside what else the release holds, at checkpoints with as much training; and how far apart two"
        " seeds of one recipe are."
    )
    return Page(SLUG, TITLE, lead, blocks, axis)


def _name(partition: Partition, row: Row) -> str:
    """How the page names the other of a pair, with what it is."""
    name: str = row["other_series_id"]
    if row["other_tau_id"] != partition.tau_id:
        name += f", τ = {row['other_tau_id']}"
    if row["other_setting_id"] != partition.setting_id:
        name += f", setting {row['other_setting_id']}"
    return f"{name} ({wording.PAIR_LABELS[row['pair_kind']]})"


def _series(partition: Partition) -> Figure:
    sql = f"""with pairs as (
            select other_series_id as series_id, other_setting_id as setting_id, other_tau_id as tau_id,
                pair_kind as kind, differs_in, count(distinct checkpoint_id) as matched_count,
                string_agg(distinct matched_by, ', ' order by matched_by) as matched_by
            from ({oriented("fct_series_comparisons", "checkpoint_id", "matched_by")}) group by all
        ),
        listed as (
            select series_id, setting_id, tau_id, true as is_own, null as reason from dim_settings
            union all
            select other_series_id, other_setting_id, other_tau_id, false, reason from dim_series_pairs
        )
        select series_id, setting_id, tau_id,
            case when is_own then 'own' else coalesce(kind, 'not_compared') end as pair_kind, matched_count,
            matched_by, differs_in, recipe_id, family, block, parameter_count, layer_count, head_count,
            checkpoint_count, reason
        from listed
        join released_series using (series_id)
        left join pairs using (series_id, setting_id, tau_id)
        order by list_position({list(wording.PAIR_LABELS)}, pair_kind), series_id, setting_id, tau_id"""
    rows = partition.rows(sql)
    compared = sum(row["matched_count"] is not None for row in rows)
    refused = sum(row["pair_kind"] == "not_compared" for row in rows)
    return Figure(
        "series",
        "What stands beside this series",
        "Checkpoints are matched by training tokens: each the other's nearest, and at most a factor of 1.25 apart;"
        " within a recipe without tokens by step; without either, the last of both (end), where how much training they"
        " had is not known; and one series in two settings by checkpoint. Series with different blocks, or measured"
        " differently, are never compared: the reason stands in the last column.",
        f"{compared} of {len(rows) - 1} stand beside it" + (f"; {refused} may not be compared." if refused else "."),
        source_line(partition),
        None,
        Table(
            "compare-what",
            [
                Column("series_id", "Series"),
                Column("pair_kind", "To this series", "pair"),
                Column("matched_count", "Matched", "count"),
                Column("matched_by", "by"),
                Column("parameter_count", "Parameters", "count"),
                Column("layer_count", "Layers", "count"),
                Column("head_count", "Heads per layer", "count"),
                Column("block", "Blocks"),
                Column("checkpoint_count", "Checkpoints", "count"),
                Column("tau_id", "τ"),
                Column("setting_id", "Setting"),
                Column("differs_in", "Differs in"),
                Column("reason", "Why not comparable"),
            ],
            rows,
        ),
        is_table_open=True,
        query=partition.standalone(sql),
    )


def _side_by_side_sql() -> str:
    columns = ("value", "value_low", "value_high", "other_value", "other_low", "other_high")
    return f"""select {ORDER} as pair, other_series_id, other_setting_id, other_tau_id, pair_kind, checkpoint_index,
            checkpoint_name, other_checkpoint_id, matched_by, statistic, component_kind, {", ".join(columns)}
        from ({oriented("fct_series_comparisons", "checkpoint_id", "matched_by", "value")})
        join checkpoints using (checkpoint_id)
        order by pair, list_position({list(wording.STATISTIC_LABELS)}, statistic),
            list_position({list(_PANELS)}, component_kind), checkpoint_index"""


def _difference_sql() -> str:
    return f"""select {ORDER} as pair, other_series_id, other_setting_id, other_tau_id, pair_kind, checkpoint_index,
            checkpoint_name, statistic, component_kind, difference, difference_low, difference_high, seed_distance,
            seed_pair_count
        from ({oriented("fct_series_comparisons", "checkpoint_id", "difference")})
        join checkpoints using (checkpoint_id)
        left join ({oriented("fct_series_distances", "seed")})
            using (other_series_id, other_setting_id, other_tau_id, pair_kind, statistic, component_kind)
        order by pair, list_position({list(wording.STATISTIC_LABELS)}, statistic),
            list_position({list(_PANELS)}, component_kind), checkpoint_index"""


def _panels(
    axis: charts.TrainingAxis,
    rows: list[Row],
    columns: dict[str, str],
    ends: dict[str, str],
    layers: Sequence[alt.Chart],
) -> alt.FacetChart:
    """A panel per kind of component of the chosen pair and statistic; one that says so where there is none.

    `columns`: name in the chart -> column; rows are kept as lists, which takes a third of the page. Each is drawn at
    `y_<name>`; `ends`: name -> where it is drawn, unseen, if it is null.
    """
    lists: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        kind = row["component_kind"]
        held = lists.setdefault(
            (row["pair"], row["statistic"], kind),
            {"pair": row["pair"], "statistic": row["statistic"], "panel": _PANELS[kind],
             "panel_index": list(_PANELS).index(kind), "checkpoint_index": [], **{name: [] for name in columns}},
        )  # fmt: skip
        held["checkpoint_index"].append(row["checkpoint_index"])
        for name, column in columns.items():
            held[name].append(charts.rounded(row[column]))
    found = {(pair, statistic) for pair, statistic, _ in lists}
    missing = [
        {"pair": pair, "statistic": statistic, "panel": "not compared in this statistic", "panel_index": 0,
         "checkpoint_index": [0], **{name: [None] for name in columns}}
        for pair in sorted({pair for pair, _ in found})
        for statistic in sorted({statistic for _, statistic in found})
        if (pair, statistic) not in found
    ]  # fmt: skip
    values = [*lists.values(), *missing]
    base = axis.base(values)
    chosen = f"datum.pair == toNumber({_OTHER}) && datum.statistic == {_STATISTIC}"
    flat = charts.chart_of(values).transform_filter(chosen).transform_flatten(["checkpoint_index", *columns])
    # Where all are null there would be no scale.
    for name, value in ends.items():
        flat = flat.transform_calculate(**{f"y_{name}": f"isValid(datum.{name}) ? datum.{name} : {value}"})
    base.transform = [*flat.transform, *base.transform]
    chart: alt.FacetChart = charts.small_multiples(base, [*layers, *axis.boundary_layers()], height=190)
    chart.spec.width = 400
    return chart


def _side_by_side(
    partition: Partition,
    axis: charts.TrainingAxis,
    rows: list[Row],
    sql: str,
    names: dict[int, str],
    controls: Sequence[Control],
) -> Figure:
    columns = {
        "value": "value", "low": "value_low", "high": "value_high", "other": "other_value", "other_low": "other_low",
        "other_high": "other_high",
    }  # fmt: skip
    panel = alt.Chart().encode(
        x=axis.x(),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("value:Q", title="this series", format=".3f"),
            alt.Tooltip("low:Q", title="95 % low", format=".3f"),
            alt.Tooltip("high:Q", title="95 % high", format=".3f"),
            alt.Tooltip("other:Q", title="the other", format=".3f"),
            alt.Tooltip("other_low:Q", title="95 % low", format=".3f"),
            alt.Tooltip("other_high:Q", title="95 % high", format=".3f"),
        ],
    )
    layers = []
    for value, low, high, key, dash, shape in (
        ("value", "low", "high", _OWN_COLOUR, [1, 0], "circle"),
        ("other", "other_low", "other_high", _OTHER_COLOUR, [6, 3], "diamond"),
    ):
        colour = charts.CSS_COLOURS[key]
        line = panel.mark_line(strokeWidth=2, color=colour, strokeDash=dash).encode(detail="line:N")
        points = panel.mark_point(size=34, color=colour, shape=shape)
        band = panel.mark_area(opacity=0.15, color=colour) if len(axis.rows) > 1 else panel.mark_rule(color=colour)
        layers += [
            band.encode(y=_value(f"y_{low}"), y2=f"y_{high}:Q", detail="line:N"),
            line.encode(y=_value(f"y_{value}")),
            points.encode(y=_value(f"y_{value}"), opacity=_seen(value)),
        ]
    own, other = "datum.y_value", "datum.y_other"
    ends = {"value": "0", "other": "0", "low": own, "high": own, "other_low": other, "other_high": other}
    caption = _caption(partition, rows, names)
    return Figure(
        "side-by-side",
        "Side by side over training",
        "The chosen statistic at the matched checkpoints, on this series' axis, with its 95 % interval over the facts"
        " where it has one. Shares are of the active components by primary role, the active share of all; specific are"
        " those whose answer role is.",
        caption,
        source_line(partition),
        _specification(_panels(axis, rows, columns, ends, layers), caption, controls),
        Table(
            "compare-side-by-side",
            [
                Column("other_series_id", "Beside"),
                Column("other_tau_id", "τ"),
                Column("statistic", "Statistic", "statistic"),
                Column("component_kind", "Of", "kind_or_all"),
                Column("checkpoint_name", "Checkpoint"),
                Column("other_checkpoint_id", "matched with"),
                Column("matched_by", "by"),
                Column("value", "This series", "decimal"),
                Column("value_low", "low", "decimal"),
                Column("value_high", "high", "decimal"),
                Column("other_value", "The other", "decimal"),
                Column("other_low", "low", "decimal"),
                Column("other_high", "high", "decimal"),
            ],
            rows,
            is_searchable=True,
        ),
        legend=[(_OWN_COLOUR, "this series (line, circles)"), (_OTHER_COLOUR, "the chosen other (dashes, diamonds)")],
        is_half=True,
        query=partition.standalone(sql),
    )


def _caption(partition: Partition, rows: list[Row], names: dict[int, str]) -> str:
    """The first statistic of each pair at the last of its matched checkpoints."""
    texts = []
    for pair, name in list(names.items())[:_NAMED_LIMIT]:
        own = [row for row in rows if row["pair"] == pair]
        own = [row for row in own if row["statistic"] == own[0]["statistic"]]
        last = [row for row in own if row["checkpoint_index"] == max(row["checkpoint_index"] for row in own)]
        values = wording.listing(
            [
                ("" if row["component_kind"] == "all" else f"{_PANELS[row['component_kind']]} ")
                + f"{wording.decimal(row['value'])} against {wording.decimal(row['other_value'])}"
                for row in last
            ]
        )
        end = " (the last of both)" if last[0]["matched_by"] == "end" else ""
        statistic = wording.STATISTIC_LABELS[own[0]["statistic"]]
        at = partition.label_at(last[0]["checkpoint_index"])
        texts.append(f"at {at}{end}, beside {name}: {statistic} {values}")
    more = f" {len(names) - _NAMED_LIMIT} more are in the table." if len(names) > _NAMED_LIMIT else ""
    return f"A{'; '.join(texts)[1:]}.{more}"


def _differences(
    partition: Partition, axis: charts.TrainingAxis, rows: list[Row], sql: str, controls: Sequence[Control]
) -> Figure:
    columns = {"value": "difference", "low": "difference_low", "high": "difference_high", "seeds": "seed_distance"}
    panel = alt.Chart().encode(
        x=axis.x(),
        tooltip=[
            alt.Tooltip("checkpoint:N"),
            alt.Tooltip("value:Q", title="difference", format=".3f"),
            alt.Tooltip("low:Q", title="95 % low", format=".3f"),
            alt.Tooltip("high:Q", title="95 % high", format=".3f"),
            alt.Tooltip("seeds:Q", title="two seeds of one recipe", format=".3f"),
        ],
    )
    grey, dark = charts.ROLE_COLOURS["inactive"], charts.CSS_COLOURS[_OWN_COLOUR]
    ends = {"value": "0", "low": "datum.y_value", "high": "datum.y_value", "seeds": "0"}
    seeds = panel.transform_calculate(below="-datum.y_seeds").encode(y=_zero_line("below"), y2="y_seeds:Q")
    layers = [
        seeds.mark_area(opacity=0.5, color=grey) if len(axis.rows) > 1 else seeds.mark_rule(strokeWidth=9, color=grey),
        panel.mark_rule(strokeWidth=1.5, color=dark).encode(y=_zero_line("y_low"), y2="y_high:Q"),
        panel.mark_line(strokeWidth=1.5, color=dark).encode(y=_zero_line("y_value"), detail="line:N"),
        panel.mark_point(size=34, color=dark).encode(y=_zero_line("y_value"), opacity=_seen("value")),
    ]
    clear = [row for row in rows if row["difference_low"] is not None]
    apart = sum(row["difference_low"] > 0 or row["difference_high"] < 0 for row in clear)
    caption = (
        f"Of {wording.count(len(clear), 'difference')} with an interval, {apart:,} "
        f"{'has' if apart == 1 else 'have'} one that leaves out 0; of as many without any true difference,"
        f" 1 in 20 would."
        if clear
        else "No difference has an interval."
    )
    return Figure(
        "differences",
        "This series less the other",
        "Difference of the chosen statistic, with its 95 % interval over the facts where it has one; both are asked"
        " the same facts, so that the interval is too wide rather than too narrow. The grey band is how far two"
        " seeds of one recipe are apart, on average over training: a difference within it may be the seed's. It is"
        " drawn beside another recipe, where the release holds seeds of either.",
        caption,
        source_line(partition),
        _specification(_panels(axis, rows, columns, ends, layers), caption, controls),
        Table(
            "compare-differences",
            [
                Column("other_series_id", "Beside"),
                Column("other_tau_id", "τ"),
                Column("statistic", "Statistic", "statistic"),
                Column("component_kind", "Of", "kind_or_all"),
                Column("checkpoint_name", "Checkpoint"),
                Column("difference", "Difference", "decimal"),
                Column("difference_low", "low", "decimal"),
                Column("difference_high", "high", "decimal"),
                Column("seed_distance", "Two seeds", "decimal"),
                Column("seed_pair_count", "Pairs of seeds", "count"),
            ],
            rows,
            is_searchable=True,
        ),
        legend=[(_OWN_COLOUR, "difference and its interval"), ("inactive", "as far as two seeds are apart")],
        is_half=True,
        query=partition.standalone(sql),
    )


def _value(column: str) -> alt.Y:
    return alt.Y(f"{column}:Q", title=None, axis=alt.Axis(format=".3~g", tickCount=5))


def _seen(column: str) -> Any:
    """An opacity that hides a point without a value."""
    return alt.condition(f"isValid(datum.{column})", alt.value(1), alt.value(0))


def _zero_line(column: str) -> alt.Y:
    """An axis on which the line of no difference is darker than the others."""
    colour = alt.condition("datum.value === 0", alt.value("#9aa1a8"), alt.value("#e8ebee"))
    return alt.Y(f"{column}:Q", title=None, axis=alt.Axis(format=".3~g", tickCount=5, gridColor=colour))


def _specification(chart: alt.FacetChart, caption: str, controls: Sequence[Control]) -> dict[str, Any]:
    """As charts.specification; the picture grows and shrinks with the number of panels that a choice gives."""
    bound = [charts.bound(control.control_id, control.selected) for control in controls]
    return charts.specification(chart, caption, bound) | {"autosize": {"type": "pad", "resize": True}}
