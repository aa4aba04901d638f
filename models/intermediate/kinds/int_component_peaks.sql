{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

-- Only of the extractions that are new since the last build.
attributions as (

    select * from {{ ref('stg_raw__attributions') }}

),

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

target_positions as (

    select *
    from {{ ref('stg_raw__prompt_tokens') }}
    where not is_special

),

final as (

    select
        extraction_id,
        attributions.tau_id,
        component_id,
        components.component_kind,
        prompt_id,
        position,
        target_positions.span_role = 'subject' as is_subject,
        target_positions.is_answer_predicting,
        attributions.peak

    from attributions
    inner join target_positions using (extraction_id, prompt_id, position)
    inner join checkpoints using (extraction_id)
    inner join components using (series_id, component_id)

)

select * from final
