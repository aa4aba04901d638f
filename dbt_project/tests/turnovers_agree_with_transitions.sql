-- The changed components of a transition are those off the diagonal of its table of roles.
with

moves as (

    select
        series_id,
        setting_id,
        tau_id,
        to_checkpoint_id,
        component_kind,
        coalesce(sum(component_count) filter (where from_role <> to_role), 0) as changed_count,
        coalesce(sum(component_count) filter (where from_role <> 'inactive' or to_role <> 'inactive'), 0)
            as component_count

    from {{ ref('fct_role_transitions') }}
    group by all

)

select
    turnovers.*,
    moves.changed_count as moved_count

from {{ ref('fct_turnovers') }} as turnovers
full join moves using (series_id, setting_id, tau_id, to_checkpoint_id, component_kind)
where
    turnovers.role is null
    or (
        turnovers.role = 'all'
        and (
            turnovers.changed_count is distinct from moves.changed_count
            or turnovers.component_count is distinct from moves.component_count
        )
    )
