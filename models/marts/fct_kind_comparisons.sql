with

measured_checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

checkpoints as (

    select *
    from measured_checkpoints
    where previous_checkpoint_id is not null

),

thresholds as (

    select * from {{ ref('int_matched_thresholds') }}

),

kind_turnovers as (

    select *
    from {{ ref('int_kind_turnovers') }}
    where theta = {{ var('theta') }}

),

correlations as (

    select * from {{ ref('int_contribution_correlations') }}

),

rates as (

    select * rename (checkpoint_id as to_checkpoint_id)
    from {{ ref('int_pooled_rates') }}

),

turnover_draws as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        comparison,
        resample,
        any_value(turnover) filter (where component_kind = 'head') as head_value,
        any_value(turnover) filter (where component_kind = 'ffn') as ffn_value,
        head_value - ffn_value as difference

    from kind_turnovers
    group by all

),

-- The more alike two checkpoints are, the more stable: FFNs minus heads, so that a positive difference always says that
-- FFNs are the more stable kind.
correlation_draws as (

    select
        series_id,
        setting_id,
        tau_id,
        previous.checkpoint_id as from_checkpoint_id,
        checkpoints.checkpoint_id as to_checkpoint_id,
        'threshold_free' as comparison,
        correlations.resample,
        any_value(correlations.rank_correlation) filter (where correlations.component_kind = 'head') as head_value,
        any_value(correlations.rank_correlation) filter (where correlations.component_kind = 'ffn') as ffn_value,
        ffn_value - head_value as difference

    from checkpoints
    inner join measured_checkpoints as previous using (series_id, setting_id, tau_id)
    inner join correlations
        on
            checkpoints.extraction_id = correlations.extraction_id
            and previous.extraction_id = correlations.from_extraction_id
    where checkpoints.previous_checkpoint_id = previous.checkpoint_id
    group by all

),

draws as (

    select * from turnover_draws
    union all
    select * from correlation_draws

),

compared as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        comparison,
        any_value(head_value) filter (where resample = 0) as head_value,
        any_value(ffn_value) filter (where resample = 0) as ffn_value,
        any_value(difference) filter (where resample = 0) as difference,
        {{ standard_error('case when resample > 0 then difference end') }} as difference_error

    from draws
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        compared.from_checkpoint_id,
        to_checkpoint_id,
        comparison,
        compared.head_value,
        compared.ffn_value,
        compared.difference,
        {{ interval_low('compared.difference', 'compared.difference_error', lowest=-2) }} as difference_low,
        {{ interval_high('compared.difference', 'compared.difference_error', highest=2) }} as difference_high,
        case when comparison <> 'threshold_free' then thresholds.tau_head end as tau_head,
        case comparison
            when 'common_tau' then thresholds.tau_head
            when 'matched_rate' then thresholds.tau_ffn
        end as tau_ffn,
        rates.head_rate,
        rates.ffn_rate,
        rates.saturated_kinds

    from compared
    left join thresholds using (series_id, setting_id, tau_id)
    left join rates using (series_id, setting_id, tau_id, to_checkpoint_id, comparison)

)

select * from final
