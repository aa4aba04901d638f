{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail'
    )
}}

with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

-- Only those that are new since the last build.
transitions as (

    select distinct
        checkpoints.series_id,
        checkpoints.extraction_id,
        previous.extraction_id as from_extraction_id

    from checkpoints
    inner join checkpoints as previous
        on
            checkpoints.series_id = previous.series_id
            and checkpoints.setting_id = previous.setting_id
            and checkpoints.previous_checkpoint_id = previous.checkpoint_id
    {% if is_incremental() -%}
        anti join {{ this }} as known
            on
                checkpoints.extraction_id = known.extraction_id
                and previous.extraction_id = known.from_extraction_id
    {%- endif %}

),

ranks as (

    select * from {{ ref('int_contribution_ranks') }}

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
        transitions.extraction_id,
        transitions.from_extraction_id,
        later.component_kind,
        later.resample,
        layer_draws.weights,
        len(later.contribution_ranks) // layer_draws.layer_count as components_per_layer,
        unnest(earlier.contribution_ranks)::double as earlier_rank,
        unnest(later.contribution_ranks)::double as later_rank,
        unnest(range(len(later.contribution_ranks))) as place

    from transitions
    inner join ranks as later on transitions.extraction_id = later.extraction_id
    inner join ranks as earlier
        on
            transitions.from_extraction_id = earlier.extraction_id
            and later.component_kind = earlier.component_kind
            and later.resample = earlier.resample
            and len(later.contribution_ranks) = len(earlier.contribution_ranks)
    inner join layer_draws on transitions.series_id = layer_draws.series_id and later.resample = layer_draws.resample

),

weighted as (

    select
        *,
        weights[place // components_per_layer + 1] as weight

    from pairs

),

sums as (

    select
        extraction_id,
        from_extraction_id,
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
        extraction_id,
        from_extraction_id,
        component_kind,
        resample,
        case
            when earlier_variance > 1e-9 and later_variance > 1e-9
                then round(covariance / sqrt(earlier_variance * later_variance), 9)
        end as rank_correlation

    from sums

)

select * from final
