with

points as (

    select *
    from {{ ref('int_accuracy_points') }}
    inner join {{ ref('int_accuracy_fits') }} using (series_id, setting_id, relation_id, fact_subset, metric, point)

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
        case
            when round(final_fit - majority_share, 8) <= 0 then 'right'
            when reached_point = last_point then 'right'
            when reached_point = 1 then 'left'
            else 'none'
        end as censoring,
        case when censoring <> 'right' then reached_point end as converged_point,
        case when censoring = 'right' then last_point else reached_point - 1 end as before_point

    from reached

),

final as (

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
        censored.majority_share

    from censored
    inner join points using (series_id, setting_id, relation_id, fact_subset, metric)
    group by all

)

select * from final
