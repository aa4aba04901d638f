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

-- Numbers instead of names, because there are a million rows to compare.
pairs as (

    select
        checkpoints.*,
        of_reference.measurement as reference_measurement,
        of_previous.measurement as previous_measurement

    from checkpoints
    inner join checkpoints as of_reference
        on
            checkpoints.series_id = of_reference.series_id
            and checkpoints.setting_id = of_reference.setting_id
            and checkpoints.tau_id = of_reference.tau_id
            and checkpoints.reference_checkpoint_id = of_reference.checkpoint_id
    left join checkpoints as of_previous
        on
            checkpoints.series_id = of_previous.series_id
            and checkpoints.setting_id = of_previous.setting_id
            and checkpoints.tau_id = of_previous.tau_id
            and checkpoints.previous_checkpoint_id = of_previous.checkpoint_id

),

-- General and entity are sets of the whole model, relation_answer is one per relation; fact_answer is never drawn.
role_sets as (

    select
        checkpoints.measurement,
        masks.component_kind,
        role_sets.role,
        role_sets.relation_id,
        hash(masks.component_kind, role_sets.role, role_sets.relation_id) as set_hash,
        role_sets.resample,
        role_sets.members & masks.members as members,
        bit_count(role_sets.members & masks.members)::integer as member_count

    from {{ ref('int_resampled_role_sets') }} as role_sets
    inner join checkpoints using (extraction_id, tau_id)
    inner join masks using (series_id)
    where
        role_sets.theta = {{ var('theta') }}
        and role_sets.resample_kind = 'bootstrap'
        and (
            role_sets.role in ('general', 'entity')
            or (role_sets.role = 'relation_answer' and role_sets.relation_id <> '')
        )

),

compared as (

    select
        pairs.series_id,
        pairs.setting_id,
        pairs.tau_id,
        pairs.checkpoint_id,
        role_sets.component_kind,
        role_sets.role,
        role_sets.relation_id,
        role_sets.resample,
        role_sets.member_count,
        of_reference.member_count as reference_count,
        of_previous.member_count as previous_count,
        bit_count(role_sets.members & of_reference.members) as with_reference,
        bit_count(role_sets.members & of_previous.members) as with_previous

    from role_sets
    inner join pairs using (measurement)
    inner join role_sets as of_reference
        on
            pairs.reference_measurement = of_reference.measurement
            and role_sets.set_hash = of_reference.set_hash
            and role_sets.resample = of_reference.resample
    left join role_sets as of_previous
        on
            pairs.previous_measurement = of_previous.measurement
            and role_sets.set_hash = of_previous.set_hash
            and role_sets.resample = of_previous.resample

),

-- A union has as many members as both sets, less those that they share.
final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        relation_id,
        resample,
        member_count,
        with_reference / nullif(member_count + reference_count - with_reference, 0) as iou_reference,
        with_previous / nullif(member_count + previous_count - with_previous, 0) as iou_previous

    from compared

)

select * from final
