with

role_sets as (

    select * from {{ ref('int_role_sets') }}

),

compared as (

    select
        role_sets.*,
        reference_sets.members as reference_members,
        previous_sets.members as previous_members

    from role_sets
    inner join role_sets as reference_sets
        on
            role_sets.series_id = reference_sets.series_id
            and role_sets.setting_id = reference_sets.setting_id
            and role_sets.tau_id = reference_sets.tau_id
            and role_sets.reference_checkpoint_id = reference_sets.checkpoint_id
            and role_sets.component_kind = reference_sets.component_kind
            and role_sets.role = reference_sets.role
            and role_sets.scope_id = reference_sets.scope_id
    left join role_sets as previous_sets
        on
            role_sets.series_id = previous_sets.series_id
            and role_sets.setting_id = previous_sets.setting_id
            and role_sets.tau_id = previous_sets.tau_id
            and role_sets.previous_checkpoint_id = previous_sets.checkpoint_id
            and role_sets.component_kind = previous_sets.component_kind
            and role_sets.role = previous_sets.role
            and role_sets.scope_id = previous_sets.scope_id

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        scope_id,
        len(members)::integer as member_count,
        len(reference_members)::integer as reference_member_count,
        len(previous_members)::integer as previous_member_count,
        {{ overlap('members', 'reference_members') }} as iou_reference,
        {{ overlap('members', 'previous_members') }} as iou_previous,
        reference_checkpoint_id,
        previous_checkpoint_id

    from compared

)

select * from final
