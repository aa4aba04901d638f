with

activities as (

    select * from {{ ref('int_scope_rates') }}

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

scopes as (

    select * from {{ ref('int_scopes') }}

),

-- A component without activity has a row as well, except in the many scopes of single facts.
silences as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.tau_id,
        checkpoints.checkpoint_id,
        components.component_id,
        scopes.scope_kind,
        scopes.scope_id,
        0::bigint as active_count,
        scopes.position_count,
        scopes.prompt_count,
        scopes.fact_count,
        0::double as rate,
        0 as score_sum

    from checkpoints
    inner join components using (series_id)
    inner join scopes using (extraction_id)
    anti join activities
        using (series_id, setting_id, tau_id, checkpoint_id, component_id, scope_kind, scope_id)
    where scopes.scope_kind <> 'fact'

),

activities_and_silences as (

    select * exclude (relation_id, is_above_theta) from activities
    union all by name
    select * from silences

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        scope_kind,
        scope_id,
        components.component_kind,
        active_count,
        position_count,
        prompt_count,
        fact_count,
        rate,
        {{ wilson_low('rate', 'fact_count') }} as rate_low,
        {{ wilson_high('rate', 'fact_count') }} as rate_high,
        score_sum::double / position_count as mean_score

    from activities_and_silences
    inner join components using (series_id, component_id)

)

select * from final
