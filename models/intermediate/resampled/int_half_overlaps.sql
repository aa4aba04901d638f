with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

masks as (

    select *
    from {{ ref('int_component_masks') }}
    where layer = -1

),

half_sets as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        checkpoints.previous_checkpoint_id,
        checkpoints.reference_checkpoint_id,
        half_sets.* exclude (extraction_id, tau_id)

    from {{ ref('int_half_sets') }} as half_sets
    inner join checkpoints using (extraction_id, tau_id)
    where half_sets.resample_kind = 'half' or half_sets.relation_id = ''

),

-- A checkpoint beside itself, the reference and the one before.
pairs as (

    select
        *,
        unnest(['same', 'reference', 'previous']) as beside,
        unnest([checkpoint_id, reference_checkpoint_id, previous_checkpoint_id]) as other_checkpoint_id

    from half_sets

),

compared as (

    select
        pairs.* exclude (members_a, members_b),
        masks.component_kind,
        bit_count(pairs.members_a & others.members_b & masks.members)
        / nullif(bit_count((pairs.members_a | others.members_b) & masks.members), 0) as iou_ab,
        bit_count(pairs.members_b & others.members_a & masks.members)
        / nullif(bit_count((pairs.members_b | others.members_a) & masks.members), 0) as iou_ba

    from pairs
    inner join half_sets as others
        on
            pairs.series_id = others.series_id
            and pairs.setting_id = others.setting_id
            and pairs.tau_id = others.tau_id
            and pairs.theta = others.theta
            and pairs.other_checkpoint_id = others.checkpoint_id
            and pairs.role = others.role
            and pairs.relation_id = others.relation_id
            and pairs.resample_kind = others.resample_kind
            and pairs.resample = others.resample
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
