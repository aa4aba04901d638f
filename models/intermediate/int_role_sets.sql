with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

kinds as (

    select distinct
        series_id,
        component_kind

    from {{ ref('dim_components') }}

),

-- General and entity are sets of the whole model, the answer roles are sets of one relation.
scopes as (

    select distinct
        extraction_id,
        case when scope_kind = 'relation' then scope_id else 'all' end as scope_id,
        unnest(
            case when scope_kind = 'relation' then ['relation_answer', 'fact_answer'] else ['general', 'entity'] end
        ) as role

    from {{ ref('int_scopes') }}
    where scope_kind in ('all', 'relation')

),

-- The fact_answer set of a relation is the union over its facts.
memberships as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        coalesce(relation_id, 'all') as scope_id,
        list(distinct component_id) as members

    from {{ ref('fct_role_memberships') }}
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        checkpoints.previous_checkpoint_id,
        checkpoints.reference_checkpoint_id,
        component_kind,
        role,
        scope_id,
        coalesce(memberships.members, []) as members

    from checkpoints
    inner join kinds using (series_id)
    inner join scopes using (extraction_id)
    left join memberships using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, scope_id)

)

select * from final
