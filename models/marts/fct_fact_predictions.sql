with

prompt_predictions as (

    select *
    from {{ ref('int_prompt_readouts') }}
    where is_model_output

),

aggregated as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        fact_id,
        any_value(relation_id) as relation_id,
        count(*)::integer as prompt_count,
        median(first_token_rank)::double as first_token_rank,
        count_if(is_top1) / count(*) as top1_share,
        count_if(is_top10) / count(*) as top10_share,
        count_if(is_all_tokens_top1) / count(*) as all_tokens_top1_share,
        {{ stable_mean('first_token_log_prob') }} as mean_first_token_log_prob,
        {{ stable_mean('log_prob') }} as mean_log_prob,
        {{ stable_mean('mismatched_log_prob') }} as mean_mismatched_log_prob,
        {{ stable_mean('log_prob - mismatched_log_prob') }} as log_prob_gain

    from prompt_predictions
    group by all

),

final as (

    select
        *,
        top1_share >= 0.5 as is_known_top1,
        top10_share >= 0.5 as is_known_top10,
        all_tokens_top1_share >= 0.5 as is_known_all_tokens

    from aggregated

)

select * from final
