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

-- Of 12 facts drawn from the relation's, how probable is it that the component holds the role for one at least?
final as (

    select
        series_id,
        setting_id,
        component_fact_counts.tau_id,
        component_fact_counts.checkpoint_id,
        component_fact_counts.component_kind,
        component_fact_counts.role,
        relation_id,
        round(sum(
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
        ), 9) as rarefied_count

    from component_fact_counts
    inner join relations using (series_id, setting_id, relation_id)
    where relations.fact_count >= 12
    group by all

)

select * from final
