"""What the series says of each claim: the verdict, the effect with its interval and draws, and the SQL behind it."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import altair as alt

from timecourse.reports import charts, wording
from timecourse.reports.blocks import Column, Figure, Prose, Table, source_line
from timecourse.reports.partition import Partition, Row

_DEFINITIONS = {
    1: "Early in training, heads are general; later, more of them answer for one relation or fact only. Shares of the"
    " active heads in the first and the last fifth of the checkpoints from the first reliable one on.",
    2: "After a relation converged, other components answer for it: the share of its answer-related components that the"
    " other half of the facts no longer finds at the last checkpoint, less what halves disagree within a checkpoint.",
    3: "Between consecutive checkpoints, more heads enter and leave the answer roles than the general and entity roles;"
    " what halves of the facts disagree on does not count.",
    4: "Between consecutive checkpoints, FFNs keep their roles and the order of their contributions better than heads"
    " do. Turnover is compared where both are equally often active.",
    5: "Facts about locations are learned before facts about names: the difference of the steps of convergence, in"
    " doublings. The relation is the unit.",
    6: "Silencing the components that answer for a relation harms that relation more than others, and more than"
    " silencing random sets does. Damage is the loss of the answer's log-probability.",
}
_LABELS = {
    "general_early_less_late": "general heads, early − late",
    "specific_late_less_early": "specific answer heads, late − early",
    "disagreement_across_less_within": "repurposed, beyond noise",
    "answer_less_other_turnover": "turnover, answer roles − others",
    "head_less_ffn_matched_turnover": "turnover, heads − FFNs",
    "ffn_less_head_rank_correlation": "rank correlation, FFNs − heads",
    "log2_step_name_less_location": "step of convergence, names − locations",
    "own_less_other_relation_damage": "damage, own − other relations",
    "role_less_random_set_damage": "damage, role − random sets",
}
_UNITS = {1: "checkpoint", 2: "relation", 3: "transition", 4: "transition", 5: "relation", 6: "relation"}
_AXES = {
    1: "difference of shares",
    2: "share of components",
    3: "difference of turnovers",
    5: "doublings of the step",
    6: "nats",
}
_REPEATED = {
    1: "With the activity cut-off reset per checkpoint",
    5: "On answers of one token that no other fact shares",
    6: "By the method resample",
}

_INK, _DRAWS, _ZERO, _DELTA = "#1d3f4f", "#c4c9ce", "#6a7177", "#9a6a2f"


def build_claims(partition: Partition) -> list[Prose | Figure]:
    """How claims are judged, and a figure for each; one sentence where the release judges none."""
    rows = partition.rows(CLAIMS.format(where="")) if partition.has_mart("fct_claims") else []
    if not rows:
        return [Prose(["This release judges no claims."], "Claims")]
    has_draws = partition.has_mart("fct_claim_draws")
    figures = [
        _claim(partition, number, list(members), has_draws)
        for number, members in groupby(rows, key=itemgetter("claim_number"))
    ]
    return [_reading(), *figures]


CLAIMS = """select claim_number, claim, statistic, estimate, estimate_low, estimate_high, p_value, unit_count,
    draw_count, delta, same_sign_share, cell_count, round(same_sign_share * cell_count)::integer as same_sign_count,
    repeated_estimate, statistic_verdict, verdict, reason, query
from fct_claims {where}
order by claim_number, statistic"""
_DRAWN = """select statistic, bin, lowest + bin * width as low, lowest + (bin + 1) * width as high,
    count(*) as draw_count
