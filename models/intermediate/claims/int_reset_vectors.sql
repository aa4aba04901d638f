-- Heads as if every checkpoint were as active as the least active one of those that are compared: the residual stream
-- grows in training, so that under a fixed τ heads fall silent without any change of what they do.
with

-- Numbers instead of names, because the peaks are many.
windows as (

    select
        *,
        row_number() over (order by extraction_id, tau_id) as measurement

    from {{ ref('int_claim_windows') }}
    where is_early or is_late

),

peaks as (

    select
        windows.measurement,
        peaks.component_id,
        peaks.prompt_id,
        peaks.is_subject,
        peaks.is_answer_predicting,
        peaks.peak

    from {{ ref('int_component_peaks') }} as peaks
    inner join windows using (extraction_id, tau_id)
    where peaks.component_kind = 'head'

),

sorted_peaks as (

    select
        measurement,
        list_reverse_sort(list(peak)) as sorted_peaks

    from peaks
    group by all

),

-- The peak that the last of equally many cells has; cells with the very same peak stay together.
cut_offs as (

    select
        windows.measurement,
        sorted_peaks[min(len(sorted_peaks)) over (
            partition by windows.series_id, windows.setting_id, windows.tau_id
        )] as cut_off

    from sorted_peaks
    inner join windows using (measurement)

),

counts as (

    select
        measurement,
        peaks.component_id,
        peaks.prompt_id,
        count(*) as active_count,
        count_if(peaks.is_subject) as subject_active_count,
        count_if(peaks.is_answer_predicting) as answer_active_count

    from peaks
    inner join cut_offs using (measurement)
    where peaks.peak >= cut_offs.cut_off
    group by all

),

activities as (

    select
        windows.extraction_id,
        windows.tau_id,
        counts.* exclude (measurement)

    from counts
    inner join windows using (measurement)

),

final as (

    select * from {{ component_vectors('activities') }} as vectors

)

select * from final
