with

source as (

    select * from {{ declared_rows('drawn_orders') }}

),

final as (

    select
        fact_set_id::varchar as fact_set_id,
        permutation::integer as permutation,
        sort_keys::double[] as sort_keys

    from source

)

select * from final
