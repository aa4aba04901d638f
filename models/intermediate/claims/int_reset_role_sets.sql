with

vectors as (

    select * from {{ ref('int_reset_vectors') }}

),

final as (

    select * from {{ role_sets_of_draws('vectors', ['observed']) }} as role_sets

)

select * from final
