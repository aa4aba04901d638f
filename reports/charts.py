"""What all charts share: colours, the training axis, and how an Altair chart becomes a specification for the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10
from statistics import median
from typing import Any

import altair as alt

from timecourse.reports.partition import Row

ROLES = ("general", "entity", "relation_answer", "fact_answer")
PRIMARY_ROLES = (*ROLES, "inactive")

# Okabe and Ito's palette: told apart with any common colour blindness. One colour per role, on every page.
ROLE_COLOURS = {
    "general": "#0072b2",
    "entity": "#e69f00",
    "relation_answer": "#009e73",
    "fact_answer": "#cc79a7",
    "inactive": "#c4c9ce",
}
METRIC_COLOURS = {"top1": "#1d3f4f", "top10": "#6fa3b5", "all_tokens": "#9a6a2f"}
KIND_COLOURS = {"head": "#1d3f4f", "ffn": "#8a8f94"}
CSS_COLOURS = ROLE_COLOURS | METRIC_COLOURS | KIND_COLOURS | {"all": "#1f2428"}
SEQUENTIAL = ["#f4f7f9", "#1d3f4f"]
"""Ends of the scale of heat maps: light is little."""

METRIC_LABELS = {"top1": "top-1", "top10": "top-10", "all_tokens": "all answer tokens top-1"}

_CONFIG: dict[str, Any] = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "#454c52",
        "titleColor": "#454c52",
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "gridColor": "#e8ebee",
        "domainColor": "#9aa1a8",
        "tickColor": "#9aa1a8",
        "titlePadding": 8,
    },
    "legend": {"titleFontWeight": "normal", "titleFontSize": 12, "labelFontSize": 11, "titleColor": "#454c52"},
    "header": {"labelFontSize": 12, "labelFontWeight": "bold", "labelColor": "#24292e", "labelLimit": 220},
    "point": {"filled": True},
}


@dataclass(frozen=True)
class TrainingAxis:
    """The x-axis of a series' charts.

    `rows`: one per checkpoint, with its name and its position in every mode (`x_<mode>`); charts look them up by
    `checkpoint_index`. `modes`: mode -> label and x encoding; the page's switch replaces one encoding by another.
    `note` says why a mode is missing; empty where none is.
    """

    rows: list[Row]
    modes: dict[str, dict[str, Any]]
    default: str
    note: str

    def x(self) -> alt.X:
        """The x encoding in the default mode."""
        return alt.X.from_dict(self.modes[self.default]["encoding"])

    def base(self, rows: Sequence[Row]) -> alt.Chart:
        """A chart of rows that have a `checkpoint_index`, with each checkpoint's name and positions added."""
        return _looked_up(chart_of(rows), self.rows, "checkpoint_index", "")

    def interval_base(self, rows: Sequence[Row]) -> alt.Chart:
        """As `base`, with the positions of `from_checkpoint_index` beside them as `from_x_<mode>`."""
        return _looked_up(self.base(rows), self.rows, "from_checkpoint_index", "from_")

    def band(self, chart: alt.Chart) -> alt.Chart:
        """The mark of an interval over training: an area, or a line where there is one checkpoint only."""
        marked: alt.Chart = (
            chart.mark_area(opacity=0.15) if len(self.rows) > 1 else chart.mark_rule(opacity=0.4, strokeWidth=3)
        )
        return marked

    def x2(self) -> alt.X2:
        """The other end of an interval in the default mode."""
        return alt.X2(f"from_x_{self.default}")


