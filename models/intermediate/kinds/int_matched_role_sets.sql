with

vectors as (

    select * from {{ ref('int_matched_vectors') }}

),

final as (

    select * from {{ role_sets_of_draws('vectors', ['observed', 'bootstrap'], draws=200) }} as role_sets

)

select * from final
