with

measured as (

    select * from {{ ref('int_measured_checkpoints') }}

),

main_line as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_main_line

),

accuracies as (

    select *
    from {{ ref('fct_relation_accuracies') }}
    where scope_kind = 'all'

),

checkpoints as (

    select
        series_id,
        setting_id,
        measured.tau_id,
        checkpoint_id,
        measured.extraction_id,
        measured.checkpoint_index,
        measured.previous_checkpoint_id,
        coalesce(accuracies.top1_low > accuracies.majority_share, false) as knows

    from measured
    inner join main_line using (series_id, setting_id, checkpoint_id)
    left join accuracies using (series_id, setting_id, checkpoint_id)

),

-- From the first checkpoint on whose accuracy is surely above that of always naming the most frequent answer.
started as (

    select *
    from checkpoints
    qualify
        checkpoint_index >= min(checkpoint_index) filter (where knows)
            over (partition by series_id, setting_id, tau_id)

),

counted as (

    select
        *,
        (row_number() over (
            partition by series_id, setting_id, tau_id
            order by checkpoint_index
        ))::integer as place,
        (count(*) over (partition by series_id, setting_id, tau_id))::integer as checkpoint_count,
        greatest(2, checkpoint_count // 5) as window_size

    from started

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        extraction_id,
        place,
        checkpoint_count,
        place <= window_size as is_early,
        place > checkpoint_count - window_size as is_late,
        place > 1 and previous_checkpoint_id is not null as is_after_transition,
        previous_checkpoint_id

    from counted

)

select * from final
