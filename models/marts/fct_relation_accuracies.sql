with

fact_predictions as (

    select * from {{ ref('fct_fact_predictions') }}

),

relations as (

    select * from {{ ref('dim_relations') }}

),

-- Every fact counts for its relation, for the relation's group, and for all.
scoped_predictions as (

    select
        fact_predictions.*,
        relations.majority_share,
        unnest(['relation', 'group', 'all']) as scope_kind,
        unnest([relation_id, relations.relation_group, 'all']) as scope_id

    from fact_predictions
    inner join relations using (series_id, setting_id, relation_id)

),

averaged as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        scope_kind,
        scope_id,
        count(*)::integer as fact_count,
        sum(prompt_count)::integer as prompt_count,
        {{ stable_mean('top1_share') }} as top1_accuracy,
        {{ stable_mean('top10_share') }} as top10_accuracy,
        {{ stable_mean('all_tokens_top1_share') }} as all_tokens_accuracy,
        {{ effective_n('top1_share', 'prompt_count') }} as top1_effective_n,
        {{ effective_n('top10_share', 'prompt_count') }} as top10_effective_n,
        {{ effective_n('all_tokens_top1_share', 'prompt_count') }} as all_tokens_effective_n,
        {{ stable_mean('mean_log_prob') }} as mean_log_prob,
        {{ stable_mean('log_prob_gain') }} as mean_log_prob_gain,
        {{ stable_mean('(log_prob_gain > 0)::integer') }} as positive_gain_share,
        {{ stable_mean('majority_share') }} as majority_share

    from scoped_predictions
    group by all

),

final as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        scope_kind,
        scope_id,
        fact_count,
        prompt_count,
        top1_accuracy,
        top1_effective_n,
        {{ wilson_low('top1_accuracy', 'fact_count', 'top1_effective_n') }} as top1_low,
        {{ wilson_high('top1_accuracy', 'fact_count', 'top1_effective_n') }} as top1_high,
        top10_accuracy,
        top10_effective_n,
        {{ wilson_low('top10_accuracy', 'fact_count', 'top10_effective_n') }} as top10_low,
        {{ wilson_high('top10_accuracy', 'fact_count', 'top10_effective_n') }} as top10_high,
        all_tokens_accuracy,
        all_tokens_effective_n,
        {{ wilson_low('all_tokens_accuracy', 'fact_count', 'all_tokens_effective_n') }} as all_tokens_low,
        {{ wilson_high('all_tokens_accuracy', 'fact_count', 'all_tokens_effective_n') }} as all_tokens_high,
        mean_log_prob,
        mean_log_prob_gain,
        positive_gain_share,
        majority_share

    from averaged

)

select * from final
