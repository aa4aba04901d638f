with

checkpoints as (

    select *
    from {{ ref('int_measured_checkpoints') }}
    where is_last

),

settings as (

    select * from {{ ref('dim_settings') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

prompts as (

    select * from {{ ref('int_prompt_positions') }}

),

peaks as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        peaks.component_kind,
        peaks.peak

    from {{ ref('int_component_peaks') }} as peaks
    inner join checkpoints using (extraction_id, tau_id)

),

position_counts as (

    select
        extraction_id,
        sum(position_count) as position_count

    from prompts
    group by all

),

cell_counts as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.tau_id,
        components.component_kind,
        count(*) * any_value(position_counts.position_count) as cell_count

    from checkpoints
    inner join position_counts using (extraction_id)
    inner join components using (series_id)
    group by all

),

rates as (

    select
        series_id,
        setting_id,
        tau_id,
        cell_counts.component_kind,
        any_value(cell_counts.cell_count) as cell_count,
        count(peaks.peak) / any_value(cell_counts.cell_count) as rate

    from cell_counts
    left join peaks using (series_id, setting_id, tau_id, component_kind)
    group by all

),

-- An FFN counts where its peak is above the threshold, so each observed peak leaves those above it.
candidates as (

    select
        series_id,
        setting_id,
        tau_id,
        peak,
        count(*) over (partition by series_id, setting_id, tau_id)
        - count(*) over (partition by series_id, setting_id, tau_id order by peak) as above_count

    from peaks
    where component_kind = 'ffn'

),

heads as (

    select *
    from rates
    where component_kind = 'head'

),

ffns as (

    select *
    from rates
    where component_kind = 'ffn'

),

matched as (

    select
        series_id,
        setting_id,
        tau_id,
        any_value(heads.rate) as head_rate,
        any_value(ffns.rate) as ffn_rate,
        min(
            case when candidates.above_count / ffns.cell_count <= heads.rate then candidates.peak end
        ) as smallest_peak

    from heads
    inner join ffns using (series_id, setting_id, tau_id)
    left join candidates using (series_id, setting_id, tau_id)
    group by all

),

-- Where FFNs are no more active than heads, they keep the heads' threshold.
final as (

    select
        series_id,
        setting_id,
        tau_id,
        settings.tau as tau_head,
        case when matched.ffn_rate <= matched.head_rate then settings.tau else matched.smallest_peak end as tau_ffn,
        matched.head_rate,
        matched.ffn_rate

    from matched
    inner join settings using (series_id, setting_id, tau_id)

)

select * from final
