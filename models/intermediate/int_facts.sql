with

last_checkpoints as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_last

),

prompts as (

    select * from {{ ref('stg_raw__prompts') }}

),

answers as (

    select
        extraction_id,
        prompt_id,
        count(*)::integer as answer_token_count,
        arg_min(token_id, position) as first_answer_token_id,
        arg_min(token, position) as first_answer_token

    from {{ ref('stg_raw__prompt_tokens') }}
    where span_role = 'answer'
    group by all

),

final as (

    select
        last_checkpoints.series_id,
        last_checkpoints.setting_id,
        prompts.fact_id,
        any_value(prompts.relation_id) as relation_id,
        any_value(prompts.relation_group) as relation_group,
        any_value(prompts.subject) as subject,
        any_value(prompts.object) as object,
        any_value(prompts.covariates) as covariates,
        count(distinct prompts.template_id)::integer as template_count,
        count(*)::integer as prompt_count,
        max(answers.answer_token_count) as answer_token_count,
        arg_min(answers.first_answer_token_id, prompt_id) as first_answer_token_id,
        arg_min(answers.first_answer_token, prompt_id) as first_answer_token

    from prompts
    inner join last_checkpoints using (extraction_id)
    left join answers using (extraction_id, prompt_id)
    group by all

)

select * from final
