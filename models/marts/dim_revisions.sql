with

declarations as (

    select * from {{ ref('stg_series__checkpoints') }}

),

extractions as (

    select distinct
        series_id,
        checkpoint_name,
        true as is_committed

    from {{ ref('stg_raw__checkpoints') }}

),

final as (

    select
        series_id,
        checkpoint_name,
        series_id || '/' || checkpoint_name as checkpoint_id,
        declarations.position,
        declarations.phase,
        declarations.phase_index,
        declarations.stage,
        declarations.stage_index,
        declarations.branch,
        declarations.step,
        declarations.tokens_reported,
        declarations.tokens_computed,
        declarations.commit_sha,
        declarations.weights_sha256,
        declarations.bytes,
        declarations.status,
        declarations.same_weights_as,
        declarations.reason,
        coalesce(extractions.is_committed, false) as is_committed

    from declarations
    left join extractions using (series_id, checkpoint_name)

)

select * from final
