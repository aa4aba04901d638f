-- Isotonic regression as max-min (Barlow et al. 1972): the fit at point i is the maximum over j <= i of the minimum
-- over k >= i of the weighted mean of the points j..k. Pooling adjacent violators gives the same values.
with

points as (

    select * from {{ ref('int_accuracy_points') }}

),

segments as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_subset,
        metric,
        firsts.point as first_point,
        lasts.point as last_point,
        (lasts.known_so_far - firsts.known_so_far + firsts.fact_count * firsts.accuracy::decimal(18, 9))
        / (lasts.facts_so_far - firsts.facts_so_far + firsts.fact_count) as mean_accuracy

    from points as firsts
    inner join points as lasts using (series_id, setting_id, relation_id, fact_subset, metric)
    where firsts.point <= lasts.point

),

lowest_means as (

    select
        *,
        min(mean_accuracy) over (
            partition by series_id, setting_id, relation_id, fact_subset, metric, first_point
            order by last_point desc
        ) as lowest_mean

    from segments

),

final as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_subset,
        metric,
        last_point as point,
        round(max(lowest_mean), 9) as fit

    from lowest_means
    group by all

)

select * from final
