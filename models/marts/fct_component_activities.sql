with

rates as (

    select * from {{ ref('int_scope_rates') }}

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

final as (

    select
        series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        component_id,
        rates.scope_kind,
        rates.scope_id,
        components.component_kind,
        rates.active_count,
        rates.position_count,
        rates.prompt_count,
        rates.fact_count,
        rates.rate,
        rates.rate_low,
        rates.rate_high,
        rates.score_sum::double / rates.position_count as mean_score

    from rates
    inner join checkpoints using (extraction_id, tau_id)
    inner join components using (series_id, component_id)

)

select * from final
