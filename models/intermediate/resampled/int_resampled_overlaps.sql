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
        role_sets.role,
        role_sets.relation_id,
        hash(role_sets.role, role_sets.relation_id) as set_hash,
        role_sets.resample,
        role_sets.members

    from {{ ref('int_resampled_role_sets') }} as role_sets
    inner join checkpoints using (extraction_id, tau_id)
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
        role_sets.role,
        role_sets.relation_id,
        role_sets.resample,
        role_sets.members,
        of_reference.members as reference_members,
        of_previous.members as previous_members

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

final as (

    select
        series_id,
        compared.setting_id,
        compared.tau_id,
        compared.checkpoint_id,
        masks.component_kind,
        compared.role,
        compared.relation_id,
        compared.resample,
        bit_count(compared.members & masks.members)::integer as member_count,
        bit_count(compared.members & compared.reference_members & masks.members)
        / nullif(bit_count((compared.members | compared.reference_members) & masks.members), 0) as iou_reference,
        bit_count(compared.members & compared.previous_members & masks.members)
        / nullif(bit_count((compared.members | compared.previous_members) & masks.members), 0) as iou_previous

    from compared
    inner join masks using (series_id)

)

select * from final
