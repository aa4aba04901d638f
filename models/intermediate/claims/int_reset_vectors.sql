-- Heads as if every checkpoint were as active as the least active one of those that are compared: the residual stream
-- grows in training, so that under a fixed τ heads fall silent without any change of what they do.
with

windows as (

    select *
    from {{ ref('int_claim_windows') }}
    where is_early or is_late

),

heads as (

    select *
    from {{ ref('dim_components') }}
    where component_kind = 'head'

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
    inner join heads using (series_id, component_id)

),

active_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        extraction_id,
        count(*) as active_count

    from peaks
    group by all

),

least_active as (

    select
        series_id,
        setting_id,
        tau_id,
        min(active_count) as least_active_count

    from active_counts
    group by all

),

ranked as (

    select
        *,
        row_number() over (
            partition by extraction_id, tau_id
            order by peak desc, component_id, prompt_id, position
        ) as peak_rank

    from peaks

),

strongest as (

    select ranked.*

    from ranked
    inner join least_active using (series_id, setting_id, tau_id)
    where ranked.peak_rank <= least_active.least_active_count

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
