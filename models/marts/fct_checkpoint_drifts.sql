with

contributions as (

    select * from {{ ref('int_component_contributions') }}

),

checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

series as (

    select * from {{ ref('dim_series') }}

),

-- Decimals, so that sums of them are exact.
component_means as (

    select
        extraction_id,
        component_id,
        {{ stable_mean('mean_contribution') }}::decimal(18, 9) as mean_contribution

    from contributions
    group by all

),

-- A checkpoint without contributions is skipped: the one before it and the one after it become neighbours.
measured as (

    select *
    from checkpoints
    where extraction_id in (select extraction_id from component_means)

),

neighbours as (

    select * from {{ neighbours('measured', ['series_id', 'setting_id']) }} as linked

),

-- Of several that follow a checkpoint: the next in its own run, else the first.
followed as (

    select
        series_id,
        setting_id,
        neighbours.previous_checkpoint_id as checkpoint_id,
        arg_min(checkpoint_id, measured.checkpoint_index) as next_checkpoint_id

    from neighbours
    inner join measured using (series_id, setting_id, checkpoint_id)
    where neighbours.previous_checkpoint_id is not null
    group by all

),

transitions as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        neighbours.previous_checkpoint_id,
        followed.next_checkpoint_id

    from neighbours
    left join followed using (series_id, setting_id, checkpoint_id)
    where neighbours.previous_checkpoint_id is not null

),

-- The transition to a checkpoint, and the one past it.
compared_pairs as (

    select
        *,
        previous_checkpoint_id as earlier_checkpoint_id,
        unnest([checkpoint_id, next_checkpoint_id]) as later_checkpoint_id,
        unnest([false, true]) as is_bypass

    from transitions

),

checkpoint_means as (

    select
        series_id,
        measured.setting_id,
        measured.checkpoint_id,
        component_id,
        component_means.mean_contribution,
        components.layer,
        unnest(['all', components.component_kind]) as component_kind,
        -- A sequential layer has a sum for its heads and one for its FFN, a parallel one has one sum for both.
        case when series.block = 'sequential' then components.component_kind end as sum_kind

    from component_means
    inner join measured using (extraction_id)
    inner join components using (series_id, component_id)
    inner join series using (series_id)

),

differences as (

    select
        pairs.series_id,
        pairs.setting_id,
        pairs.checkpoint_id,
        pairs.is_bypass,
        later.component_kind,
        later.layer,
        later.sum_kind,
        later.mean_contribution - earlier.mean_contribution as difference,
        earlier.mean_contribution as earlier_contribution,
        later.mean_contribution as later_contribution

    from compared_pairs as pairs
    inner join checkpoint_means as later
        on
            pairs.series_id = later.series_id
            and pairs.setting_id = later.setting_id
            and pairs.later_checkpoint_id = later.checkpoint_id
    inner join checkpoint_means as earlier
        on
            pairs.series_id = earlier.series_id
            and pairs.setting_id = earlier.setting_id
            and pairs.earlier_checkpoint_id = earlier.checkpoint_id
            and later.component_id = earlier.component_id
            and later.component_kind = earlier.component_kind

),

-- Total variation, doubled: the parts of a sum add up to 1, so what the components gain the rest of the sum loses.
sum_distances as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        is_bypass,
        component_kind,
        layer,
        sum_kind,
        sum(abs(difference)) + abs(sum(difference)) as doubled_distance

    from differences
    group by all

),

distances as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        component_kind,
        sum(doubled_distance) filter (where not is_bypass) / (2 * count(*) filter (where not is_bypass))
            as contribution_distance,
        sum(doubled_distance) filter (where is_bypass) / (2 * nullif(count(*) filter (where is_bypass), 0))
            as bypass_distance

    from sum_distances
    group by all

),

-- Equal contributions share the mean of their ranks.
ranks as (

    select
        *,
        rank() over earlier_order + (count(*) over earlier_equals - 1) / 2 as earlier_rank,
        rank() over later_order + (count(*) over later_equals - 1) / 2 as later_rank

    from differences
    where not is_bypass
    window
        transition as (partition by series_id, setting_id, checkpoint_id, component_kind),
        earlier_order as (transition order by earlier_contribution),
        later_order as (transition order by later_contribution),
        earlier_equals as (
            partition by series_id, setting_id, checkpoint_id, component_kind, earlier_contribution
        ),
        later_equals as (partition by series_id, setting_id, checkpoint_id, component_kind, later_contribution)

),

rank_correlations as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        component_kind,
        -- Not defined where all contributions are equal.
        case
            when count(distinct earlier_rank) > 1 and count(distinct later_rank) > 1
                then round(corr(earlier_rank, later_rank), 9)
        end as rank_correlation

    from ranks
    group by all

),

typical as (

    select
        *,
        median(contribution_distance) over other_transitions as typical_distance,
        contribution_distance / nullif(typical_distance, 0) as distance_ratio,
        count(*) over series_transitions as transition_count

    from distances
    window
        series_transitions as (partition by series_id, setting_id, component_kind),
        other_transitions as (
            partition by series_id, setting_id, component_kind
            rows between unbounded preceding and unbounded following exclude current row
        )

),

-- How far the other transitions' distances are, typically, from typical; identical checkpoints say nothing of it.
spread as (

    select
        *,
        median(abs(ln(nullif(distance_ratio, 0)))) over (
            partition by series_id, setting_id, component_kind
            rows between unbounded preceding and unbounded following exclude current row
        ) as typical_deviation

    from typical

),

final as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        component_kind,
        transitions.previous_checkpoint_id,
        transitions.next_checkpoint_id,
        spread.contribution_distance,
        rank_correlations.rank_correlation,
        spread.typical_distance,
        spread.distance_ratio,
        -- 1.4826 times the median deviation estimates the standard deviation of normal values.
        coalesce(
            spread.transition_count >= 5
            and ln(nullif(spread.distance_ratio, 0)) > greatest(ln(3), 3.5 * 1.4826 * spread.typical_deviation),
            false
        ) as is_outlier,
        spread.contribution_distance = 0 as is_identical,
        spread.bypass_distance,
        coalesce(
            2 * spread.bypass_distance < least(spread.contribution_distance, onward.contribution_distance), false
        ) as is_suspect

    from spread
    inner join transitions using (series_id, setting_id, checkpoint_id)
    inner join rank_correlations using (series_id, setting_id, checkpoint_id, component_kind)
    left join distances as onward
        on
            spread.series_id = onward.series_id
            and spread.setting_id = onward.setting_id
            and transitions.next_checkpoint_id = onward.checkpoint_id
            and spread.component_kind = onward.component_kind

)

select * from final
