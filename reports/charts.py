"""What all charts share: colours, the training axis, and how an Altair chart becomes a specification for the page."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
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

DARK_COLOURS = {
    "#ffffff": "#15191c",
    "#1f2428": "#e6e9ec",
    "#24292e": "#e6e9ec",
    "#454c52": "#b9c0c7",
    "#6a7177": "#9aa1a8",
    "#8a8f94": "#a3abb2",
    "#9aa1a8": "#6b737b",
    "#c4c9ce": "#555d64",
    "#e8ebee": "#2a3035",
    "#f4f7f9": "#1d2327",
    "#1d3f4f": "#8fc1d6",
    "#6fa3b5": "#4f8296",
    "#9a6a2f": "#d6a461",
    "#0072b2": "#3f9fdc",
}
"""What stands in the place of a colour on a dark page; every other colour is seen on both."""

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
    "legend": {
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "titleColor": "#454c52",
        "labelColor": "#454c52",
    },
    "header": {"labelFontSize": 12, "labelFontWeight": "bold", "labelColor": "#24292e", "labelLimit": 220},
    "point": {"filled": True},
}


@dataclass(frozen=True)
class TrainingAxis:
    """The x-axis of a series' charts.

    `rows`: one per checkpoint, with its name, its `line` (siblings are drawn as lines of their own) and its position in
    every mode (`x_<mode>`); charts look them up by `checkpoint_index`. `boundaries`: one per stage or phase that begins
    after the first checkpoint, with its name and the positions. `modes`: mode -> label and x encoding; the page's
    switch replaces one encoding by another. `note` explains the axis and says why a mode is missing.
    """

    rows: list[Row]
    boundaries: list[Row]
    modes: dict[str, dict[str, Any]]
    default: str
    note: str

    @property
    def has_one_line(self) -> bool:
        """Whether every checkpoint follows the one before it, within one phase."""
        return len({row["line"] for row in self.rows}) == 1

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

    def boundary_layers(self) -> list[alt.Chart]:
        """Layers that mark where stages and phases begin, if any do: thin vertical lines with their names."""
        if not self.boundaries:
            return []
        base = chart_of(self.boundaries).encode(x=self.x(), tooltip=alt.Tooltip("boundary:N", title="begins"))
        name = base.mark_text(angle=270, align="right", baseline="top", dy=2, fontSize=10, color="#6a7177", limit=90)
        return [
            base.mark_rule(strokeWidth=1, color="#9aa1a8"),
            name.encode(y=alt.value(0), text="boundary:N"),
        ]


def training_axis(checkpoints: Sequence[Row]) -> TrainingAxis:
    """The axis of a series from its rows of dim_checkpoints with `label`, in order.

    Steps and tokens count from the beginning. They are offered where they grow within every run; a checkpoint whose
    name states no step is drawn under its name, between its neighbours or after the last. Where half of the steps lie
    in the first tenth, the logarithmic scale is the default. Otherwise checkpoints stand in their order at equal
    distances.
    """
    names = [row["label"] for row in checkpoints]
    lines = _lines(checkpoints)
    rows: list[Row] = [
        {"checkpoint_index": row["checkpoint_index"], "checkpoint": row["checkpoint_name"], "step": row["step"],
         "tokens": row["tokens"], "line": line, "x_order": row["checkpoint_index"]}
        for row, line in zip(checkpoints, lines, strict=True)
    ]  # fmt: skip
    modes: dict[str, dict[str, Any]] = {}
    notes = []
    default = "order"
    for quantity, column, title in (
        ("step", "cumulative_step", "training step"),
        ("tokens", "tokens", "training tokens"),
    ):
        values = [row[column] for row in checkpoints]
        known = sorted(value for value in values if value is not None)
        if not known:
            notes.append(f"No checkpoint states its {title}.")
        elif not _may_be_unstated(checkpoints, values):
            notes.append(f"No axis by {title}: not every checkpoint states its own.")
        elif not _grow(checkpoints, values):
            notes.append(f"No axis by {title}: it does not grow from each checkpoint to the next.")
        else:
            for mode in (quantity, f"{quantity}_log"):
                positions = _positions(values, is_log=mode != quantity)
                for row, position in zip(rows, positions, strict=True):
                    row[f"x_{mode}"] = position
                named = {
                    position: name
                    for position, name, value in zip(positions, names, values, strict=True)
                    if value is None
                }
                modes[mode] = _numeric_mode(mode, title, known, max(positions), named)
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
    boundaries = _boundaries(checkpoints, rows)
    if boundaries:
        count = " Steps and tokens count from the beginning of training." if len(modes) > 1 else ""
        notes.insert(0, f"A vertical line stands where a stage or phase begins.{count}")
    return TrainingAxis(rows, boundaries, modes, default, " ".join(notes))


def _lines(checkpoints: Sequence[Row]) -> list[str]:
    """The line on which each checkpoint is drawn, named after the line's first.

    A checkpoint stands on the line of the one that it follows, if that is of its phase, and of its branch or followed
    by no other.
    """
    by_id = {row["checkpoint_id"]: row for row in checkpoints}
    followers = Counter(row["previous_checkpoint_id"] for row in checkpoints)
    lines: dict[str, str] = {}
    for row in checkpoints:
        before = by_id.get(row["previous_checkpoint_id"])
        goes_on = (
            before is not None
            and before["phase"] == row["phase"]
            and (before["branch"] == row["branch"] or followers[before["checkpoint_id"]] == 1)
        )
        lines[row["checkpoint_id"]] = lines[row["previous_checkpoint_id"]] if goes_on else row["checkpoint_name"]
    return list(lines.values())


def _boundaries(checkpoints: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Where a phase, or a stage with a name or steps of its own, begins: at the first of its checkpoints."""
    found = []
    phase = checkpoints[0]["phase"]
    for number, members in groupby(zip(checkpoints, rows, strict=True), key=lambda pair: pair[0]["stage_number"]):
        stage = list(members)
        first = stage[0][0]
        words = [first["phase"]] * (first["phase"] != phase) + [first["stage"]] * (first["stage"] is not None)
        phase = first["phase"]
        if number != checkpoints[0]["stage_number"] and words:
            positions = {key: min(row[key] for _, row in stage) for key in stage[0][1] if key.startswith("x_")}
            found.append({"boundary": " ".join(words), **positions})
    return found


