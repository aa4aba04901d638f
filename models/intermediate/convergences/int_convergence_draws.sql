with

accuracy_points as (

    select *
    from {{ ref('int_accuracy_points') }}
    where fact_subset = 'all' and metric = 'top1'

),

last_checkpoints as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_last

),

facts as (

    select * from {{ ref('int_facts') }}

),

drawn_extractions as (

    select * from {{ ref('stg_draws__extractions') }}

),

drawn_facts as (

    select * from {{ ref('stg_draws__facts') }}

),

weights as (

    select *
    from {{ ref('stg_draws__weights') }}
    where resample_kind in ('observed', 'bootstrap')

),

predictions as (

    select * from {{ ref('fct_fact_predictions') }}

),

answers as (

    select
        series_id,
        setting_id,
        relation_id,
        facts.fact_id,
        fact_set_id,
        drawn_facts.fact_number,
        count(*) over (partition by series_id, setting_id, relation_id, facts.first_answer_token_id)
            as same_answer_count

    from facts
    inner join last_checkpoints using (series_id, setting_id)
    inner join drawn_extractions using (extraction_id)
    inner join drawn_facts using (fact_set_id, relation_id, fact_id)

),

majorities as (

    select
        *,
        max(same_answer_count) over (partition by series_id, setting_id, relation_id) as majority_count

    from answers

),

-- What a fact adds to the number of facts with the majority answer; to the mean of them where several are as frequent.
majority_facts as (

    select
        *,
        case when same_answer_count = majority_count then 1 else 0 end * majority_count / sum(
            case when same_answer_count = majority_count then 1 else 0 end
        ) over (partition by series_id, setting_id, relation_id) as majority_value

    from majorities

),

-- Shares in billionths: sums of whole numbers are exact.
fact_points as (

    select
        series_id,
        setting_id,
        relation_id,
        accuracy_points.point,
        majority_facts.fact_number,
        (predictions.fact_id is not null)::integer as asked,
        round(coalesce(predictions.top1_share, 0) * 1e9)::bigint as top1,
        round(coalesce(predictions.top10_share, 0) * 1e9)::bigint as top10

    from majority_facts
    inner join accuracy_points using (series_id, setting_id, relation_id)
    left join predictions using (series_id, setting_id, relation_id, checkpoint_id, fact_id)

),

-- Sums over a point and all later ones come before the draws: a sum of products with weights is the product with a sum.
fact_suffixes as (

    select
        *,
        sum(asked) over later as asked_from_here,
        sum(top1) over later as top1_from_here,
        sum(top10) over later as top10_from_here

    from fact_points
    window later as (
        partition by series_id, setting_id, relation_id, fact_number
        order by point
        rows between current row and unbounded following
    )

),

vectors as (

    select
        series_id,
        setting_id,
        relation_id,
        point,
        list(asked order by fact_number)::double[] as asked,
        list(asked_from_here order by fact_number)::double[] as asked_from_here,
        list(top1_from_here order by fact_number)::double[] as top1_from_here,
        list(top10_from_here order by fact_number)::double[] as top10_from_here

    from fact_suffixes
    group by all

),

relations as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_set_id,
        min(fact_number) + 1 as first_place,
        max(fact_number) + 1 as last_place,
        list(majority_value order by fact_number)::double[] as majority_values

    from majority_facts
    group by all

),

relation_draws as (

    select
        series_id,
        setting_id,
        relation_id,
        weights.resample_kind,
        weights.resample,
        weights.weights[first_place:last_place] as fact_weights,
        list_dot_product(fact_weights, majority_values) / list_sum(fact_weights) as majority_share

    from relations
    inner join weights using (fact_set_id)

),

-- A checkpoint at which none of a draw's facts was asked is no point.
suffixes as (

    select
        series_id,
        setting_id,
        relation_id,
        unnest(['top1', 'top10']) as metric,
        relation_draws.resample_kind,
        relation_draws.resample,
        relation_draws.majority_share,
        vectors.point,
        list_dot_product(vectors.asked_from_here, relation_draws.fact_weights) as facts_from_here,
        unnest([
            list_dot_product(vectors.top1_from_here, relation_draws.fact_weights) / 1e9,
            list_dot_product(vectors.top10_from_here, relation_draws.fact_weights) / 1e9
        ]) as known_from_here

    from vectors
    inner join relation_draws using (series_id, setting_id, relation_id)
    where list_dot_product(vectors.asked, relation_draws.fact_weights) > 0

),

converged as (

    select *
    from {{ convergences('suffixes', 'series_id, setting_id, relation_id, metric, resample_kind, resample') }}
        as convergences

),

final as (

    select
        converged.series_id,
        converged.setting_id,
        converged.relation_id,
        converged.metric,
        converged.resample_kind,
        converged.resample,
        converged.converged_point,
        accuracy_points.checkpoint_id as converged_checkpoint_id,
        accuracy_points.cumulative_step as converged_step,
        converged.censoring

    from converged
    left join accuracy_points
        on
            converged.series_id = accuracy_points.series_id
            and converged.setting_id = accuracy_points.setting_id
            and converged.relation_id = accuracy_points.relation_id
            and converged.converged_point = accuracy_points.point

)

select * from final
