"""What a release says of the claims, series by series, as a Markdown document. Every number is read from the marts."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

_SERIES = """
select
    series_id, tau_id, max(parameter_count) as parameter_count, max(layer_count) as layer_count,
    max(head_count) as head_count, max(checkpoint_count) as checkpoint_count, max(recipe_id) as recipe_id,
    max(tau) as tau, max(theta) as theta,
    max_by(top1_accuracy, checkpoint_index) as accuracy, max_by(top1_low, checkpoint_index) as accuracy_low,
    max_by(top1_high, checkpoint_index) as accuracy_high, max(fact_count) as fact_count
from dim_series
inner join dim_settings using (series_id)
inner join dim_checkpoints using (series_id, setting_id)
left join fct_relation_accuracies using (series_id, setting_id, checkpoint_id)
where coalesce(scope_kind, 'all') = 'all'
group by all
order by all
"""
_CLAIMS = """
select claim_number, claim, statistic, series_id, setting_id, tau_id, estimate, estimate_low, estimate_high, p_value,
    unit_count, delta, same_sign_share, repeated_estimate, statistic_verdict, verdict, reason
from fct_claims
order by claim_number, statistic desc, series_id, setting_id, tau_id
"""
_AGREEMENT = """
select claim_number, claim, count(distinct series_id) as series_count,
    string_agg(distinct verdict, ', ' order by verdict) as verdicts
from fct_claims
inner join dim_series using (series_id)
where recipe_id is not null
group by all
having series_count > 1
order by all
"""
_DISTANCES = """
select statistic, component_kind, pair_kind, count(*) as pair_count, avg(distance) as mean_distance,
    max(distance) as largest_distance
from fct_series_distances
where distance is not null
group by all
order by pair_kind desc, statistic, component_kind
"""

_EFFECTS = """
select
    series_id, checkpoint_name, tau_id, method, role, member_count, fact_count, effect, random_mean, random_count,
    excess, excess_low, excess_high, p_value
