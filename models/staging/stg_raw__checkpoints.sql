with

source as (

    select * from {{ raw_rows('checkpoint') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        schema_version::integer as schema_version,
        series_id::varchar as series_id,
        checkpoint_id::varchar as checkpoint_id,
        checkpoint_name::varchar as checkpoint_name,
        model::varchar as model,
        commit_sha::varchar as commit_sha,
        phase::varchar as phase,
        stage::varchar as stage,
        branch::varchar as branch,
        step::bigint as step,
        tokens_reported::bigint as tokens_reported,
        tokens_computed::bigint as tokens_computed,
        weights_sha256::varchar as weights_sha256,
        facts_sha256::varchar as facts_sha256,
        tokenizer_sha256::varchar as tokenizer_sha256,
        family::varchar as family,
        topology::varchar as topology,
        layer_count::integer as layer_count,
        head_count::integer as head_count,
        kv_head_count::integer as kv_head_count,
        hidden_size::integer as hidden_size,
        vocabulary_size::integer as vocabulary_size,
        parameter_count::bigint as parameter_count,
        setting_id::varchar as setting_id,
        tau_ids::varchar[] as tau_ids,
        taus::double[] as taus,
        norm::varchar as norm,
        dtype::varchar as dtype,
        device::varchar as device,
        completeness_error_max::double as completeness_error_max,
        lens_error_max::double as lens_error_max,
        degenerate_share::double as degenerate_share,
        prompt_count::integer as prompt_count,
        extractor_version::integer as extractor_version,
        versions::varchar as versions,
        seconds_by_phase::varchar as seconds_by_phase

    from source

)

select * from final
