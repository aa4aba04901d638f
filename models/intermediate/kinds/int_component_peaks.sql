{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail'
    )
}}

with

-- Only of the extractions that are new since the last build.
attributions as (

    select * from {{ ref('stg_raw__attributions') }}

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
        attributions.component_id,
        prompt_id,
        position,
        target_positions.span_role = 'subject' as is_subject,
        target_positions.is_answer_predicting,
        attributions.peak

    from attributions
    inner join target_positions using (extraction_id, prompt_id, position)

)

select * from final
