with

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

kinds as (

    select
        series_id,
        component_kind,
        -1 as layer,
        {{ component_set('component_number') }} as members

    from numbers
    group by all

),

layers as (

    select
        series_id,
        component_kind,
        layer,
        {{ component_set('component_number') }} as members

    from numbers
    group by all

),

final as (

    select * from kinds
    union all
    select * from layers

)

select * from final
