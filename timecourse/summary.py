"""What a release holds, said in a few lines after a run. Every number is read from the marts."""

from pathlib import Path

import duckdb

_SERIES = """
select
    series_id, setting_id, tau_id, tau, theta,
    min_by(checkpoint_id, checkpoint_index) as first_id, max_by(checkpoint_id, checkpoint_index) as last_id,
    min_by(checkpoint_name, checkpoint_index) as first_name, max_by(checkpoint_name, checkpoint_index) as last_name,
    count(*) as checkpoint_count, max(completeness_error_max) as completeness_error
from dim_checkpoints
join dim_settings using (series_id, setting_id)
group by all
order by all
"""
_ACCURACY = """
select checkpoint_id, all_tokens_accuracy, all_tokens_low, all_tokens_high, fact_count, majority_share
from fct_relation_accuracies
where series_id = ? and setting_id = ? and scope_kind = 'all'
"""
_ROLES = """
select checkpoint_id, primary_role, count(*) as head_count
from fct_component_histories
where series_id = ? and setting_id = ? and tau_id = ? and component_kind = 'head'
group by all
"""
_TURNOVER = """
select avg(turnover), min(turnover), max(turnover), count(turnover)
from fct_turnovers
where series_id = ? and setting_id = ? and tau_id = ? and component_kind = 'head' and role = 'all'
"""
_CHECKS = "select count(*), count(*) filter (result = 'warn'), count(*) filter (result = 'fail') from fct_check_results"
_ROLE_ORDER = ("general", "entity", "relation_answer", "fact_answer", "inactive")


def summarise(release: Path) -> list[str]:
    """The release in plain lines: accuracy first and last, the heads' roles, turnover, checks."""
    lines = []
    with duckdb.connect(str(release / "warehouse.duckdb"), read_only=True) as connection:
        for series, setting, tau_id, tau, theta, first, last, first_name, last_name, count, error in connection.execute(
            _SERIES
        ).fetchall():
            lines.append(
                f"{series}: {count} checkpoint{'' if count == 1 else 's'}, {first_name} to {last_name}; "
                f"τ = {tau_id}{'' if f'{tau:g}' == tau_id else f' = {tau:.4g}'}, θ = {theta:g}; "
                f"parts sum to the stream within {error:.1g}"
            )
            accuracies = {row[0]: row[1:] for row in connection.execute(_ACCURACY, [series, setting]).fetchall()}
            if first in accuracies and last in accuracies:
                start, (share, low, high, facts, majority) = accuracies[first], accuracies[last]
                interval = "" if low is None else f" (95 % interval {low:.1%} to {high:.1%})"
                lines.append(
                    f"  facts known (every answer token top-1): {start[0]:.1%} → {share:.1%} of {facts}{interval}; "
                    f"the most frequent first tokens alone: {majority:.1%}"
                )
            roles: dict[str, dict[str, int]] = {}
            for checkpoint, role, heads in connection.execute(_ROLES, [series, setting, tau_id]).fetchall():
                roles.setdefault(checkpoint, {})[role] = heads
            counts = [
                f"{role.replace('_', '-')} {roles.get(first, {}).get(role, 0)} → {roles.get(last, {}).get(role, 0)}"
                for role in _ROLE_ORDER
            ]
            lines.append(f"  heads by primary role: {', '.join(counts)}")
            mean, lowest, highest, transitions = connection.execute(_TURNOVER, [series, setting, tau_id]).fetchall()[0]
            if transitions:
                lines.append(
                    f"  heads that change their role from one checkpoint to the next: {mean:.0%} on average "
                    f"({lowest:.0%} to {highest:.0%} over {transitions} transition{'' if transitions == 1 else 's'})"
                )
        total, warned, failed = connection.execute(_CHECKS).fetchall()[0]
    return [*lines, f"checks: {total - warned - failed} of {total} passed, {warned} warned, {failed} failed"]
