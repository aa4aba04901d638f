with

last_checkpoints as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_last

),

-- The same split as in fct_half_roles.
splits as (

    select
        fact_set_id,
        presence as is_in_first_half

    from {{ ref('stg_draws__weights') }}
    where resample_kind = 'half' and resample = 1 and half = 'A'

),

final as (

    select
        last_checkpoints.series_id,
        last_checkpoints.setting_id,
        facts.fact_id,
        facts.relation_id,
        case when splits.is_in_first_half[facts.fact_number + 1] > 0 then 'A' else 'B' end as half

    from last_checkpoints
    inner join {{ ref('stg_draws__extractions') }} as draws using (extraction_id)
    inner join {{ ref('stg_draws__facts') }} as facts using (fact_set_id)
    inner join splits using (fact_set_id)

)

select * from final
