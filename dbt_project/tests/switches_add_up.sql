-- before - left + entered = after, and both ends agree with the memberships.
with

held as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        count(distinct component_id) as held_count

    from {{ ref('fct_role_memberships') }}
    group by all

)

select switches.*
from {{ ref('fct_role_switches') }} as switches
left join held as held_before
    on
        switches.series_id = held_before.series_id
        and switches.setting_id = held_before.setting_id
        and switches.tau_id = held_before.tau_id
        and switches.from_checkpoint_id = held_before.checkpoint_id
        and switches.component_kind = held_before.component_kind
        and switches.role = held_before.role
left join held as held_after
    on
        switches.series_id = held_after.series_id
        and switches.setting_id = held_after.setting_id
        and switches.tau_id = held_after.tau_id
        and switches.to_checkpoint_id = held_after.checkpoint_id
        and switches.component_kind = held_after.component_kind
        and switches.role = held_after.role
where
    switches.from_count - switches.left_count + switches.entered_count <> switches.to_count
    or switches.from_count <> coalesce(held_before.held_count, 0)
    or switches.to_count <> coalesce(held_after.held_count, 0)
    or switches.deactivated_count > switches.left_count
    or switches.activated_count > switches.entered_count
