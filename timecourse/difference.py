"""What changed from one release to another, read from the marts of both."""

from pathlib import Path

import duckdb

from timecourse.errors import UserError

SHOWN = 5
"""Lines of a kind that are told apart; the rest is counted."""

_CHECKPOINTS = """
select
    coalesce(new.checkpoint_id, old.checkpoint_id) as checkpoint_id,
    case
        when old.checkpoint_id is null then 'added'
        when new.checkpoint_id is null then 'removed'
        else 'measured anew'
    end as change
from old.dim_checkpoints as old
full join new.dim_checkpoints as new using (checkpoint_id, setting_id)
where old.extraction_id is distinct from new.extraction_id
order by change, coalesce(new.checkpoint_index, old.checkpoint_index), checkpoint_id
"""
_ACCURACIES = """
select
    checkpoint_id, setting_id, old.all_tokens_accuracy, new.all_tokens_accuracy
from old.fct_relation_accuracies as old
inner join new.fct_relation_accuracies as new using (series_id, setting_id, checkpoint_id, scope_kind, scope_id)
where scope_kind = 'all' and old.all_tokens_accuracy is distinct from new.all_tokens_accuracy
order by abs(new.all_tokens_accuracy - old.all_tokens_accuracy) desc, checkpoint_id
"""
_ROLES = """
select
    component_kind, old.primary_role, new.primary_role, count(*), count(distinct checkpoint_id), min(checkpoint_id)
from old.fct_component_histories as old
inner join new.fct_component_histories as new
    using (series_id, setting_id, tau_id, checkpoint_id, component_id, component_kind)
where old.primary_role <> new.primary_role
group by all
order by count(*) desc, component_kind, old.primary_role, new.primary_role
"""
_CLAIMS = """
select distinct series_id, setting_id, tau_id, claim_number, old.verdict, new.verdict
from old.fct_claims as old
inner join new.fct_claims as new using (series_id, setting_id, tau_id, claim_number)
where old.verdict <> new.verdict
order by all
"""


def differences(earlier: Path, later: Path) -> list[str]:
    """Plain lines on what `later` holds otherwise than `earlier`, both folders of releases.

    Raises UserError for a release that cannot be read.
    """
    lines = []
    with duckdb.connect() as connection:
        for name, release in (("old", earlier), ("new", later)):
            path = str(release / "warehouse.duckdb").replace("'", "''")
            try:
                connection.execute(f"attach '{path}' as {name} (read_only)")
            except duckdb.Error as error:
                raise UserError(f"the release {release.name} cannot be read; see `timecourse verify`") from error
        by_change: dict[str, list[str]] = {}
        for checkpoint, change in connection.execute(_CHECKPOINTS).fetchall():
            by_change.setdefault(change, []).append(checkpoint)
        lines += [
            f"{len(found)} checkpoint{'' if len(found) == 1 else 's'} {change}: {_first(found)}"
            for change, found in by_change.items()
        ]
        try:
            accuracies = connection.execute(_ACCURACIES).fetchall()
            roles = connection.execute(_ROLES).fetchall()
            verdicts = connection.execute(_CLAIMS).fetchall()
        except duckdb.Error:  # a mart or a column that the other version of timecourse does not have
            return [*lines, "the releases were made by versions whose marts differ; only checkpoints are compared"]
    if accuracies:
        lines.append(
            f"facts known (every answer token top-1) changed at {len(accuracies)} checkpoints measured in both: "
            + _first([f"{one} {old:.1%} → {new:.1%}" for one, _, old, new in accuracies])
        )
    if roles:
        lines.append(
            f"{sum(row[3] for row in roles)} primary roles changed at checkpoints measured in both: "
            + _first([f"{count} {kind} {old} → {new}" for kind, old, new, count, _, _ in roles])
        )
    lines += [
        f"claim {claim} of {series} ({setting}, τ = {tau}): {old} → {new}"
        for series, setting, tau, claim, old, new in verdicts
    ]
    return lines or ["no checkpoint, accuracy, primary role or verdict differs"]


def _first(parts: list[str]) -> str:
    more = f", and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return ", ".join(parts[:SHOWN]) + more
