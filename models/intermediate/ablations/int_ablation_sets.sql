with

sets as (

    select * from {{ ref('stg_raw__ablation_sets') }}

),

final as (

    select
        extraction_id,
        set_id,
        set_kind,
        role,
        coalesce(relation_id, '') as relation_id,
        half,
        random_index,
        tau_id,
        theta,
        count(*)::integer as member_count,
        min(component_id) as first_component_id

    from sets
    group by all

)

select * from final
