with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

masks as (

    select *
    from {{ ref('int_component_masks') }}
    where layer >= 0

),

layer_draws as (

    select
        series.series_id,
        draws.resample,
        draws.weights

    from {{ ref('stg_draws__layers') }} as draws
    inner join {{ ref('dim_series') }} as series using (layer_count)

),

common_sets as (

    select *
    from {{ ref('int_primary_sets') }}
    where resample <= 200

),

-- Heads are the same under both thresholds. 200 draws, as for the rank correlations beside them.
primary_sets as (

    select
        unnest(['common_tau', 'matched_rate']) as comparison,
        ['head'] as component_kinds,
        *

    from common_sets

    union all

    select
        'common_tau' as comparison,
        ['ffn'] as component_kinds,
        *

    from common_sets

    union all

    select
        'matched_rate' as comparison,
        ['ffn'] as component_kinds,
        *

    from {{ primary_role_sets(ref('int_matched_role_sets'), ['observed', 'bootstrap']) }} as primary_sets

),

checkpoint_sets as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        checkpoints.previous_checkpoint_id,
        primary_sets.component_kinds[1] as component_kind,
        primary_sets.* exclude (extraction_id, tau_id, component_kinds)

    from primary_sets
    inner join checkpoints using (extraction_id, tau_id)

),

transitions as (

    select
        later.series_id,
        later.setting_id,
        later.tau_id,
        later.theta,
        earlier.checkpoint_id as from_checkpoint_id,
        later.checkpoint_id as to_checkpoint_id,
        later.comparison,
        later.component_kind,
        later.resample,
        earlier.active | later.active as counted,
        counted & ~(
            (earlier.general & later.general)
            | (earlier.entity & later.entity)
            | (earlier.relation_answer & later.relation_answer)
            | (earlier.fact_answer & later.fact_answer)
        ) as changed

    from checkpoint_sets as later
    inner join checkpoint_sets as earlier
        on
            later.series_id = earlier.series_id
            and later.setting_id = earlier.setting_id
            and later.tau_id = earlier.tau_id
            and later.theta = earlier.theta
            and later.previous_checkpoint_id = earlier.checkpoint_id
            and later.comparison = earlier.comparison
            and later.component_kind = earlier.component_kind
            and later.resample = earlier.resample

),

-- A bootstrap draw draws layers as well as facts.
final as (

    select
        series_id,
        transitions.setting_id,
        transitions.tau_id,
        transitions.theta,
        transitions.from_checkpoint_id,
        transitions.to_checkpoint_id,
        transitions.comparison,
        component_kind,
        resample,
        sum(bit_count(transitions.changed & masks.members) * layer_draws.weights[masks.layer + 1])
        / nullif(sum(bit_count(transitions.counted & masks.members) * layer_draws.weights[masks.layer + 1]), 0)
            as turnover

    from transitions
    inner join masks using (series_id, component_kind)
    inner join layer_draws using (series_id, resample)
    group by all

)

select * from final
