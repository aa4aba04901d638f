with

source as (

    select * from {{ declared_rows('drawn_weights') }}

),

final as (

    select
        fact_set_id::varchar as fact_set_id,
        resample_kind::varchar as resample_kind,
        resample::integer as resample,
        half::varchar as half,
        weights::double[] as weights,
        presence::double[] as presence

    from source

)

select * from final
