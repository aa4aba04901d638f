{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

-- Only of the extractions that are new since the last build; without the residual's shares and attention biases.
contributions as (

    select *
    from {{ ref('stg_raw__contributions') }}
    where regexp_full_match(component_id, 'L[0-9]+(H[0-9]+|F)')

),

prompts as (

    select * from {{ ref('stg_raw__prompts') }}

),

-- Summed as decimals: a sum of floats would change its last digits from build to build.
final as (

    select
        extraction_id,
        contributions.component_id,
        prompts.relation_id,
        prompts.fact_id,
        sum(contributions.c_direct::decimal(18, 9)) / count(*) as mean_contribution,
        count(*)::integer as position_count

    from contributions
    inner join prompts using (extraction_id, prompt_id)
    group by all

)

select * from final
