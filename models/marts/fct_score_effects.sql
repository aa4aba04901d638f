with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

-- Facts weigh equally.
effects as (

    select
        extraction_id,
        facts.method,
        sets.first_component_id as component_id,
        {{ stable_mean('facts.effect') }} as effect

    from {{ ref('int_ablated_facts') }} as facts
    inner join {{ ref('int_ablation_sets') }} as sets using (extraction_id, set_id)
    where sets.set_kind = 'single'
    group by all

),

-- At the positions that predict the answers, whose log-probability the effect is of.
answer_rates as (

    select
        extraction_id,
        tau_id,
        component_id,
        sum(active_count) / sum(position_count) as rate,
        sum(score_sum) / sum(position_count) as score

    from {{ ref('int_scope_rates') }}
    where scope_kind = 'relation' and extraction_id in (select extraction_id from effects)
    group by all

),

contributions as (

    select
        extraction_id,
        component_id,
        {{ stable_mean('mean_contribution') }} as c_direct

    from {{ ref('int_component_contributions') }}
    where extraction_id in (select extraction_id from effects)
    group by all

),

measures as (

    select
        extraction_id,
        tau_id,
        component_id,
        unnest(['score', 'c_direct', 'rate']) as measure,
        round(unnest([answer_rates.score, contributions.c_direct, answer_rates.rate]), 12) as measured

    from answer_rates
    left join contributions using (extraction_id, component_id)

),

pairs as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        effects.method,
        components.component_kind,
        measures.measure,
        measures.measured,
        effects.effect

    from effects
    inner join measures using (extraction_id, component_id)
    inner join checkpoints using (extraction_id, tau_id)
    inner join components using (series_id, component_id)
    where measures.measured is not null

),

-- Twice the rank, which is a whole number also where equal ones have the mean of theirs: sums of it are exact.
ranked as (

    select
        * exclude (measured, effect),
        2 * rank() over (
            partition by series_id, setting_id, tau_id, checkpoint_id, method, component_kind, measure
            order by measured
        ) + count(*) over (
            partition by series_id, setting_id, tau_id, checkpoint_id, method, component_kind, measure, measured
        ) as measure_rank,
        2 * rank() over (
            partition by series_id, setting_id, tau_id, checkpoint_id, method, component_kind, measure
            order by effect
        ) + count(*) over (
            partition by series_id, setting_id, tau_id, checkpoint_id, method, component_kind, measure, effect
        ) as effect_rank

    from pairs

),

sums as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        method,
        component_kind,
        measure,
        count(*) as component_count,
        component_count * sum(measure_rank * effect_rank) - sum(measure_rank) * sum(effect_rank) as covariance,
        component_count * sum(measure_rank * measure_rank) - sum(measure_rank) * sum(measure_rank)
            as measure_variance,
        component_count * sum(effect_rank * effect_rank) - sum(effect_rank) * sum(effect_rank) as effect_variance

    from ranked
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        method,
        component_kind,
        measure,
        component_count::integer as component_count,
        case
            when component_count >= 3 and measure_variance > 0 and effect_variance > 0
                then round(covariance::double / (sqrt(measure_variance::double) * sqrt(effect_variance::double)), 9)
        end as rank_correlation

    from sums

)

select * from final
