{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
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

measurements as (

    select
        extraction_id,
        tau_id

    from {{ ref('int_measured_checkpoints') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

final as (

    select * from {{ component_vectors('activities', 'measurements') }} as vectors

)

select * from final
