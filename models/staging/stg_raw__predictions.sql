with

source as (

    select * from {{ raw_rows('predictions') }}
    union all by name
    -- Files of schema version 1 lack it, and there may be no others.
    select null::float as log_prob_mismatched
    where false

),

final as (

    select
        extraction_id::varchar as extraction_id,
        prompt_id::integer as prompt_id,
        answer_token_index::integer as answer_token_index,
        readout::integer as readout,
        position::integer as position,
        rank::integer as rank,
        log_prob::float as log_prob,
        top1_token_id::integer as top1_token_id,
        top1_token::varchar as top1_token,
        entropy::float as entropy,
        rank_in_relation::integer as rank_in_relation,
        log_prob_mismatched::float as log_prob_mismatched

    from source

)

select * from final
