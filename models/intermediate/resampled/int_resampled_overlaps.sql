with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

masks as (

    select *
    from {{ ref('int_component_masks') }}
    where layer = -1

),

role_sets as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        checkpoints.previous_checkpoint_id,
        checkpoints.reference_checkpoint_id,
        masks.component_kind,
        role_sets.role,
        role_sets.relation_id,
        role_sets.resample,
        role_sets.members & masks.members as members

    from {{ ref('int_resampled_role_sets') }} as role_sets
    inner join checkpoints using (extraction_id, tau_id)
    inner join masks on checkpoints.series_id = masks.series_id
    where role_sets.theta = {{ var('theta') }} and role_sets.resample_kind = 'bootstrap'

),

-- General and entity are sets of the whole model, relation_answer is one per relation; fact_answer is never drawn.
compared_sets as (

    select *
    from role_sets
    where (role in ('general', 'entity')) or (role = 'relation_answer' and relation_id <> '')

),

final as (

    select
        one.series_id,
        one.setting_id,
        one.tau_id,
        one.checkpoint_id,
        one.component_kind,
        one.role,
        one.relation_id,
        one.resample,
        bit_count(one.members)::integer as member_count,
        bit_count(one.members & of_reference.members)
        / nullif(bit_count(one.members | of_reference.members), 0) as iou_reference,
        bit_count(one.members & of_previous.members)
        / nullif(bit_count(one.members | of_previous.members), 0) as iou_previous

    from compared_sets as one
    inner join compared_sets as of_reference
        on
            one.series_id = of_reference.series_id
            and one.setting_id = of_reference.setting_id
            and one.tau_id = of_reference.tau_id
            and one.reference_checkpoint_id = of_reference.checkpoint_id
            and one.component_kind = of_reference.component_kind
            and one.role = of_reference.role
            and one.relation_id = of_reference.relation_id
            and one.resample = of_reference.resample
    left join compared_sets as of_previous
        on
            one.series_id = of_previous.series_id
            and one.setting_id = of_previous.setting_id
            and one.tau_id = of_previous.tau_id
            and one.previous_checkpoint_id = of_previous.checkpoint_id
            and one.component_kind = of_previous.component_kind
            and one.role = of_previous.role
            and one.relation_id = of_previous.relation_id
            and one.resample = of_previous.resample

)

select * from final