from fct_role_effects
inner join dim_checkpoints using (series_id, setting_id, checkpoint_id)
where scope_kind = 'all'
qualify checkpoint_index = max(checkpoint_index) over (partition by series_id, setting_id, tau_id)
order by series_id, setting_id, tau_id, method, list_position(
    ['general', 'entity', 'relation_answer', 'fact_answer'], role
)
"""
_SCORES = """
select series_id, checkpoint_name, tau_id, method, component_kind, measure, component_count, rank_correlation
from fct_score_effects
inner join dim_checkpoints using (series_id, setting_id, checkpoint_id)
order by series_id, setting_id, tau_id, method, component_kind desc, measure, checkpoint_index
"""

SMALL = 10_000_000
"""Parameters; below, a model is too small for its verdicts to say anything of language models."""


def write_findings(release: Path) -> str:
    """The document. `release` is a release's folder."""
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        series = connection.execute(_SERIES).fetchall()
        claims = connection.execute(_CLAIMS).fetchall()
        agreement = connection.execute(_AGREEMENT).fetchall()
        distances = connection.execute(_DISTANCES).fetchall()
        effects = connection.execute(_EFFECTS).fetchall()
        scores = connection.execute(_SCORES).fetchall()
    lines = [
        "# Findings",
        "",
        f"Written by `timecourse findings` from release `{release.resolve().name}`. A claim is judged by rules that",
        "were written down before (docs/statistics.md): `supported` needs a 99 % interval above 0, an estimate of at",
        "least δ (of claim 6, an interval above δ) and the same sign in 80 % of the cells of the grid θ × τ;",
        "`contradicted` an interval below δ.",
        "",
        "## Series",
        "",
        "| series | recipe | parameters | layers × heads | checkpoints | τ | θ | top-1 at the end (95 %) | facts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, tau_id, parameters, layers, heads, count, recipe, tau, theta, share, low, high, facts in series:
        accuracy = "" if share is None else f"{share:.1%}" + ("" if low is None else f" ({low:.1%} to {high:.1%})")
        lines.append(
            f"| {_cell(name)} | {_cell(recipe or '')} | {parameters:,} | {layers} × {heads} | {count} "
            f"| {_cell(tau_id)} = {tau:.4g} | {theta:g} | {accuracy} | {facts or ''} |"
        )
    if series and max(row[2] for row in series) < SMALL:
        lines += [
            "",
            f"The largest of these models has {max(row[2] for row in series):,} parameters. That is enough to learn",
            "these facts by heart and to try the method; it says nothing of how large language models learn. Where",
            "seeds of one recipe get different verdicts, the claim is not a finding about the recipe either.",
        ]
    current = None
    for row in claims:
        (
            number,
            claim,
            statistic,
            name,
            _,
            tau_id,
            estimate,
            low,
            high,
            p,
            units,
            delta,
            sign,
            repeated,
            own,
            all_,
            why,
        ) = row
        if number != current:
            current = number
            lines += [
                "",
                f"## {number}. {claim}",
                "",
                "| statistic | series | τ | estimate (99 %) | n | δ | same sign | repeated | verdict | claim | why |",
                "|---|---|---|---|---|---|---|---|---|---|---|",
            ]
        interval = f" ({low:.3f} to {high:.3f})" if low is not None else f" (p = {p:.4f})" if p is not None else ""
        lines.append(
            f"| {statistic} | {_cell(name)} | {_cell(tau_id)} | {_number(estimate)}{interval} | {units or ''} "
            f"| {delta:g} | {'' if sign is None else f'{sign:.0%}'} | {_number(repeated)} "
            f"| {own} | **{all_}** | {_cell(why)} |"
        )
    lines += _ablations(effects, scores)
    if agreement:
        lines += ["", "## Do seeds of one recipe agree?", "", "| claim | series | verdicts |", "|---|---|---|"]
        lines += [f"| {number}. {claim} | {count} | {verdicts} |" for number, claim, count, verdicts in agreement]
    if distances:
        lines += [
            "",
            "## How far series differ",
            "",
            "Mean absolute difference over matched checkpoints (fct_series_distances), averaged over pairs of series.",
            "",
            "| statistic | kind | pairs of | pairs | mean | largest |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {statistic} | {kind} | {pair_kind} | {count} | {mean:.3f} | {largest:.3f} |"
            for statistic, kind, pair_kind, count, mean, largest in distances
        ]
    return "\n".join(lines) + "\n"


def _ablations(effects: Sequence[tuple[Any, ...]], scores: Sequence[tuple[Any, ...]]) -> list[str]:
    """What silencing components did; nothing where no series was ablated."""
    if not effects:
        return []
    lines = [
        "",
        "## Which roles matter, and by how much",
        "",
        "Change of the answers' log-probability (nats) when the components of a role are silenced together, beside",
        "random sets of as many heads of the same layers and as many FFNs; sets are chosen on one half of the facts",
        "and scored on the other; at the last ablated checkpoint. p cannot be below 1 / (1 + random sets).",
        "",
        "| series | checkpoint | method | role | components | facts | effect | random (sets) | excess (95 %) | p |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, checkpoint, _, method, role, size, facts, effect, mean, count, excess, low, high, p in effects:
        interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
        beside = "" if mean is None else f"{mean:.2f} ({count})"
        lines.append(
            f"| {_cell(name)} | {_cell(checkpoint)} | {method} | {role} | {size:.1f} | {facts} | {_number(effect, 2)} "
            f"| {beside} | {_number(excess, 2)}{interval} | {_number(p)} |"
        )
    lines += [
        "",
        "## Does the score predict the effect?",
        "",
        "Spearman's rank correlation, over components, of what attribution says with the effect of silencing the",
        "component alone. An effect is negative where answers suffer: a score that predicts it is close to −1.",
        "",
        "| series | method | kind | n | measure | by checkpoint |",
        "|---|---|---|---|---|---|",
    ]
    for key, rows in groupby(scores, key=lambda row: (row[0], *row[2:7])):
        name, _, method, kind, measure, count = key
        course = ", ".join(f"{_cell(row[1])}: {_number(row[7], 2) or 'not defined'}" for row in rows)
        lines.append(f"| {_cell(name)} | {method} | {kind} | {count} | {measure} | {course} |")
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cell(text: str) -> str:
    """Text that cannot break a table's row."""
    return " ".join(text.replace("|", "\\|").split())