def checkpoint_columns(
    checkpoints: Sequence[Row], title: str = "checkpoint (training step or name)", label_count: int = 26
) -> alt.X:
    """The x encoding of heat maps: one column per checkpoint, in order, equally wide, at most so many with a label."""
    names = [row["label"] for row in checkpoints]
    return alt.X(
        "checkpoint_index:O",
        title=title,
        axis=alt.Axis(
            labelExpr=f"{json.dumps(names)}[datum.value]",
            values=_spread(len(names), label_count),
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
    line, and so does a new phase; siblings have lines of their own.
    """
    present = [key for key in colours if any(row["series"] == key for row in rows)]
    colour = alt.Color(
        "series:N", scale=alt.Scale(domain=present, range=[colours[key] for key in present]), legend=None
    )
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=True)
    value_axis = count_axis(5) if value_format == "d" else alt.Axis(format=value_format, tickCount=5)
    value = alt.Y("value:Q", title=value_title, scale=scale, axis=value_axis)
    tooltip = [
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("series:N", title=series_title),
        alt.Tooltip("value:Q", title=value_title, format=value_format),
    ]
    if has_band:
        tooltip += [alt.Tooltip(f"{end}:Q", title=f"95 % {end}", format=value_format) for end in ("low", "high")]
    base = axis.base(rows).encode(x=axis.x(), color=colour)
    line = base.mark_line(strokeWidth=2).encode(y=value, detail="line:N")
    points = base.mark_point(size=28, opacity=1).encode(y=value, tooltip=tooltip)
    band = axis.band(base).encode(y=alt.Y("low:Q", title=value_title, scale=scale), y2="high:Q", detail="line:N")
    layers = [*([band] if has_band else []), line, points, *axis.boundary_layers()]
    return alt.layer(*layers).properties(width="container", height=220)


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


def role_colour(field: str) -> alt.Color:
    """The colour of the role in a field; the page's legend says which is which."""
    scale = alt.Scale(domain=list(ROLE_COLOURS), range=list(ROLE_COLOURS.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=None)


def dashed_line(value: alt.Y) -> alt.Chart:
    """A layer: a thin dashed line across a panel at the height `value`, which chance or no difference has."""
    line: alt.Chart = alt.Chart().mark_rule(strokeDash=[4, 3], strokeWidth=1, color="#8a8f94").encode(y=value)
    return line


def count_axis(tick_count: int, *, grid: bool = True) -> alt.Axis:
    """An axis of counts: only whole numbers are written at its ticks."""
    return alt.Axis(
        tickCount=tick_count, tickMinStep=1, labelExpr="datum.value % 1 ? '' : format(datum.value, 'd')", grid=grid
    )


def zero_axis() -> alt.Axis:
    """An axis on which the line of no change is darker than the others."""
    colour = alt.condition("datum.value === 0", alt.value("#9aa1a8"), alt.value("#e8ebee"))
    return alt.Axis(format=".3~g", tickCount=4, gridColor=colour)


def bound(control_id: str, selected: str) -> dict[str, Any]:
    """A Vega parameter that follows the page's control of the same id (an identifier: no hyphens)."""
    return {"name": control_id, "value": selected, "bind": {"element": f"#{control_id}", "event": "input"}}


def specification(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart, description: str, parameters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The Vega-Lite specification of a chart, with the project's look, its text description and bound parameters."""
    result: dict[str, Any] = chart.to_dict(validate=False)  # for the reason that site.py gives
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


def _may_be_unstated(checkpoints: Sequence[Row], values: Sequence[int | None]) -> bool:
    """Whether only names without a step, after the first checkpoint, and the last ones lack a value."""
    stated = [index for index, value in enumerate(values) if value is not None]
    return stated[0] == 0 and all(
        value is not None or row["step"] is None for row, value in zip(checkpoints[: stated[-1]], values, strict=False)
    )


def _grow(checkpoints: Sequence[Row], values: Sequence[int | None]) -> bool:
    """Whether the values grow within every run: one branch of one stage."""
    runs: dict[tuple[int, str], list[int]] = {}
    for row, value in zip(checkpoints, values, strict=True):
        if value is not None:
            runs.setdefault((row["stage_number"], row["branch"]), []).append(value)
    return all(earlier < later for run in runs.values() for earlier, later in pairwise(run))


def _positions(values: Sequence[int | None], is_log: bool) -> list[float]:
    """Positions of all checkpoints: the known values; the others evenly between their neighbours, or after the last."""
    known = [value for value in values if value is not None]
    first, last = min(known), max(known)
    smallest = min((value for value in known if value > 0), default=1)
    gap = max((last - first) / max(len(known) - 1, 1), 0.06 * (last - first)) or 1
    factor = max(1.2, (max(last, 1) / smallest) ** 0.08)
    positions: list[float] = []
    before: float = first
    for is_unstated, members in groupby(values, key=lambda value: value is None):
        run = list(members)
        if not is_unstated:
            positions += [value for value in run if value is not None]
            before = max(before, positions[-1])
            continue
        count = len(run)
        following = [value for value in values[len(positions) + count :] if value is not None]
        before = max(positions)
        for k in range(1, count + 1):
            if not following:
                position = max(last, 1) * factor**k if is_log else last + gap * k
            elif is_log and before > 0:
                position = before * (min(following) / before) ** (k / (count + 1))
            else:
                position = before + (min(following) - before) * k / (count + 1)
            positions.append(round(position, 3))
    return positions


def _numeric_mode(
    mode: str, title: str, known: Sequence[int], end: float, named: Mapping[float, str]
) -> dict[str, Any]:
    """A mode from the sorted known values, the last position and the names at positions that no value gives."""
    is_log = mode.endswith("_log")
    first, last = known[0], known[-1]
    ticks = _log_ticks(known) if is_log else _linear_ticks(first, last)
    smallest = min((value for value in known if value > 0), default=1)
    length = log10(max(end, smallest) / smallest) if is_log else end - first
    for position in named:  # no number so near that it would touch the name
        ticks = [
            tick for tick in ticks
            if not (tick and position)
            or abs(log10(position / tick) if is_log else position - tick) >= 0.07 * length
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
    """Round numbers between two steps or token counts, which are whole."""
    if high == low:
        return [low]
    power = 10 ** floor(log10((high - low) / 5))
    step = max(1, next(factor * power for factor in (1, 2, 5, 10) if factor * power * 6 >= high - low))
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
