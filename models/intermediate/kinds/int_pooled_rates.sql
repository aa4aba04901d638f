with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

thresholds as (

    select * from {{ ref('int_matched_thresholds') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

position_counts as (

    select
        extraction_id,
        sum(position_count) as position_count

    from {{ ref('int_prompt_positions') }}
    group by all

),

active_counts as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        sum(rates.active_count) filter (where components.component_kind = 'head') as head_count,
        sum(rates.active_count) filter (where components.component_kind = 'ffn') as ffn_count

    from {{ ref('int_scope_rates') }} as rates
    inner join checkpoints using (extraction_id, tau_id)
    inner join components using (series_id, component_id)
    where rates.scope_kind = 'all'
    group by all

),

matched_counts as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        count(*) as matched_ffn_count

    from {{ ref('int_component_peaks') }} as peaks
    inner join checkpoints using (extraction_id, tau_id)
    inner join thresholds using (series_id, setting_id, tau_id)
    where
        peaks.component_kind = 'ffn'
        and (thresholds.ffn_rate <= thresholds.head_rate or peaks.peak > thresholds.tau_ffn)
    group by all

),

cell_counts as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.tau_id,
        checkpoints.checkpoint_id,
        any_value(position_counts.position_count) * count_if(components.component_kind = 'head') as head_cell_count,
        any_value(position_counts.position_count) * count_if(components.component_kind = 'ffn') as ffn_cell_count

    from checkpoints
    inner join position_counts using (extraction_id)
    inner join components using (series_id)
    group by all

),

compared as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        unnest(['common_tau', 'matched_rate']) as comparison,
        coalesce(active_counts.head_count, 0) / cell_counts.head_cell_count as head_rate,
        unnest([coalesce(active_counts.ffn_count, 0), coalesce(matched_counts.matched_ffn_count, 0)])
        / cell_counts.ffn_cell_count as ffn_rate

    from cell_counts
    left join active_counts using (series_id, setting_id, tau_id, checkpoint_id)
    left join matched_counts using (series_id, setting_id, tau_id, checkpoint_id)

),

final as (

    select
        *,
        nullif(
            concat_ws(
                ', ',
                case when head_rate not between 0.05 and 0.95 then 'head' end,
                case when ffn_rate not between 0.05 and 0.95 then 'ffn' end
            ),
            ''
        ) as saturated_kinds

    from compared

)

select * from final
