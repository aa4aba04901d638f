-- FFNs are the more stable.
with

windows as (

    select *
    from {{ ref('int_claim_windows') }}
    where is_after_transition

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

kind_turnovers as (

    select *
    from {{ ref('int_kind_turnovers') }}
    where comparison = 'matched_rate'

),

correlations as (

    select * from {{ ref('int_contribution_correlations') }}

),

turnover_differences as (

    select
        series_id,
        setting_id,
        tau_id,
        kind_turnovers.theta,
        windows.checkpoint_id,
        kind_turnovers.resample,
        any_value(kind_turnovers.turnover) filter (where kind_turnovers.component_kind = 'head')
        - any_value(kind_turnovers.turnover) filter (where kind_turnovers.component_kind = 'ffn') as difference

    from kind_turnovers
    inner join windows using (series_id, setting_id, tau_id)
    where kind_turnovers.to_checkpoint_id = windows.checkpoint_id
    group by all

),

correlation_differences as (

    select
        series_id,
        setting_id,
        tau_id,
        {{ var('theta') }}::decimal(12, 9) as theta,
        windows.checkpoint_id,
        correlations.resample,
        any_value(correlations.rank_correlation) filter (where correlations.component_kind = 'ffn')
        - any_value(correlations.rank_correlation) filter (where correlations.component_kind = 'head') as difference

    from windows
    inner join checkpoints as previous using (series_id, setting_id, tau_id)
    inner join correlations
        on
            windows.extraction_id = correlations.extraction_id
            and previous.extraction_id = correlations.from_extraction_id
    where windows.previous_checkpoint_id = previous.checkpoint_id
    group by all

),

differences as (

    select
        'head_less_ffn_matched_turnover' as statistic,
        *

    from turnover_differences

    union all

    select
        'ffn_less_head_rank_correlation' as statistic,
        *

    from correlation_differences

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        4 as claim_number,
        statistic,
        'main' as variant,
        resample as replicate,
        {{ stable_mean('difference') }} as value,
        count(difference)::integer as unit_count

    from differences
    group by all

)

select * from final
