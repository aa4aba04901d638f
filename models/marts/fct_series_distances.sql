with

comparisons as (

    select * from {{ ref('fct_series_comparisons') }}

),

series as (

    select * from {{ ref('dim_series') }}

),

distances as (

    select
        series_id,
        setting_id,
        tau_id,
        other_series_id,
        other_setting_id,
        other_tau_id,
        pair_kind,
        differs_in,
        statistic,
        component_kind,
        count(*)::integer as checkpoint_count,
        count_if(matched_by = 'end')::integer as end_count,
        {{ stable_mean('abs(difference)') }} as distance

    from comparisons
    group by all

),

seed_pairs as (

    select
        distances.*,
        series.recipe_id

    from distances
    inner join series using (series_id)
    where distances.pair_kind = 'same_recipe'

),

recipe_pairs as (

    select
        distances.*,
        ones.recipe_id,
        others.recipe_id as other_recipe_id

    from distances
    inner join series as ones using (series_id)
    inner join series as others on distances.other_series_id = others.series_id
    where distances.pair_kind = 'other_recipe'

),

-- The seeds of both recipes, every pair of them once.
seed_distances as (

    select
        recipe_pairs.series_id,
        recipe_pairs.setting_id,
        recipe_pairs.tau_id,
        recipe_pairs.other_series_id,
        recipe_pairs.other_setting_id,
        recipe_pairs.other_tau_id,
        recipe_pairs.statistic,
        recipe_pairs.component_kind,
        count(*)::integer as seed_pair_count,
        {{ stable_mean('seed_pairs.distance') }} as seed_distance

    from recipe_pairs
    inner join seed_pairs
        on
            seed_pairs.recipe_id in (recipe_pairs.recipe_id, recipe_pairs.other_recipe_id)
            and recipe_pairs.setting_id = seed_pairs.setting_id
            and recipe_pairs.tau_id = seed_pairs.tau_id
            and recipe_pairs.statistic = seed_pairs.statistic
            and recipe_pairs.component_kind = seed_pairs.component_kind
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        other_series_id,
        other_setting_id,
        other_tau_id,
        distances.pair_kind,
        distances.differs_in,
        statistic,
        component_kind,
        distances.checkpoint_count,
        distances.end_count,
        distances.distance,
        case
            when distances.pair_kind = 'other_recipe' then coalesce(seed_distances.seed_pair_count, 0)
        end as seed_pair_count,
        seed_distances.seed_distance,
        round(distances.distance / nullif(seed_distances.seed_distance, 0), 9) as ratio

    from distances
    left join seed_distances
        using (
            series_id, setting_id, tau_id, other_series_id, other_setting_id, other_tau_id, statistic, component_kind
        )

)

select * from final
