with

points as (

    select *
    from {{ ref('int_accuracy_points') }}
    inner join {{ ref('int_accuracy_fits') }} using (series_id, setting_id, relation_id, fact_subset, metric, point)

),

draws as (

    select *
    from {{ ref('int_convergence_draws') }}
    where resample_kind = 'bootstrap'

),

ended as (

    select
        *,
        max(point) over relation_points as last_point,
        max(fit) over relation_points as final_fit

    from points
    window relation_points as (partition by series_id, setting_id, relation_id, fact_subset, metric)

),

-- Rounded, so that the last digits of a quotient decide nothing.
reached as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_subset,
        metric,
        majority_share,
        last_point,
        final_fit,
        min(point) filter (where round(fit - 0.9 * final_fit, 8) >= 0) as reached_point

    from ended
    group by all

),

-- Convergence lies after `before_point`, and at `converged_point` at the latest.
censored as (

    select
        *,
        {{ censoring_of('final_fit', 'majority_share', 'reached_point', '1', 'last_point') }} as censoring,
        case when censoring <> 'right' then reached_point end as converged_point,
        case when censoring = 'right' then last_point else reached_point - 1 end as before_point

    from reached

),

suffixes_without_last as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_subset,
        metric,
        point,
        majority_share,
        sum(fact_count) over later as facts_from_here,
        sum(fact_count * accuracy::decimal(18, 9)) over later as known_from_here

    from ended
    where point < last_point
    window later as (
        partition by series_id, setting_id, relation_id, fact_subset, metric
        order by point
        rows between current row and unbounded following
    )

),

without_last as (

    select *
    from {{ convergences('suffixes_without_last', 'series_id, setting_id, relation_id, fact_subset, metric') }}
        as convergences

),

-- Draws that have not converged come after every point.
intervals as (

    select
        series_id,
        setting_id,
        relation_id,
        'all' as fact_subset,
        metric,
        quantile_disc(coalesce(converged_point, 1000000000), 0.025) as low_point,
        quantile_disc(coalesce(converged_point, 1000000000), 0.975) as high_point,
        count_if(censoring = 'right') / count(*) as censored_share

    from draws
    group by all

),

located as (

    select
        series_id,
        setting_id,
        relation_id,
        fact_subset,
        metric,
        any_value(points.checkpoint_id) filter (where points.point = censored.converged_point)
            as converged_checkpoint_id,
        any_value(points.checkpoint_id) filter (where points.point = censored.before_point) as previous_checkpoint_id,
        any_value(points.cumulative_step) filter (where points.point = censored.converged_point) as converged_step,
        any_value(points.cumulative_step) filter (where points.point = censored.before_point) as previous_step,
        censored.censoring,
        censored.final_fit,
        censored.majority_share,
        any_value(points.cumulative_step) filter (where points.point = intervals.low_point) as converged_step_low,
        any_value(points.cumulative_step) filter (where points.point = intervals.high_point) as converged_step_high,
        intervals.censored_share,
        any_value(points.checkpoint_id) filter (where points.point = without_last.converged_point)
            as converged_checkpoint_id_without_last,
        any_value(points.cumulative_step) filter (where points.point = without_last.converged_point)
            as converged_step_without_last,
        without_last.censoring as censoring_without_last

    from censored
    inner join points using (series_id, setting_id, relation_id, fact_subset, metric)
    left join without_last using (series_id, setting_id, relation_id, fact_subset, metric)
    left join intervals using (series_id, setting_id, relation_id, fact_subset, metric)
    group by all

),

final as (

    select
        *,
        case
            when censoring_without_last is not null
                then coalesce(converged_checkpoint_id, '') = coalesce(converged_checkpoint_id_without_last, '')
        end as is_steady

    from located

)

select * from final
