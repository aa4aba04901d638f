with

sets as (

    select *
    from {{ ref('int_ablation_sets') }}
    where set_kind = 'role' and relation_id <> ''

),

facts as (

    select * from {{ ref('int_ablated_facts') }}

),

-- A half that gave no set counts as one of no components.
set_sizes as (

    select
        extraction_id,
        tau_id,
        theta,
        role,
        relation_id as set_relation_id,
        sum(member_count) / 2 as member_count

    from sets
    group by all

),

effects as (

    select
        extraction_id,
        sets.tau_id,
        sets.theta,
        facts.method,
        sets.role,
        sets.relation_id as set_relation_id,
        facts.relation_id as scored_relation_id,
        count(*)::integer as fact_count,
        {{ stable_mean('facts.effect') }} as effect,
        {{ standard_error('facts.effect') }} / sqrt(fact_count) as error,
        {{ stable_mean('facts.template_effect') }} as template_effect,
        {{ stable_mean('facts.rank_change') }} as mean_rank_change

    from sets
    inner join facts using (extraction_id, set_id)
    group by all

),

final as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        theta,
        checkpoints.checkpoint_id,
        effects.method,
        role,
        set_relation_id,
        effects.scored_relation_id,
        set_sizes.member_count,
        effects.fact_count,
        effects.effect,
        {{ interval_low('effects.effect', 'effects.error', lowest="'-infinity'") }} as effect_low,
        {{ interval_high('effects.effect', 'effects.error', highest=none) }} as effect_high,
        effects.template_effect,
        effects.mean_rank_change

    from effects
    inner join set_sizes using (extraction_id, tau_id, theta, role, set_relation_id)
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints using (extraction_id, tau_id)

)

select * from final
