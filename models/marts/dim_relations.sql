with

facts as (

    select * from {{ ref('int_facts') }}

),

answer_counts as (

    select
        series_id,
        setting_id,
        relation_id,
        first_answer_token_id,
        any_value(first_answer_token) as first_answer_token,
        count(*) as fact_count

    from facts
    group by all

),

-- Of equally frequent tokens, the one with the smallest number.
majority_answers as (

    select
        series_id,
        setting_id,
        relation_id,
        arg_max(first_answer_token, (fact_count, -first_answer_token_id)) as majority_answer,
        max(fact_count) / sum(fact_count) as majority_share

    from answer_counts
    group by all

),

final as (

    select
        series_id,
        setting_id,
        relation_id,
        any_value(facts.relation_group) as relation_group,
        max(facts.template_count) as template_count,
        count(*)::integer as fact_count,
        sum(facts.prompt_count)::integer as prompt_count,
        any_value(majority_answers.majority_answer) as majority_answer,
        any_value(majority_answers.majority_share) as majority_share

    from facts
    inner join majority_answers using (series_id, setting_id, relation_id)
    group by all

)

select * from final
