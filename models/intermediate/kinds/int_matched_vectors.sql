with

thresholds as (

    select * from {{ ref('int_matched_thresholds') }}

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

peaks as (

    select
        extraction_id,
        tau_id,
        peaks.component_id,
        peaks.prompt_id,
        peaks.is_subject,
        peaks.is_answer_predicting

    from {{ ref('int_component_peaks') }} as peaks
    inner join checkpoints using (extraction_id, tau_id)
    inner join thresholds using (series_id, setting_id, tau_id)
    where
        peaks.component_kind = 'ffn'
        and (thresholds.ffn_rate <= thresholds.head_rate or peaks.peak > thresholds.tau_ffn)

),

activities as (

    select
        extraction_id,
        tau_id,
        component_id,
        prompt_id,
        count(*) as active_count,
        count_if(is_subject) as subject_active_count,
        count_if(is_answer_predicting) as answer_active_count

    from peaks
    group by all

),

measurements as (

    select
        extraction_id,
        tau_id

    from checkpoints
    inner join thresholds using (series_id, setting_id, tau_id)

),

final as (

    select * from {{ component_vectors('activities', 'measurements') }} as vectors

)

select * from final