from (
    select statistic, lowest, width,
        coalesce(least(floor((value - lowest) / nullif(width, 0)), 29), 0)::integer as bin
    from (
        select statistic, value, min(value) over same as lowest,
            (max(value) over same - min(value) over same) / 30 as width
        from fct_claim_draws
        where claim_number = {number} and variant = 'main' and replicate > 0 and value is not null
            and theta = (select theta::decimal(12, 9) from dim_settings)
        window same as (partition by statistic)
    )
)
group by all
order by statistic, bin"""


def _reading() -> Prose:
    return Prose(
        [
            "Each claim is judged by rules that were written down before the data were seen. Claims 1 to 5 are those of"
            " the study that the roles come from; claim 6 asks whether silencing a role harms what it is named for.",
            "A dot is the estimate and the bar through it its 99 % interval; the grey columns show how the estimate"
            " varies over draws of the facts (for claim 5: over exchanged labels of relations). Right of the solid line"
            " at 0 the data speak for the claim; the dashed line is δ, the smallest effect that counts. A diamond is"
            " the estimate repeated in another way. Roles are noisier in a draw than over all facts, so draws may lie"
            " beside the estimate; the interval takes only their spread.",
            "Supported: the interval lies above 0 (of claim 6, above δ), the estimate is at least δ, and its sign is"
            " the same for at least four fifths of the other thresholds. Contradicted: the interval lies below δ."
            " Of two statistics both must support the claim; one that contradicts it suffices.",
        ],
        "Does this series support what is claimed of training?",
    )


def _claim(partition: Partition, number: int, rows: Sequence[Row], has_draws: bool) -> Figure:
    first = rows[0]
    sql = CLAIMS.format(where=f"where claim_number = {number}")
    drawn_sql = _DRAWN.format(number=number)
    is_drawn = any(row["estimate"] is not None for row in rows) and first["verdict"] != "not_assessable"
    others = [(f"The estimate again: {_label(row)}", row["query"]) for row in rows]
    bins: list[Row] = []
    if is_drawn and has_draws:
        bins = partition.rows(drawn_sql)
        others.append(("The draws in the chart", partition.standalone(drawn_sql)))
    caption = " ".join(_sentence(row) for row in rows)
    reasons = list(dict.fromkeys(row["reason"] for row in rows if row["reason"]))
    return Figure(
        f"claim-{number}",
        f"{number}. {first['claim']}: {wording.VERDICT_LABELS[first['verdict']]}",
        _DEFINITIONS.get(number, "What is measured stands in the table."),
        caption if is_drawn else "",
        source_line(partition),
        charts.specification(_chart(rows, bins), caption) if is_drawn else None,
        Table(
            f"claim-{number}",
            [
                Column("statistic", "Statistic", "code"),
                Column("estimate", "Estimate", "decimal"),
                Column("estimate_low", "99 % low", "decimal"),
                Column("estimate_high", "99 % high", "decimal"),
                Column("p_value", "p", "decimal"),
                Column("unit_count", _UNITS.get(number, "unit").capitalize() + "s", "count"),
                Column("draw_count", "Draws", "count"),
                Column("delta", "δ", "decimal"),
                Column("same_sign_count", "Cells with this sign", "count"),
                Column("cell_count", "of", "count"),
                Column("repeated_estimate", "Repeated", "decimal"),
                Column("statistic_verdict", "Verdict", "verdict"),
                Column("reason", "Reason"),
            ],
            rows,
        ),
        empty=None if is_drawn else f"Not assessable: {wording.listing(reasons) if reasons else 'no estimate'}.",
        is_half=True,
        query=partition.standalone(sql),
        other_queries=others,
    )


def _label(row: Row) -> str:
    statistic = str(row["statistic"])
    return _LABELS.get(statistic, statistic.replace("_", " "))


def _signed(number: float | None) -> str:
    return wording.signed(number, 3)


def _sentence(row: Row) -> str:
    """One statistic in words: effect, interval or p, n, δ, other thresholds, repetition, verdict."""
    number = row["claim_number"]
    units = wording.count(row["unit_count"], _UNITS.get(number, "unit"))
    if row["estimate_low"] is not None:
        spread = f"99 % interval {_signed(row['estimate_low'])} to {_signed(row['estimate_high'])}"
        spread += f" from {wording.count(row['draw_count'], 'draw')}"
    elif row["p_value"] is not None:
        spread = f"p = {wording.decimal(row['p_value'])} over {wording.count(row['draw_count'], 'relabelling')}"
    else:
        spread = "no interval"
    label = _label(row)
    text = f"{label[0].upper()}{label[1:]}: {_signed(row['estimate'])} ({spread}; {units}; δ = {row['delta']:g})"
    if row["same_sign_count"] is not None and row["cell_count"] > 1:
        text += f", of the same sign for {row['same_sign_count']:,} of {row['cell_count']:,} pairs of thresholds"
    reason = f", because {row['reason']}" if row["reason"] else ""
    text += f": {wording.VERDICT_LABELS[row['statistic_verdict']]}{reason}."
    if row["repeated_estimate"] is not None:
        text += f" {_REPEATED.get(number, 'Repeated')}: {_signed(row['repeated_estimate'])}."
    return text


def _chart(rows: Sequence[Row], bins: Sequence[Row]) -> alt.LayerChart | alt.FacetChart:
    """One line per statistic, from the top: its draws as columns, the interval below them, both from 0 and δ."""
    places = {row["statistic"]: -position for position, row in enumerate(rows)}
    highest = {name: max((b["draw_count"] for b in bins if b["statistic"] == name), default=1) for name in places}
    columns = [
        {
            "low": charts.rounded(b["low"]),
            "high": charts.rounded(b["high"]),
            "base": places[b["statistic"]],
            "top": charts.rounded(places[b["statistic"]] + 0.5 * b["draw_count"] / highest[b["statistic"]]),
            "draws": b["draw_count"],
        }
        for b in bins
        if b["statistic"] in places
    ]
    points = [
        {
            "what": _label(row),
            "estimate": charts.rounded(row["estimate"]),
            "low": charts.rounded(row["estimate_low"]),
            "high": charts.rounded(row["estimate_high"]),
            "repeated": charts.rounded(row["repeated_estimate"]),
            "delta": row["delta"],
            "zero": 0,
            "foot": places[row["statistic"]] - 0.3,
            "line": places[row["statistic"]] - 0.13,
            "head": places[row["statistic"]] + 0.56,
            "name": places[row["statistic"]] + 0.7,
        }
        for row in rows
    ]
    values = [point[key] for point in points for key in ("estimate", "low", "high", "repeated", "delta")]
    values += [column[key] for column in columns for key in ("low", "high")]
    known = [0.0, *(value for value in values if value is not None)]
    margin = 0.04 * (max(known) - min(known)) or 1
    scale = alt.Scale(domain=[min(known) - margin, max(known) + margin], nice=False, zero=False)
    title = _AXES.get(rows[0]["claim_number"], "difference")
    x_axis = alt.Axis(tickCount=5, grid=False)
    height = alt.Scale(domain=[0.65 - len(rows), 0.85], nice=False, zero=False)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=title, scale=scale, axis=x_axis)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=height, axis=None, title=None)

    base = charts.chart_of(points)
    line = y("line")
    tooltip = [
        alt.Tooltip("what:N", title="what"),
        alt.Tooltip("estimate:Q", format=".3f"),
        alt.Tooltip("low:Q", title="99 % low", format=".3f"),
        alt.Tooltip("high:Q", title="99 % high", format=".3f"),
        alt.Tooltip("repeated:Q", format=".3f"),
    ]
    foot, head = y("foot"), y("head")
    layers = [
        base.mark_rule(color=_ZERO).encode(x=x("zero"), y=foot, y2="head:Q"),
        base.mark_rule(color=_DELTA, strokeDash=[4, 3]).encode(x=x("delta"), y=foot, y2="head:Q"),
        base.mark_text(color=_DELTA, align="left", baseline="top", dx=3, fontSize=12, text="δ").encode(
            x=x("delta"), y=head
        ),
        base.mark_rule(strokeWidth=3, color=_INK).encode(x=x("low"), x2="high:Q", y=line),
        base.mark_point(shape="diamond", filled=False, size=60, strokeWidth=1.5, color=_INK, opacity=1)
        .transform_filter("isValid(datum.repeated)")
        .encode(x=x("repeated"), y=line, tooltip=tooltip),
        base.mark_point(size=70, color=_INK, opacity=1)
        .transform_filter("isValid(datum.estimate)")
        .encode(x=x("estimate"), y=line, tooltip=tooltip),
        base.mark_text(align="left", baseline="middle", fontSize=11, color="#454c52", limit=270).encode(
            x=alt.value(0), y=y("name"), text="what:N"
        ),
    ]
    if columns:
        layers.insert(
            0,
            charts.chart_of(columns)
            .mark_bar(color=_DRAWS, binSpacing=0)
            .encode(
                x=x("low"),
                x2="high:Q",
                y=y("base"),
                y2="top:Q",
                tooltip=[alt.Tooltip("draws:Q"), alt.Tooltip("low:Q", title="from"), alt.Tooltip("high:Q", title="to")],
            ),
        )
    return alt.layer(*layers).properties(width="container", height=84 * len(rows))
