with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

memberships as (

    select *
    from {{ ref('fct_role_memberships') }}
    inner join {{ ref('int_roles') }} using (role)

),

-- A role counts once, however many relations or facts it is held for.
held_roles as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        list(distinct role) as roles,
        arg_min(role, role_order) as primary_role,
        count_if(role = 'relation_answer')::integer as relation_answer_count,
        count_if(role = 'fact_answer')::integer as fact_answer_count

    from memberships
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        components.component_kind,
        components.layer,
        components.head,
        checkpoints.checkpoint_index,
        checkpoints.previous_checkpoint_id,
        coalesce(held_roles.roles, []) as roles,
        coalesce(held_roles.primary_role, 'inactive') as primary_role,
        coalesce(held_roles.relation_answer_count, 0) as relation_answer_count,
        coalesce(held_roles.fact_answer_count, 0) as fact_answer_count

    from checkpoints
    inner join components using (series_id)
    left join held_roles using (series_id, setting_id, tau_id, checkpoint_id, component_id)

)

select * from final
