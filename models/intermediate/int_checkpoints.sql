with

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

ordered as (

    select
        *,
        row_number() over (
            partition by series_id, setting_id
            order by
                phase <> 'pretraining', phase, stage nulls last, branch, step nulls last, checkpoint_name
        ) - 1 as checkpoint_index

    from checkpoints

),

linked as (

    select
        extraction_id,
        series_id,
        setting_id,
        checkpoint_id,
        checkpoint_index::integer as checkpoint_index,
        phase,
        branch,
        step,
        layer_count,
        lag(checkpoint_id) over branches as previous_checkpoint_id,
        last_value(checkpoint_id) over phases as reference_checkpoint_id,
        checkpoint_index = max(checkpoint_index) over settings as is_last,
        phase = arg_min(phase, checkpoint_index) over settings and branch = last_value(branch) over phases
            as is_main_line

    from ordered
    window
        settings as (partition by series_id, setting_id),
        branches as (partition by series_id, setting_id, branch order by checkpoint_index),
        phases as (
            partition by series_id, setting_id, phase
            order by checkpoint_index
            rows between unbounded preceding and unbounded following
        )

),

final as (

    select
        *,
        checkpoint_id = reference_checkpoint_id as is_reference

    from linked

)

select * from final
