with

checkpoint_taus as (

    select
        *,
        unnest(tau_ids) as tau_id,
        unnest(taus) as tau

    from {{ ref('stg_raw__checkpoints') }}
    where extraction_id in (select extraction_id from {{ ref('int_checkpoints') }})

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        max(tau) as tau,
        {{ var('theta') }}::double as theta,
        max(norm) as norm,
        max(dtype) as dtype,
        max(facts_sha256) as facts_sha256

    from checkpoint_taus
    group by all

)

select * from final
