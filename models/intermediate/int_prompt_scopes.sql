with

prompts as (

    select * from {{ ref('int_prompt_positions') }}

),

final as (

    select
        extraction_id,
        prompt_id,
        'all' as scope_kind,
        'all' as scope_id,
        null as relation_id,
        fact_id,
        position_count

    from prompts

    union all

    -- A position that is both a subject's and answer-predicting counts twice.
    select
        extraction_id,
        prompt_id,
        'entity' as scope_kind,
        'entity' as scope_id,
        null as relation_id,
        fact_id,
        subject_position_count + answer_position_count as position_count

    from prompts

    union all

    select
        extraction_id,
        prompt_id,
        'relation' as scope_kind,
        relation_id as scope_id,
        relation_id,
        fact_id,
        answer_position_count as position_count

    from prompts

    union all

    select
        extraction_id,
        prompt_id,
        'fact' as scope_kind,
        fact_id as scope_id,
        relation_id,
        fact_id,
        answer_position_count as position_count

    from prompts

)

select * from final
