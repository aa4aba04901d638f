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
        masks.component_kind,
        half_sets.* exclude (extraction_id, tau_id, members_a, members_b),
        hash(component_kind, theta, resample_kind, resample, role, relation_id) as set_hash,
        half_sets.members_a & masks.members as members_a,
        half_sets.members_b & masks.members as members_b,
        bit_count(half_sets.members_a & masks.members) as count_a,
        bit_count(half_sets.members_b & masks.members) as count_b

    from {{ ref('int_half_sets') }} as half_sets
    inner join checkpoints using (extraction_id, tau_id)
    inner join masks using (series_id)
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
        half_sets.component_kind,
        half_sets.role,
        half_sets.relation_id,
        half_sets.resample_kind,
        half_sets.resample,
        half_sets.count_a + others.count_b as count_ab,
        half_sets.count_b + others.count_a as count_ba,
        bit_count(half_sets.members_a & others.members_b) as shared_ab,
        bit_count(half_sets.members_b & others.members_a) as shared_ba

    from half_sets
    inner join pairs using (measurement)
    inner join half_sets as others
        on pairs.other_measurement = others.measurement and half_sets.set_hash = others.set_hash

),

-- A union has as many members as both sets, less those that they share.
set_overlaps as (

    select
        *,
        shared_ab / nullif(count_ab - shared_ab, 0) as iou_ab,
        shared_ba / nullif(count_ba - shared_ba, 0) as iou_ba

    from compared

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

    from set_overlaps
    group by all

)

select * from final
