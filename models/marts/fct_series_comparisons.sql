with

matched_checkpoints as (

    select * from {{ ref('int_matched_checkpoints') }}

),

statistics as (

    select * from {{ ref('int_series_statistics') }}

),

-- Other facts have another accuracy. One measurement at two τ has one accuracy, which is no comparison.
compared as (

    select
        matched_checkpoints.*,
        ones.statistic,
        ones.component_kind,
        ones.since_checkpoint_id,
        others.since_checkpoint_id as other_since_checkpoint_id,
        ones.value,
        ones.value_low,
        ones.value_high,
        others.value as other_value,
        others.value_low as other_low,
        others.value_high as other_high,
        ones.value - others.value as difference,
        sqrt(
            (ones.value - ones.value_low) * (ones.value - ones.value_low)
            + (others.value_high - others.value) * (others.value_high - others.value)
        ) as distance_below,
        sqrt(
            (ones.value_high - ones.value) * (ones.value_high - ones.value)
            + (others.value - others.value_low) * (others.value - others.value_low)
        ) as distance_above

    from matched_checkpoints
    inner join statistics as ones using (series_id, setting_id, tau_id, checkpoint_id)
    inner join statistics as others
        on
            matched_checkpoints.other_series_id = others.series_id
            and matched_checkpoints.other_setting_id = others.setting_id
            and matched_checkpoints.other_tau_id = others.tau_id
            and matched_checkpoints.other_checkpoint_id = others.checkpoint_id
            and ones.statistic = others.statistic
            and ones.component_kind = others.component_kind
    where
        ones.statistic not in ('accuracy', 'mean_log_prob')
        or not (
            contains(coalesce(matched_checkpoints.differs_in, ''), 'facts')
            or (
                matched_checkpoints.pair_kind = 'same_series'
                and matched_checkpoints.setting_id = matched_checkpoints.other_setting_id
            )
        )

),

-- Turnover since checkpoints that are matched as well: over a longer stretch of training more components change.
final as (

    select
        compared.series_id,
        compared.setting_id,
        compared.tau_id,
        compared.other_series_id,
        compared.other_setting_id,
        compared.other_tau_id,
        compared.pair_kind,
        compared.differs_in,
        compared.checkpoint_id,
        compared.other_checkpoint_id,
        compared.matched_by,
        compared.statistic,
        compared.component_kind,
        compared.value,
        compared.value_low,
        compared.value_high,
        compared.other_value,
        compared.other_low,
        compared.other_high,
        compared.difference,
        round(compared.difference - compared.distance_below, 9) as difference_low,
        round(compared.difference + compared.distance_above, 9) as difference_high

    from compared
    left join matched_checkpoints as earlier
        on
            compared.series_id = earlier.series_id
            and compared.setting_id = earlier.setting_id
            and compared.tau_id = earlier.tau_id
            and compared.other_series_id = earlier.other_series_id
            and compared.other_setting_id = earlier.other_setting_id
            and compared.other_tau_id = earlier.other_tau_id
            and compared.since_checkpoint_id = earlier.checkpoint_id
            and compared.other_since_checkpoint_id = earlier.other_checkpoint_id
    where compared.statistic <> 'turnover' or earlier.checkpoint_id is not null

)

select * from final
