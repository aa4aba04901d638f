with

components as (

    select * from {{ ref('dim_components') }}

),

final as (

    select
        series_id,
        component_id,
        component_kind,
        layer,
        (row_number() over (
            partition by series_id
            order by layer, head nulls last
        ) - 1)::integer as component_number

    from components

)

select * from final
