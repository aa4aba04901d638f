with

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

ordered_checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

-- The other names that serve its weights.
names as (

    select
        series_id,
        same_weights_as as checkpoint_name,
        string_agg(checkpoint_name, ', ' order by position) filter (where status = 'alias') as also_named,
        string_agg(checkpoint_name, ', ' order by position) filter (where status = 'duplicate') as identical_names

    from {{ ref('stg_series__checkpoints') }}
    where status in ('alias', 'duplicate')
    group by all

),

final as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        extraction_id,
        checkpoint_name,
        names.also_named,
        names.identical_names,
        ordered_checkpoints.checkpoint_index,
        ordered_checkpoints.previous_checkpoint_id,
        ordered_checkpoints.reference_checkpoint_id,
        ordered_checkpoints.is_reference,
        coalesce(series_id not in {{ text_literals(var('complete_series')) }}, true) as is_provisional,
        ordered_checkpoints.phase,
        ordered_checkpoints.stage,
        ordered_checkpoints.stage_number,
        ordered_checkpoints.branch,
        ordered_checkpoints.step,
        ordered_checkpoints.cumulative_step,
        ordered_checkpoints.tokens_reported,
        ordered_checkpoints.tokens_computed,
        ordered_checkpoints.tokens,
        checkpoints.model,
        ordered_checkpoints.commit_sha,
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
    inner join ordered_checkpoints using (extraction_id, series_id, setting_id, checkpoint_id, checkpoint_name)
    left join names using (series_id, checkpoint_name)

)

select * from final
