-- What a role is: a rate above θ in the role's own scope, by a component that holds none of the roles before it.
{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

-- Only of the extractions that are new since the last build.
activities_above_theta as (

    select *
    from {{ ref('int_scope_rates') }}
    where
        is_above_theta
        {% if is_incremental() -%}
            and extraction_id not in (select extraction_id from {{ this }})
        {%- endif %}

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
    anti join general using (extraction_id, tau_id, component_id)
    where scope_kind = 'entity'

),

relation_answer as (

    select
        *,
        'relation_answer' as role

    from activities_above_theta
    anti join general using (extraction_id, tau_id, component_id)
    anti join entity using (extraction_id, tau_id, component_id)
    where scope_kind = 'relation'

),

-- Relation_answer excludes it for the facts of that relation only.
fact_answer as (

    select
        *,
        'fact_answer' as role

    from activities_above_theta
    anti join general using (extraction_id, tau_id, component_id)
    anti join entity using (extraction_id, tau_id, component_id)
    anti join relation_answer using (extraction_id, tau_id, component_id, relation_id)
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
        extraction_id,
        tau_id,
        component_id,
        role,
        scope_id,
        relation_id,
        rate

    from memberships

)

select * from final
