with

activities as (

    select * from {{ ref('fct_component_activities') }}

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        max(rate) filter (where scope_kind = 'all') as rate_all,
        max(rate) filter (where scope_kind = 'entity') as rate_entity,
        max(rate) filter (where scope_kind = 'relation') as rate_relation_max,
        arg_min(scope_id, (-rate, scope_id)) filter (where scope_kind = 'relation' and rate > 0) as relation_max_id

    from activities
    where scope_kind <> 'fact'
    group by all

)

select * from final
