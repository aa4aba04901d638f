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
        {{ mean_accuracies() }},
        {{ stable_mean('mean_log_prob') }} as mean_log_prob,
        count(log_prob_gain)::integer as gain_fact_count,
        {{ stable_mean('mean_mismatched_log_prob + log_prob_gain') }} as mean_own_log_prob,
        {{ stable_mean('mean_mismatched_log_prob') }} as mean_mismatched_log_prob,
        {{ stable_mean('log_prob_gain') }} as mean_log_prob_gain,
        round(stddev_samp(log_prob_gain) / sqrt(count(log_prob_gain)), 9) as gain_error,
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
        {{ accuracies_with_intervals() }},
        mean_log_prob,
        gain_fact_count,
        mean_own_log_prob,
        mean_mismatched_log_prob,
        mean_log_prob_gain,
        {{ interval_low('mean_log_prob_gain', 'gain_error', lowest="'-infinity'") }} as mean_log_prob_gain_low,
        {{ interval_high('mean_log_prob_gain', 'gain_error', highest=none) }} as mean_log_prob_gain_high,
        positive_gain_share,
        majority_share

    from averaged

)

select * from final
