"""What a release says of the claims, series by series, as a Markdown document. Every number is read from the marts."""

from pathlib import Path

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

SMALL = 10_000_000
"""Parameters; below, a model is too small for its verdicts to say anything of language models."""


def write_findings(release: Path) -> str:
    """The document. `release` is a release's folder."""
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        series = connection.execute(_SERIES).fetchall()
        claims = connection.execute(_CLAIMS).fetchall()
        agreement = connection.execute(_AGREEMENT).fetchall()
        distances = connection.execute(_DISTANCES).fetchall()
    lines = [
        "# Findings",
        "",
        f"Written by `timecourse findings` from release `{release.resolve().name}`. A claim is judged by rules that",
        "were written down before (docs/statistics.md): `supported` needs a 99 % interval above 0, an estimate of at",
        "least δ and the same sign in 80 % of the cells of the grid θ × τ; `contradicted` an interval below δ.",
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


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text that cannot break a table's row."""
    return " ".join(text.replace("|", "\\|").split())
