-- Not incremental: an extraction's ablation may be replaced by another, while the extraction stays.
with

ablations as (

    select * from {{ ref('stg_raw__ablations') }}

),

prompts as (

    select
        extraction_id,
        prompts.prompt_id,
        relation_id,
        facts.fact_number

    from {{ ref('stg_raw__prompts') }} as prompts
    inner join {{ ref('stg_draws__extractions') }} as draws using (extraction_id)
    inner join {{ ref('stg_draws__facts') }} as facts using (fact_set_id, relation_id, fact_id)
    where extraction_id in (select extraction_id from {{ ref('int_ablation_sets') }})

),

-- Tokens add up to their answer, prompts are averaged. Summed as decimals: a sum of floats would change its last digits
-- from build to build.
final as (

    select
        extraction_id,
        ablations.method,
        ablations.set_id,
        prompts.relation_id,
        prompts.fact_number,
        count_if(ablations.answer_token_index = 0)::integer as prompt_count,
        sum(ablations.delta_log_prob::decimal(18, 9)) / prompt_count as effect,
        sum(ablations.delta_template_log_prob::decimal(18, 9)) filter (where ablations.answer_token_index = 0)
        / nullif(count(ablations.delta_template_log_prob) filter (where ablations.answer_token_index = 0), 0)
            as template_effect,
        sum(ablations.delta_rank) filter (where ablations.answer_token_index = 0)
        / prompt_count as rank_change

    from ablations
    inner join prompts using (extraction_id, prompt_id)
    group by all

)

select * from final
