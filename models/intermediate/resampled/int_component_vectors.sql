{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail'
    )
}}

with

activities as (

    select *
    from {{ ref('int_component_activities') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

prompts as (

    select * from {{ ref('int_prompt_positions') }}

),

facts as (

    select * from {{ ref('int_fact_positions') }}

),

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

fact_activities as (

    select
        extraction_id,
        activities.tau_id,
        activities.component_id,
        facts.fact_number,
        sum(activities.active_count / prompts.position_count) as prompt_share_sum,
        sum(activities.subject_active_count + activities.answer_active_count) as entity_active_count,
        sum(activities.answer_active_count) as answer_active_count

    from activities
    inner join prompts using (extraction_id, prompt_id)
    inner join facts using (extraction_id, relation_id, fact_id)
    group by all

),

components as (

    select distinct
        extraction_id,
        tau_id,
        component_id

    from fact_activities

),

final as (

    select
        extraction_id,
        components.tau_id,
        numbers.component_number,
        list(coalesce(fact_activities.prompt_share_sum, 0) order by facts.fact_number)::double[] as prompt_share_sums,
        list(coalesce(fact_activities.entity_active_count, 0) order by facts.fact_number)::double[]
            as entity_active_counts,
        list(coalesce(fact_activities.answer_active_count, 0) order by facts.fact_number)::double[]
            as answer_active_counts

    from components
    inner join checkpoints using (extraction_id)
    inner join numbers using (series_id, component_id)
    inner join facts using (extraction_id)
    left join fact_activities using (extraction_id, tau_id, component_id, fact_number)
    group by all

)

select * from final