def training_axis(checkpoints: Sequence[Row]) -> TrainingAxis:
    """The axis of a series from its rows of dim_checkpoints with `label`, in order.

    Steps (tokens) are offered where they only grow with the order; checkpoints without a step may follow at the end
    and are drawn after the last step under their name. Where half of the steps lie in the first tenth, the logarithmic
    scale is the default. Otherwise checkpoints stand in their order at equal distances.
    """
    names = [row["label"] for row in checkpoints]
    rows: list[Row] = [
        {"checkpoint_index": row["checkpoint_index"], "checkpoint": row["checkpoint_name"], "step": row["step"],
         "tokens": row["tokens"], "branch": f"{row['phase']} {row['branch']}", "x_order": row["checkpoint_index"]}
        for row in checkpoints
    ]  # fmt: skip
    modes: dict[str, dict[str, Any]] = {}
    notes = []
    default = "order"
    for quantity, title in (("step", "training step"), ("tokens", "training tokens")):
        values = [row[quantity] for row in checkpoints]
        known = [value for value in values if value is not None]
        if not known:
            notes.append(f"No checkpoint states its {title}.")
        elif values[: len(known)] != known:
            notes.append(f"No axis by {title}: not every checkpoint states its own.")
        elif any(earlier >= later for earlier, later in pairwise(known)):
            notes.append(f"No axis by {title}: it does not grow from each checkpoint to the next.")
        else:
            for mode in (quantity, f"{quantity}_log"):
                positions = _positions(known, len(values), is_log=mode != quantity)
                for row, position in zip(rows, positions, strict=True):
                    row[f"x_{mode}"] = position
                modes[mode] = _numeric_mode(mode, title, known, positions, names)
            if quantity == "step":
                default = "step_log" if median(known) < 0.1 * known[-1] else "step"
    modes["order"] = {
        "label": "checkpoint order",
        "encoding": {
            "field": "x_order", "type": "quantitative", "title": "checkpoint",
            "scale": {"domain": _domain(0, len(names) - 1), "nice": False, "zero": False},
            "axis": {
                "values": _spread(len(names), 16), "labelExpr": f"{json.dumps(names)}[datum.value]",
                "labelAngle": -40, "labelLimit": 90, "grid": False,
            },
        },
    }  # fmt: skip
    return TrainingAxis(rows, modes, default, " ".join(notes))


def checkpoint_columns(checkpoints: Sequence[Row], title: str = "checkpoint (training step or name)") -> alt.X:
    """The x encoding of heat maps: one column per checkpoint, in order, equally wide."""
    names = [row["label"] for row in checkpoints]
    return alt.X(
        "checkpoint_index:O",
        title=title,
        axis=alt.Axis(
            labelExpr=f"{json.dumps(names)}[datum.value]",
            values=_spread(len(names), 26),
            labelAngle=-40,
            labelLimit=90,
            ticks=False,
            domain=False,
        ),
        scale=alt.Scale(domain=list(range(len(names)))),
    )


def line_chart(
    axis: TrainingAxis,
    rows: Sequence[Row],
    *,
    value_title: str,
    colours: Mapping[str, str],
    series_title: str,
    value_format: str = ".2f",
    domain: tuple[float, float] | None = None,
    has_band: bool = False,
) -> alt.LayerChart | alt.FacetChart:
    """Lines over training, one per `series`.

    Rows have `checkpoint_index`, `series`, `value`; with a band, `low` and `high` too. A null value interrupts its
    line, and so does a new branch.
    """
    present = [key for key in colours if any(row["series"] == key for row in rows)]
    colour = alt.Color(
        "series:N", scale=alt.Scale(domain=present, range=[colours[key] for key in present]), legend=None
    )
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=True)
    value = alt.Y("value:Q", title=value_title, scale=scale, axis=alt.Axis(format=value_format, tickCount=5))
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("series:N", title=series_title),
        alt.Tooltip("value:Q", title=value_title, format=value_format),
    ]
    if has_band:
        tooltip += [alt.Tooltip(f"{end}:Q", title=f"95 % {end}", format=value_format) for end in ("low", "high")]
    base = axis.base(rows).encode(x=axis.x(), color=colour)
    line = base.mark_line(strokeWidth=2).encode(y=value, detail="branch:N")
    points = base.mark_point(size=28, opacity=1).encode(y=value, tooltip=tooltip)
    band = axis.band(base).encode(y=alt.Y("low:Q", title=value_title, scale=scale), y2="high:Q", detail="branch:N")
    return alt.layer(*([band] if has_band else []), line, points).properties(width="container", height=220)


def chart_of(rows: Sequence[Row]) -> alt.Chart:
    """A chart of rows that stand in its specification."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def small_multiples(base: alt.Chart, layers: Sequence[alt.Chart], height: int) -> alt.FacetChart:
    """One small chart of `layers` (charts without data) per value of the rows' `panel`, in the order of `panel_index`.

    The data and transforms of `base` stand above the panels, once. The page sets the number of columns by its width.
    """
    # Not a list of names: Vega-Lite writes those into an expression, and not every name survives that.
    facet = alt.Facet("panel:N", title=None, sort=alt.EncodingSortField("panel_index", op="min"))
    chart = alt.layer(*layers).properties(width=290, height=height).facet(facet=facet, columns=3, data=base.data)
    chart.transform = base.transform
    return chart


def bound(control_id: str, selected: str) -> dict[str, Any]:
    """A Vega parameter that follows the page's control of the same id (an identifier: no hyphens)."""
    return {"name": control_id, "value": selected, "bind": {"element": f"#{control_id}", "event": "input"}}


