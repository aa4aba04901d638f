with

source as (

    select * from {{ declared_rows('declared_checkpoints') }}

),

final as (

    select
        series_id::varchar as series_id,
        checkpoint_name::varchar as checkpoint_name,
        position::integer as position,
        phase::varchar as phase,
        phase_index::integer as phase_index,
        stage::varchar as stage,
        stage_index::integer as stage_index,
        branch::varchar as branch,
        step::bigint as step,
        tokens_reported::bigint as tokens_reported,
        tokens_computed::bigint as tokens_computed,
        commit_sha::varchar as commit_sha,
        weights_sha256::varchar as weights_sha256,
        bytes::bigint as bytes,
        status::varchar as status,
        same_weights_as::varchar as same_weights_as,
        reason::varchar as reason

    from source

)

select * from final
