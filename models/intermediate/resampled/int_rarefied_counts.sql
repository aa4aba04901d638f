with

memberships as (

    select * from {{ ref('fct_role_memberships') }}

),

relations as (

    select * from {{ ref('dim_relations') }}

),

component_fact_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        relation_id,
        component_id,
        count(*) as active_count

    from memberships
    where role = 'fact_answer'
    group by all

),

sets as (

    select * from {{ ref('int_role_sets') }}

),

-- Of 12 facts drawn from the relation's, how probable is it that the component holds the role for one at least?
final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        sets.component_kind,
        sets.role,
        relations.relation_id,
        round(coalesce(sum(
            1 - case
                when relations.fact_count - component_fact_counts.active_count < 12 then 0
                else
                    exp(
                        lgamma(relations.fact_count - component_fact_counts.active_count + 1)
                        - lgamma(relations.fact_count - component_fact_counts.active_count - 11)
                        - lgamma(relations.fact_count + 1)
                        + lgamma(relations.fact_count - 11)
                    )
            end
        ) filter (where component_fact_counts.active_count is not null), 0), 9) as rarefied_count

    from sets
    inner join relations using (series_id, setting_id)
    left join component_fact_counts
        using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)
    where
        sets.role = 'fact_answer'
        and sets.scope_id = relations.relation_id
        and relations.fact_count >= 12
    group by all

)

select * from final
