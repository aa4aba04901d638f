with

memberships as (

    select * from {{ ref('int_role_memberships') }}

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

specificities as (

    select * from {{ ref('fct_role_specificities') }}

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        role,
        scope_id,
        components.component_kind,
        memberships.relation_id,
        memberships.rate,
        specificities.p_value,
        specificities.q_value,
        specificities.is_specific

    from memberships
    inner join checkpoints using (extraction_id, tau_id)
    inner join components using (series_id, component_id)
    left join specificities
        using (series_id, setting_id, tau_id, checkpoint_id, component_id, role, scope_id)

)

select * from final
