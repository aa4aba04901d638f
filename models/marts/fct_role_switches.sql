with

component_roles as (

    select * from {{ ref('int_component_roles') }}

),

roles as (

    select *
    from {{ ref('int_roles') }}
    where role <> 'inactive'

),

transitions as (

    select
        later.series_id,
        later.setting_id,
        later.tau_id,
        earlier.checkpoint_id as from_checkpoint_id,
        later.checkpoint_id as to_checkpoint_id,
        later.component_kind,
        earlier.roles as roles_before,
        later.roles as roles_now

    from component_roles as later
    inner join component_roles as earlier
        on
            later.series_id = earlier.series_id
            and later.setting_id = earlier.setting_id
            and later.tau_id = earlier.tau_id
            and later.previous_checkpoint_id = earlier.checkpoint_id
            and later.component_id = earlier.component_id

),

role_changes as (

    select
        *,
        list_contains(roles_before, role) as was_held,
        list_contains(roles_now, role) as is_held,
        was_held and not is_held as has_left,
        is_held and not was_held as has_entered

    from transitions
    cross join roles

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        component_kind,
        role,
        count_if(was_held)::integer as from_count,
        count_if(is_held)::integer as to_count,
        count_if(has_left)::integer as left_count,
        count_if(has_entered)::integer as entered_count,
        count_if(has_left and len(roles_now) = 0)::integer as deactivated_count,
        count_if(has_entered and len(roles_before) = 0)::integer as activated_count,
        case when role <> 'general' then count_if(has_left and list_contains(roles_now, 'general')) end::integer
            as switched_to_general_count,
        case when role <> 'entity' then count_if(has_left and list_contains(roles_now, 'entity')) end::integer
            as switched_to_entity_count,
        case
            when role <> 'relation_answer' then count_if(has_left and list_contains(roles_now, 'relation_answer'))
        end::integer as switched_to_relation_answer_count,
        case when role <> 'fact_answer' then count_if(has_left and list_contains(roles_now, 'fact_answer')) end::integer
            as switched_to_fact_answer_count

    from role_changes
    group by series_id, setting_id, tau_id, from_checkpoint_id, to_checkpoint_id, component_kind, role

)

select * from final
