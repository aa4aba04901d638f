{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

-- Only those that are new since the last build.
checkpoints as (

    select
        extraction_id,
        tau_id,
        series_id

    from {{ ref('int_measured_checkpoints') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

activities as (

    select *
    from {{ ref('int_component_activities') }}
    semi join checkpoints using (extraction_id, tau_id)

),

prompt_scopes as (

    select * from {{ ref('int_prompt_scopes') }}

),

scopes as (

    select * from {{ ref('int_scopes') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

-- Of the positions for which the component is active, those that the scope counts.
prompt_activities as (

    select
        extraction_id,
        activities.tau_id,
        activities.component_id,
        prompt_scopes.scope_kind,
        prompt_scopes.scope_id,
        prompt_scopes.position_count,
        case prompt_scopes.scope_kind
            when 'all' then activities.active_count
            when 'entity' then activities.subject_active_count + activities.answer_active_count
            else activities.answer_active_count
        end as active_count,
        case prompt_scopes.scope_kind
            when 'all' then activities.score_sum
            when 'entity' then activities.subject_score_sum + activities.answer_score_sum
            else activities.answer_score_sum
        end as score_sum

    from activities
    inner join prompt_scopes using (extraction_id, prompt_id)

),

scope_activities as (

    select
        extraction_id,
        tau_id,
        component_id,
        scope_kind,
        scope_id,
        sum(active_count)::bigint as active_count,
        sum(active_count / position_count) as prompt_share_sum,
        sum(score_sum)::decimal(38, 9) as score_sum

    from prompt_activities
    where active_count > 0
    group by all

),

-- A component without activity has a row as well, except in the many scopes of single facts.
silences as (

    select
        extraction_id,
        checkpoints.tau_id,
        components.component_id,
        scopes.scope_kind,
        scopes.scope_id,
        0::bigint as active_count,
        0::double as prompt_share_sum,
        0::decimal(38, 9) as score_sum

    from checkpoints
    inner join components using (series_id)
    inner join scopes using (extraction_id)
    anti join scope_activities using (extraction_id, tau_id, component_id, scope_kind, scope_id)
    where scopes.scope_kind <> 'fact'

),

activities_and_silences as (

    select * from scope_activities
    union all
    select * from silences

),

-- In the scope `all` every prompt counts the same, whatever its length; in the others every position does.
rated as (

    select
        extraction_id,
        activities_and_silences.tau_id,
        activities_and_silences.component_id,
        scope_kind,
        scope_id,
        scopes.relation_id,
        activities_and_silences.active_count,
        scopes.position_count,
        scopes.prompt_count,
        scopes.fact_count,
        case scope_kind
            when 'all' then round(activities_and_silences.prompt_share_sum / scopes.prompt_count, 9)
            else activities_and_silences.active_count / scopes.position_count
        end as rate,
        activities_and_silences.score_sum

    from activities_and_silences
    inner join scopes using (extraction_id, scope_kind, scope_id)

),

-- Strictly greater, with integers and decimals, so that no rounding decides a role.
final as (

    select
        *,
        {{ wilson_low('rate', 'fact_count') }} as rate_low,
        {{ wilson_high('rate', 'fact_count') }} as rate_high,
        case scope_kind
            when 'all' then rate::decimal(18, 9) > {{ var('theta') }}
            else active_count > {{ var('theta') }} * position_count
        end as is_above_theta

    from rated

)

select * from final
