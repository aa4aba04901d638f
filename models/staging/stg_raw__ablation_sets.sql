with

source as (

    select * from {{ raw_rows('ablation_sets') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        set_id::integer as set_id,
        set_kind::varchar as set_kind,
        role::varchar as role,
        relation_id::varchar as relation_id,
        half::varchar as half,
        random_index::integer as random_index,
        tau_id::varchar as tau_id,
        theta::decimal(12, 9) as theta,
        component_id::varchar as component_id

    from source

)

select * from final
