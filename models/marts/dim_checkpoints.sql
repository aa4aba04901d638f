with

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

ordered_checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

final as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        extraction_id,
        checkpoints.checkpoint_name,
        ordered_checkpoints.checkpoint_index,
        ordered_checkpoints.previous_checkpoint_id,
        ordered_checkpoints.reference_checkpoint_id,
        ordered_checkpoints.is_reference,
        coalesce(series_id not in {{ text_literals(var('complete_series')) }}, true) as is_provisional,
        checkpoints.phase,
        checkpoints.stage,
        checkpoints.branch,
        checkpoints.step,
        checkpoints.tokens_reported,
        checkpoints.tokens_computed,
        coalesce(checkpoints.tokens_computed, checkpoints.tokens_reported) as tokens,
        checkpoints.model,
        checkpoints.commit_sha,
        checkpoints.weights_sha256,
        (count(*) over (partition by series_id, setting_id, checkpoints.weights_sha256) - 1)::integer
            as same_weights_checkpoint_count,
        concat_ws(
            ', ',
            checkpoints.family,
            checkpoints.topology,
            checkpoints.layer_count || ' layers',
            checkpoints.head_count || ' heads',
            checkpoints.kv_head_count || ' key-value heads',
            'width ' || checkpoints.hidden_size
        ) as architecture,
        checkpoints.facts_sha256,
        checkpoints.tokenizer_sha256,
        checkpoints.dtype,
        checkpoints.device,
        checkpoints.completeness_error_max,
        checkpoints.lens_error_max,
        checkpoints.degenerate_share,
        checkpoints.prompt_count,
        checkpoints.extractor_version,
        checkpoints.versions

    from checkpoints
    inner join ordered_checkpoints using (extraction_id, series_id, setting_id, checkpoint_id)

)

select * from final
