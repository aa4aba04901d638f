with

source as (

    select * from {{ declared_rows('drawn_layers') }}

),

final as (

    select
        layer_count::integer as layer_count,
        resample::integer as resample,
        weights::double[] as weights

    from source

)

select * from final
