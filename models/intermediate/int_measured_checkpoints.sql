with

checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

taus as (

    select
        extraction_id,
        unnest(tau_ids) as tau_id

    from {{ ref('stg_raw__checkpoints') }}

),

extractions_with_activity as (

    select distinct extraction_id from {{ ref('int_component_activities') }}

),

-- A checkpoint that was extracted for its predictions only is skipped here: the one before it and the one after it
-- become neighbours.
final as (

    select
        checkpoints.extraction_id,
        checkpoints.series_id,
        checkpoints.setting_id,
        taus.tau_id,
        checkpoints.checkpoint_id,
        checkpoints.checkpoint_index,
        checkpoints.branch,
        checkpoints.step,
        lag(checkpoints.checkpoint_id) over branches as previous_checkpoint_id,
        last_value(checkpoints.checkpoint_id) over phases as reference_checkpoint_id,
        checkpoints.checkpoint_index = max(checkpoints.checkpoint_index) over settings as is_last

    from checkpoints
    inner join extractions_with_activity using (extraction_id)
    inner join taus using (extraction_id)
    window
        settings as (partition by checkpoints.series_id, checkpoints.setting_id, taus.tau_id),
        branches as (
            partition by checkpoints.series_id, checkpoints.setting_id, taus.tau_id, checkpoints.branch
            order by checkpoints.checkpoint_index
        ),
        phases as (
            partition by checkpoints.series_id, checkpoints.setting_id, taus.tau_id, checkpoints.phase
            order by checkpoints.checkpoint_index
            rows between unbounded preceding and unbounded following
        )

)

select * from final
