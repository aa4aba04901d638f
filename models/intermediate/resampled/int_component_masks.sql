with

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

final as (

    select
        series_id,
        component_kind,
        coalesce(layer, -1) as layer,
        bitstring_agg(component_number, 0, {{ var('component_limit') - 1 }}) as members

    from numbers
    group by grouping sets ((series_id, component_kind), (series_id, component_kind, layer))

)

select * from final
