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
role_sets as (

    select *
    from {{ ref('int_resampled_role_sets') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

final as (

    select * from {{ primary_role_sets('role_sets', ['observed', 'bootstrap']) }} as primary_sets

)

select * from final
