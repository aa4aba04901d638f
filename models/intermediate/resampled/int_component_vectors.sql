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

final as (

    select * from {{ component_vectors('activities') }} as vectors

)

select * from final
