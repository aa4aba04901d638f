with

source as (

    select * from {{ raw_rows('prompt_tokens') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        prompt_id::integer as prompt_id,
        position::integer as position,
        token_id::integer as token_id,
        token::varchar as token,
        span_role::varchar as span_role,
        is_answer_predicting::boolean as is_answer_predicting,
        is_special::boolean as is_special

    from source

)

select * from final
