with

source as (

    select * from {{ declared_rows('drawn_facts') }}

),

final as (

    select
        fact_set_id::varchar as fact_set_id,
        fact_number::integer as fact_number,
        relation_id::varchar as relation_id,
        fact_id::varchar as fact_id

    from source

)

select * from final
