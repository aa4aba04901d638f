with

checkpoints as (

    select distinct
        extraction_id,
        series_id,
        setting_id,
        checkpoint_id,
        previous_checkpoint_id

    from {{ ref('int_measured_checkpoints') }}

),

ranks as (

    select
        checkpoints.*,
        ranks.component_kind,
        ranks.resample,
        ranks.contribution_ranks

    from {{ ref('int_contribution_ranks') }} as ranks
    inner join checkpoints using (extraction_id)

),

layer_draws as (

    select
        series.series_id,
        series.layer_count,
        draws.resample,
        draws.weights

    from {{ ref('stg_draws__layers') }} as draws
    inner join {{ ref('dim_series') }} as series using (layer_count)

),

pairs as (

    select
        later.series_id,
        later.setting_id,
        earlier.checkpoint_id as from_checkpoint_id,
        later.checkpoint_id as to_checkpoint_id,
        later.component_kind,
        later.resample,
        layer_draws.weights,
        len(later.contribution_ranks) // layer_draws.layer_count as components_per_layer,
        unnest(earlier.contribution_ranks)::double as earlier_rank,
        unnest(later.contribution_ranks)::double as later_rank,
        unnest(range(len(later.contribution_ranks))) as place

    from ranks as later
    inner join ranks as earlier
        on
            later.series_id = earlier.series_id
            and later.setting_id = earlier.setting_id
            and later.previous_checkpoint_id = earlier.checkpoint_id
            and later.component_kind = earlier.component_kind
            and later.resample = earlier.resample
            and len(later.contribution_ranks) = len(earlier.contribution_ranks)
    inner join layer_draws on later.series_id = layer_draws.series_id and later.resample = layer_draws.resample

),

weighted as (

    select
        *,
        weights[place // components_per_layer + 1] as weight

    from pairs

),

sums as (

    select
        series_id,
        setting_id,
        from_checkpoint_id,
        to_checkpoint_id,
        component_kind,
        resample,
        sum(weight) as weight_sum,
        sum(weight * earlier_rank) / weight_sum as earlier_mean,
        sum(weight * later_rank) / weight_sum as later_mean,
        sum(weight * earlier_rank * later_rank) / weight_sum - earlier_mean * later_mean as covariance,
        sum(weight * earlier_rank * earlier_rank) / weight_sum - earlier_mean * earlier_mean as earlier_variance,
        sum(weight * later_rank * later_rank) / weight_sum - later_mean * later_mean as later_variance

    from weighted
    group by all

),

-- Spearman's correlation; ranks are those of the whole model, also where layers are drawn.
final as (

    select
        series_id,
        setting_id,
        from_checkpoint_id,
        to_checkpoint_id,
        component_kind,
        resample,
        case
            when earlier_variance > 1e-9 and later_variance > 1e-9
                then round(covariance / sqrt(earlier_variance * later_variance), 9)
        end as rank_correlation

    from sums

)

select * from final
