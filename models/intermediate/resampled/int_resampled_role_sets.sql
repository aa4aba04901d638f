{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction',
        post_hook='{{ drop_batches() }}'
    )
}}

-- depends_on: {{ ref('int_component_vectors') }}, {{ ref('int_fact_positions') }}, {{ ref('stg_draws__weights') }}
with

final as (

    select * from {{ one_extraction_at_a_time(role_sets_of_draws, ref('int_component_vectors')) }} as role_sets

)

select * from final
