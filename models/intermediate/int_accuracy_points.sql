with

predictions as (

    select * from {{ ref('fct_fact_predictions') }}

),

facts as (

    select * from {{ ref('int_facts') }}

),

checkpoints as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_main_line

),

answers as (

    select
        *,
        count(*) over (partition by series_id, setting_id, relation_id, first_answer_token_id) as same_answer_count

    from facts

),

fact_subsets as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_id,
        same_answer_count,
        unnest(
            case
                when answer_token_count = 1 and same_answer_count = 1 then ['all', 'single_token_unshared']
                else ['all']
            end
        ) as fact_subset

    from answers

),

-- A relation's majority answer within the subset: of the unshared answers, none is more frequent than another.
majorities as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_subset,
        max(same_answer_count) / count(*) as majority_share

    from fact_subsets
    group by all
    having fact_subset = 'all' or count(*) >= 3

),

metric_accuracies as (

    select
        series_id,
        setting_id,
        predictions.checkpoint_id,
        relation_id,
        fact_subset,
        majorities.majority_share,
        count(*)::integer as fact_count,
        unnest(['top1', 'top10']) as metric,
        unnest([{{ stable_mean('predictions.top1_share') }}, {{ stable_mean('predictions.top10_share') }}]) as accuracy

    from predictions
    inner join fact_subsets using (series_id, setting_id, relation_id, fact_id)
    inner join majorities using (series_id, setting_id, relation_id, fact_subset)
    group by series_id, setting_id, predictions.checkpoint_id, relation_id, fact_subset, majorities.majority_share

),

-- Sums of decimals are exact, so that equal means stay equal.
final as (

    select
        series_id,
        setting_id,
        relation_id,
        metric_accuracies.fact_subset,
        metric_accuracies.metric,
        checkpoint_id,
        checkpoints.cumulative_step,
        (row_number() over points)::integer as point,
        metric_accuracies.fact_count,
        metric_accuracies.accuracy,
        (sum(metric_accuracies.fact_count) over points)::bigint as facts_so_far,
        (sum(metric_accuracies.fact_count * metric_accuracies.accuracy::decimal(18, 9)) over points)::decimal(38, 9)
            as known_so_far,
        metric_accuracies.majority_share

    from metric_accuracies
    inner join checkpoints using (series_id, setting_id, checkpoint_id)
    window points as (
        partition by
            series_id, setting_id, relation_id, metric_accuracies.fact_subset, metric_accuracies.metric
        order by checkpoints.checkpoint_index
    )

)

select * from final
