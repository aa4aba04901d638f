{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail'
    )
}}

with

vectors as (

    select *
    from {{ ref('int_component_vectors') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

role_sets as (

    select * from {{ role_sets_of_draws('vectors') }} as role_sets

),

final as (

    select * from role_sets

)

select * from final
