-- Heads as if every checkpoint were as active as the least active one of those that are compared: the residual stream
-- grows in training, so that under a fixed τ heads fall silent without any change of what they do.
with

windows as (

    select *
    from {{ ref('int_claim_windows') }}
    where is_early or is_late

),

peaks as (

    select
        windows.series_id,
        windows.setting_id,
        extraction_id,
        tau_id,
        peaks.component_id,
        peaks.prompt_id,
        peaks.position,
        peaks.is_subject,
        peaks.is_answer_predicting,
        peaks.peak

    from {{ ref('int_component_peaks') }} as peaks
    inner join windows using (extraction_id, tau_id)
    where peaks.component_kind = 'head'

),

sorted_peaks as (

    select
        series_id,
        setting_id,
        extraction_id,
        tau_id,
        list_reverse_sort(list(peak)) as sorted_peaks

    from peaks
    group by all

),

-- The peak that the last of equally many cells has; cells with the very same peak stay together.
cut_offs as (

    select
        extraction_id,
        tau_id,
        sorted_peaks[min(len(sorted_peaks)) over (partition by series_id, setting_id, tau_id)] as cut_off

    from sorted_peaks

),

strongest as (

    select peaks.*

    from peaks
    inner join cut_offs using (extraction_id, tau_id)
    where peaks.peak >= cut_offs.cut_off

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

    from strongest
    group by all

),

final as (

    select * from {{ component_vectors('activities') }} as vectors

)

select * from final
