{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail'
    )
}}

with

-- Only of the extractions that are new since the last build.
activities as (

    select *
    from {{ ref('int_component_activities') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

prompt_scopes as (

    select * from {{ ref('int_prompt_scopes') }}

),

-- Of the positions for which the component is active, those that the scope counts.
prompt_activities as (

    select
        activities.extraction_id,
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

final as (

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

)

select * from final
