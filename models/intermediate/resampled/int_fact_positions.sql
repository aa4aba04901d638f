with

draws as (

    select * from {{ ref('stg_draws__extractions') }}

),

facts as (

    select * from {{ ref('stg_draws__facts') }}

),

prompts as (

    select * from {{ ref('int_prompt_positions') }}

),

final as (

    select
        extraction_id,
        fact_set_id,
        relation_id,
        fact_id,
        facts.fact_number,
        count(*)::integer as prompt_count,
        sum(prompts.subject_position_count + prompts.answer_position_count)::integer as entity_position_count,
        sum(prompts.answer_position_count)::integer as answer_position_count

    from prompts
    inner join draws using (extraction_id)
    inner join facts using (fact_set_id, relation_id, fact_id)
    group by all

)

select * from final
