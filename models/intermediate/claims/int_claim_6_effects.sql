-- Of the last checkpoint whose relations' sets were silenced by the method `mean`.
with

sets as (

    select *
    from {{ ref('int_ablation_sets') }}
    where set_kind = 'role' and role = 'relation_answer'

),

facts as (

    select *
    from {{ ref('int_ablated_facts') }}
    where method in ('mean', 'resample')

),

-- What each relation's set does to every fact, and what the random sets beside it do to the relation's own.
effects as (

    select
        extraction_id,
        sets.tau_id,
        sets.theta,
        facts.method,
        sets.relation_id as set_relation_id,
        facts.relation_id,
        0 as set_index,
        facts.fact_number,
        facts.effect

    from facts
    inner join sets using (extraction_id, set_id)

    union all

    select
        extraction_id,
        tau_id,
        theta,
        method,
        relation_id as set_relation_id,
        relation_id,
        set_index,
        fact_number,
        effect

    from {{ ref('int_fact_effects') }}
    where role = 'relation_answer' and method in ('mean', 'resample') and set_index > 0

),

checkpoints as (

    select distinct
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        effects.theta,
        extraction_id,
        draws.fact_set_id

    from effects
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints using (extraction_id, tau_id)
    inner join {{ ref('stg_draws__extractions') }} as draws using (extraction_id)
    where effects.method = 'mean'
    qualify
        checkpoints.checkpoint_index = max(checkpoints.checkpoint_index)
            over (partition by checkpoints.series_id, checkpoints.setting_id, tau_id, effects.theta)

),

relations as (

    select
        fact_set_id,
        relation_id,
        min(fact_number)::integer + 1 as first_place,
        max(fact_number)::integer + 1 as last_place,
        list(fact_number order by fact_number) as fact_numbers

    from {{ ref('stg_draws__facts') }}
    group by all

),

grouped as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        theta,
        checkpoints.fact_set_id,
        case effects.method when 'mean' then 'main' else effects.method end as variant,
        effects.set_relation_id,
        effects.relation_id,
        effects.set_index,
        map_from_entries(list((effects.fact_number, effects.effect))) as effect_of,
        count(*) as fact_count

    from effects
    inner join checkpoints using (extraction_id, tau_id, theta)
    group by all

),

-- A random set counts where it was scored on every fact that the relation's own was.
final as (

    select
        grouped.* exclude (effect_of, fact_count),
        relations.first_place,
        relations.last_place,
        list_transform(relations.fact_numbers, lambda fact: coalesce(grouped.effect_of[fact], 0))::double[]
            as effects,
        list_transform(relations.fact_numbers, lambda fact: (grouped.effect_of[fact] is not null)::integer)::double[]
            as is_scored

    from grouped
    inner join relations using (fact_set_id, relation_id)
    qualify
        grouped.fact_count = max(case grouped.set_index when 0 then grouped.fact_count end) over (
            partition by
                grouped.series_id, grouped.setting_id, grouped.tau_id, grouped.theta, grouped.variant,
                grouped.set_relation_id, grouped.relation_id
        )

)

select * from final
