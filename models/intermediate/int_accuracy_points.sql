with

accuracies as (

    select *
    from {{ ref('fct_relation_accuracies') }}
    where scope_kind = 'relation'

),

checkpoints as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_main_line

),

metric_accuracies as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        scope_id as relation_id,
        fact_count,
        unnest(['top1', 'top10']) as metric,
        unnest([top1_accuracy, top10_accuracy]) as accuracy

    from accuracies

),

-- Sums of decimals are exact, so that equal means stay equal.
final as (

    select
        series_id,
        setting_id,
        relation_id,
        metric_accuracies.metric,
        checkpoint_id,
        checkpoints.cumulative_step,
        (row_number() over points)::integer as point,
        metric_accuracies.fact_count,
        metric_accuracies.accuracy,
        (sum(metric_accuracies.fact_count) over points)::bigint as facts_so_far,
        (sum(metric_accuracies.fact_count * metric_accuracies.accuracy::decimal(18, 9)) over points)::decimal(38, 9)
            as known_so_far

    from metric_accuracies
    inner join checkpoints using (series_id, setting_id, checkpoint_id)
    window points as (
        partition by series_id, setting_id, relation_id, metric_accuracies.metric
        order by checkpoints.checkpoint_index
    )

)

select * from final
