with recursive

extractions as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

declarations as (

    select * from {{ ref('stg_series__checkpoints') }}

),

-- What the sources say now comes before what was known at extraction. A name that serves another checkpoint's weights
-- is no checkpoint, although it may have been extracted before that was known.
placed as (

    select
        extractions.extraction_id,
        series_id,
        extractions.setting_id,
        extractions.checkpoint_id,
        checkpoint_name,
        extractions.layer_count,
        declarations.position,
        coalesce(declarations.phase, extractions.phase) as phase,
        coalesce(declarations.phase_index, (extractions.phase <> 'pretraining')::integer) as phase_index,
        case when declarations.position is null then extractions.stage else declarations.stage end as stage,
        declarations.stage_index,
        coalesce(declarations.branch, extractions.branch) as branch,
        case when declarations.position is null then extractions.step else declarations.step end as step,
        case
            when declarations.position is null then extractions.tokens_reported else declarations.tokens_reported
        end as tokens_reported,
        case
            when declarations.position is null then extractions.tokens_computed else declarations.tokens_computed
        end as tokens_computed,
        coalesce(declarations.commit_sha, extractions.commit_sha) as commit_sha

    from extractions
    left join declarations using (series_id, checkpoint_name)
    where coalesce(declarations.status, 'used') not in ('alias', 'duplicate')

),

-- A name that states neither stage nor step is the end of its phase.
staged as (

    select
        *,
        stage is null and step is null as is_end,
        coalesce(tokens_computed, tokens_reported) as stage_tokens,
        min(position) over stages as stage_position

    from placed
    window stages as (partition by series_id, setting_id, phase, is_end, stage_index, stage)

),

ordered as (

    select
        *,
        (dense_rank() over (
            partition by series_id, setting_id
            order by phase_index, phase, is_end, stage_index, stage_position, stage
        ))::integer as stage_number,
        (row_number() over (
            partition by series_id, setting_id
            order by
                phase_index, phase, is_end, stage_index, stage_position, stage,
                position, branch <> 'main', branch, step, checkpoint_name
        ) - 1)::integer as checkpoint_index

    from staged

),

neighbours as (

    select * from {{ neighbours('ordered', ['series_id', 'setting_id']) }} as linked

),

runs as (

    select
        series_id,
        setting_id,
        stage_number,
        branch,
        min(step) as first_step,
        max(step) as last_step,
        min(stage_tokens) as first_tokens,
        max(stage_tokens) as last_tokens

    from ordered
    group by all

),

-- How far training had come when a run began, and when it ended. It begins where the same branch ended in the stage
-- before, else where the furthest branch did. A count that starts below that has started again.
progress as (

    select
        series_id,
        setting_id,
        stage_number,
        branch,
        0::bigint as step_before,
        0::bigint as tokens_before,
        last_step as end_step,
        last_tokens as end_tokens

    from runs
    where stage_number = 1

    union all

    select
        runs.series_id,
        runs.setting_id,
        runs.stage_number,
        runs.branch,
        coalesce(max(earlier.end_step) filter (where earlier.branch = runs.branch), max(earlier.end_step), 0)
            as reached_step,
        coalesce(max(earlier.end_tokens) filter (where earlier.branch = runs.branch), max(earlier.end_tokens), 0)
            as reached_tokens,
        greatest(
            reached_step,
            runs.last_step + case when runs.first_step < reached_step then reached_step else 0 end
        ) as end_step,
        greatest(
            reached_tokens,
            runs.last_tokens + case when runs.first_tokens < reached_tokens then reached_tokens else 0 end
        ) as end_tokens

    from runs
    inner join progress as earlier
        on
            runs.series_id = earlier.series_id
            and runs.setting_id = earlier.setting_id
            and runs.stage_number = earlier.stage_number + 1
    group by
        runs.series_id, runs.setting_id, runs.stage_number, runs.branch,
        runs.first_step, runs.last_step, runs.first_tokens, runs.last_tokens

),

final as (

    select
        ordered.extraction_id,
        series_id,
        setting_id,
        checkpoint_id,
        ordered.checkpoint_name,
        ordered.checkpoint_index,
        ordered.phase,
        ordered.stage,
        ordered.stage_number,
        branch,
        ordered.step,
        ordered.step + case when runs.first_step < progress.step_before then progress.step_before else 0 end
            as cumulative_step,
        ordered.tokens_reported,
        ordered.tokens_computed,
        ordered.stage_tokens
        + case when runs.first_tokens < progress.tokens_before then progress.tokens_before else 0 end as tokens,
        ordered.commit_sha,
        ordered.layer_count,
        neighbours.previous_checkpoint_id,
        last_value(checkpoint_id) over phases as reference_checkpoint_id,
        checkpoint_id = reference_checkpoint_id as is_reference,
        ordered.checkpoint_index = max(ordered.checkpoint_index) over settings as is_last,
        -- Of the first phase: a stage's only branch, or the one on which the phase ends.
        ordered.phase = first_value(ordered.phase) over settings_in_order
        and (
            count(distinct branch) over stages = 1
            or branch = last_value(branch) over phases
        ) as is_main_line

    from ordered
    inner join neighbours using (series_id, setting_id, checkpoint_id)
    inner join runs using (series_id, setting_id, stage_number, branch)
    inner join progress using (series_id, setting_id, stage_number, branch)
    window
        settings as (partition by series_id, setting_id),
        settings_in_order as (partition by series_id, setting_id order by ordered.checkpoint_index),
        stages as (partition by series_id, setting_id, ordered.stage_number),
        phases as (
            partition by series_id, setting_id, ordered.phase
            order by ordered.checkpoint_index
            rows between unbounded preceding and unbounded following
        )

)

select * from final
