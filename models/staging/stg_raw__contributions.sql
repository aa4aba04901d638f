with

source as (

    select * from {{ raw_rows('contributions') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        prompt_id::integer as prompt_id,
        position::integer as position,
        component_id::varchar as component_id,
        c_direct::float as c_direct,
        stream_norm::float as stream_norm

    from source

)

select * from final
