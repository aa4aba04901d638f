-- What a role is: a rate above θ in the role's own scope, by a component that holds none of the roles before it.
with

components as (

    select * from {{ ref('dim_components') }}

),

specificities as (

    select * from {{ ref('fct_role_specificities') }}

),

activities_above_theta as (

    select *
    from {{ ref('int_scope_rates') }}
    where is_above_theta

),

general as (

    select
        *,
        'general' as role

    from activities_above_theta
    where scope_kind = 'all'

),

entity as (

    select
        *,
        'entity' as role

    from activities_above_theta
    anti join general using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    where scope_kind = 'entity'

),

relation_answer as (

    select
        *,
        'relation_answer' as role

    from activities_above_theta
    anti join general using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    anti join entity using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    where scope_kind = 'relation'

),

-- Relation_answer excludes it for the facts of that relation only.
fact_answer as (

    select
        *,
        'fact_answer' as role

    from activities_above_theta
    anti join general using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    anti join entity using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    anti join relation_answer using (series_id, setting_id, tau_id, checkpoint_id, component_id, relation_id)
    where scope_kind = 'fact'

),

memberships as (

    select * from general
    union all
    select * from entity
    union all
    select * from relation_answer
    union all
    select * from fact_answer

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
    inner join components using (series_id, component_id)
    left join specificities
        using (series_id, setting_id, tau_id, checkpoint_id, component_id, role, scope_id)

)

select * from final
