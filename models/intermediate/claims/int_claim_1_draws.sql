-- General first, specialised later.
with

shares as (

    select
        'main' as variant,
        *

    from {{ claim_shares(ref('int_resampled_role_sets')) }} as observed_shares

    union all

    select
        'reset_cut_off' as variant,
        *

    from {{ claim_shares(ref('int_reset_role_sets')) }} as reset_shares

),

averaged as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        variant,
        resample as replicate,
        avg(general_share) filter (where is_early) as general_early,
        avg(general_share) filter (where is_late) as general_late,
        avg(specific_share) filter (where is_early) as specific_early,
        avg(specific_share) filter (where is_late) as specific_late,
        count(distinct checkpoint_id)::integer as unit_count

    from shares
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        1 as claim_number,
        unnest(['general_early_less_late', 'specific_late_less_early']) as statistic,
        variant,
        replicate,
        round(unnest([general_early - general_late, specific_late - specific_early]), 9) as value,
        unit_count

    from averaged

)

select * from final
