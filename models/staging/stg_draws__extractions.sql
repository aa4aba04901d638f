with

source as (

    select * from {{ declared_rows('drawn_extractions') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        fact_set_id::varchar as fact_set_id

    from source

)

select * from final
