with

source as (

    select * from {{ raw_rows('ablations') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        method::varchar as method,
        set_id::integer as set_id,
        prompt_id::integer as prompt_id,
        answer_token_index::integer as answer_token_index,
        delta_log_prob::float as delta_log_prob,
        delta_rank::integer as delta_rank,
        delta_template_log_prob::float as delta_template_log_prob

    from source

)

select * from final
