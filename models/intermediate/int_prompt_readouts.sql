with

predictions as (

    select * from {{ ref('stg_raw__predictions') }}

),

prompts as (

    select * from {{ ref('stg_raw__prompts') }}

),

checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

-- Ranks count from 0. The log-probability of an answer is the sum over its tokens, all of which have a mismatched
-- subject or none.
prompt_readouts as (

    select
        extraction_id,
        prompt_id,
        readout,
        any_value(rank) filter (where answer_token_index = 0) as first_token_rank,
        max(rank) as worst_rank,
        any_value(log_prob) filter (where answer_token_index = 0)::double as first_token_log_prob,
        sum(log_prob::decimal(18, 9))::double as log_prob,
        sum(log_prob_mismatched::decimal(18, 9))::double as mismatched_log_prob

    from predictions
    group by all

),

final as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.checkpoint_id,
        prompt_id,
        prompts.relation_id,
        prompts.fact_id,
        prompt_readouts.readout,
        prompt_readouts.readout = checkpoints.layer_count as is_model_output,
        prompt_readouts.first_token_rank,
        prompt_readouts.first_token_rank < 1 as is_top1,
        prompt_readouts.first_token_rank < 10 as is_top10,
        prompt_readouts.worst_rank < 1 as is_all_tokens_top1,
        prompt_readouts.first_token_log_prob,
        prompt_readouts.log_prob,
        prompt_readouts.mismatched_log_prob

    from prompt_readouts
    inner join prompts using (extraction_id, prompt_id)
    inner join checkpoints using (extraction_id)

)

select * from final
