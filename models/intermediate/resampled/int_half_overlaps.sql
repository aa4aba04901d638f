with

checkpoints as (

    select
        *,
        row_number() over (order by extraction_id, tau_id) as measurement

    from {{ ref('int_measured_checkpoints') }}

),

masks as (

    select *
    from {{ ref('int_component_masks') }}
    where layer = -1

),

-- Numbers instead of names, because there are many rows to compare.
half_sets as (

    select
        checkpoints.measurement,
        hash(
            half_sets.theta, half_sets.resample_kind, half_sets.resample, half_sets.role, half_sets.relation_id
        ) as set_hash,
        half_sets.* exclude (extraction_id, tau_id)

    from {{ ref('int_half_sets') }} as half_sets
    inner join checkpoints using (extraction_id, tau_id)
    where
        half_sets.relation_id = ''
        or (half_sets.role in ('relation_answer', 'fact_answer') and half_sets.resample_kind = 'half')

),

-- A checkpoint beside itself, the reference and the one before.
besides as (

    select
        *,
        unnest(['same', 'reference', 'previous']) as beside,
        unnest([checkpoint_id, reference_checkpoint_id, previous_checkpoint_id]) as other_checkpoint_id

    from checkpoints

),

pairs as (

    select
        besides.*,
        others.measurement as other_measurement

    from besides
    inner join checkpoints as others
        on
            besides.series_id = others.series_id
            and besides.setting_id = others.setting_id
            and besides.tau_id = others.tau_id
            and besides.other_checkpoint_id = others.checkpoint_id

),

compared as (

    select
        pairs.series_id,
        pairs.setting_id,
        pairs.tau_id,
        half_sets.theta,
        pairs.checkpoint_id,
        pairs.beside,
        pairs.other_checkpoint_id,
        masks.component_kind,
        half_sets.role,
        half_sets.relation_id,
        half_sets.resample_kind,
        half_sets.resample,
        bit_count(half_sets.members_a & others.members_b & masks.members)
        / nullif(bit_count((half_sets.members_a | others.members_b) & masks.members), 0) as iou_ab,
        bit_count(half_sets.members_b & others.members_a & masks.members)
        / nullif(bit_count((half_sets.members_b | others.members_a) & masks.members), 0) as iou_ba

    from half_sets
    inner join pairs using (measurement)
    inner join half_sets as others
        on pairs.other_measurement = others.measurement and half_sets.set_hash = others.set_hash
    inner join masks on pairs.series_id = masks.series_id

),

-- The splits of the observed facts are averaged; each bootstrap draw has one split of its own.
final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        checkpoint_id,
        beside,
        other_checkpoint_id,
        component_kind,
        role,
        relation_id,
        case resample_kind when 'half' then 0 else resample end as replicate,
        count(*)::integer as split_count,
        {{ stable_mean('iou_ab') }} as iou_ab,
        {{ stable_mean('iou_ba') }} as iou_ba,
        {{ stable_mean('(coalesce(iou_ab, iou_ba) + coalesce(iou_ba, iou_ab)) / 2') }} as iou

    from compared
    group by all

)

select * from final