def specification(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart, description: str, parameters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The Vega-Lite specification of a chart, with the project's look, its text description and bound parameters."""
    result: dict[str, Any] = chart.to_dict()
    del result["$schema"]  # the page needs no remote name: it says itself that this is Vega-Lite
    result["config"] = _CONFIG
    result["description"] = description
    if parameters:
        result["params"] = [*result.get("params", []), *parameters]
    return result


def role_name_expression(field: str) -> str:
    """A Vega expression: the name of the role in a field, with a space for the underscore."""
    return f"replace({field}, '_', ' ')"


def rounded(value: float | None) -> float | None:
    """Five decimals: more than a chart can show, and half the bytes."""
    return None if value is None else round(value, 5)


def _looked_up(chart: alt.Chart, rows: list[Row], key: str, prefix: str) -> alt.Chart:
    fields = [name for name in rows[0] if name.startswith("x_") or (not prefix and name != "checkpoint_index")]
    data = alt.LookupData(data=alt.InlineData(values=rows), key="checkpoint_index", fields=fields)
    return chart.transform_lookup(lookup=key, from_=data, as_=[prefix + name for name in fields])


def _positions(known: Sequence[int], count: int, is_log: bool) -> list[float]:
    """Positions of all checkpoints: the known values, then one equal distance each for those without."""
    last = known[-1]
    if is_log:
        smallest = min((value for value in known if value > 0), default=1)
        factor = max(1.2, (max(last, 1) / smallest) ** 0.08)
        return [*known, *(round(max(last, 1) * factor**k, 3) for k in range(1, count - len(known) + 1))]
    gap = max((last - known[0]) / max(len(known) - 1, 1), 0.06 * (last - known[0])) or 1
    return [*known, *(round(last + gap * k, 3) for k in range(1, count - len(known) + 1))]


def _numeric_mode(
    mode: str, title: str, known: Sequence[int], positions: Sequence[float], names: Sequence[str]
) -> dict[str, Any]:
    is_log = mode.endswith("_log")
    first, last, end = known[0], known[-1], positions[-1]
    named = dict(zip(positions[len(known) :], names[len(known) :], strict=True))
    ticks = _log_ticks(known) if is_log else _linear_ticks(first, last)
    smallest = min((value for value in known if value > 0), default=1)
    if named:  # no number so near that it would touch the name
        after = positions[len(known)]
        length = log10(end / smallest) if is_log else end - first
        ticks = [
            tick for tick in ticks
            if not tick or (log10(after / tick) if is_log else after - tick) >= 0.07 * length
        ]  # fmt: skip
    number = "replace(format(datum.value, '~s'), 'G', 'B')"
    label = "".join(f"datum.value === {position} ? {json.dumps(name)} : " for position, name in named.items()) + number
    scale: dict[str, Any] = {"domain": _domain(first, end), "nice": False, "zero": False}
    if is_log:
        scale |= {"type": "symlog", "constant": smallest}
    return {
        "label": f"{title} (logarithmic)" if is_log else title,
        "encoding": {
            "field": f"x_{mode}", "type": "quantitative", "title": f"{title} (log)" if is_log else title,
            "scale": scale,
            "axis": {"values": [*ticks, *named], "labelExpr": label, "labelOverlap": "greedy", "labelLimit": 80,
                     "grid": False},
        },
    }  # fmt: skip


def _domain(low: float, high: float) -> list[float]:
    return [low - 1, high + 1] if low == high else [low, high]


def _linear_ticks(low: float, high: float) -> list[float]:
    if high == low:
        return [low]
    power = 10 ** floor(log10((high - low) / 5))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 6 >= high - low)
    return [tick for k in range(12) if low <= (tick := (floor(low / step) + k) * step) <= high]


def _log_ticks(known: Sequence[int]) -> list[float]:
    positive = [value for value in known if value > 0] or [1]
    powers = [10**k for k in range(floor(log10(positive[0])), floor(log10(positive[-1])) + 1)]
    factors = (1, 2, 5) if len(powers) < 3 else (1,)
    ticks = [factor * power for power in powers for factor in factors]
    return [*([0] if known[0] == 0 else []), *(tick for tick in ticks if positive[0] <= tick <= positive[-1])]


def _spread(count: int, at_most: int) -> list[int]:
    """Indices of at most so many of `count` things, evenly spread, the last one among them."""
    stride = -(-count // at_most)
    return sorted(range(count - 1, -1, -stride))
