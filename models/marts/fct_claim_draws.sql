with

draws as (

    select * from {{ ref('int_claim_1_draws') }}
    union all by name
    select * from {{ ref('int_claim_2_draws') }}
    union all by name
    select * from {{ ref('int_claim_3_draws') }}
    union all by name
    select * from {{ ref('int_claim_4_draws') }}
    union all by name
    select * from {{ ref('int_claim_5_draws') }}
    union all by name
    select * from {{ ref('int_claim_6_draws') }}

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        claim_number,
        statistic,
        variant,
        replicate::integer as replicate,
        value::double as value,
        unit_count

    from draws
    where value is not null

)

select * from final
