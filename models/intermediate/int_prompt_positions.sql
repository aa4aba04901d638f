with

prompts as (

    select * from {{ ref('stg_raw__prompts') }}

),

target_positions as (

    select *
    from {{ ref('stg_raw__prompt_tokens') }}
    where not is_special

),

final as (

    select
        extraction_id,
        prompt_id,
        prompts.relation_id,
        prompts.fact_id,
        count(*)::integer as position_count,
        count_if(target_positions.span_role = 'subject')::integer as subject_position_count,
        count_if(target_positions.is_answer_predicting)::integer as answer_position_count

    from prompts
    inner join target_positions using (extraction_id, prompt_id)
    group by all

)

select * from final
