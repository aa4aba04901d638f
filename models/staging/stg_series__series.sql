with

source as (

    select * from {{ declared_rows('declared_series') }}

),

final as (

    select
        series_id::varchar as series_id,
        recipe_id::varchar as recipe_id,
        duplicates::varchar as duplicates

    from source

)

select * from final
