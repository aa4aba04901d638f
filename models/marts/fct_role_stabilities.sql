with

role_sets as (

    select * from {{ ref('int_role_sets') }}

),

memberships as (

    select * from {{ ref('fct_role_memberships') }}

),

overlap_draws as (

    select * from {{ ref('int_resampled_overlaps') }}

),

chance_overlaps as (

    select * from {{ ref('int_chance_overlaps') }}

),

half_overlaps as (

    select *
    from {{ ref('int_half_overlaps') }}
    where theta = {{ var('theta') }} and replicate = 0

),

expected_counts as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        expected_counts.component_kind,
        'relation_answer' as role,
        expected_counts.relation_id,
        expected_counts.expected_count

    from {{ ref('int_expected_role_counts') }} as expected_counts
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints using (extraction_id, tau_id)
    where expected_counts.relation_id <> ''

),

rarefied_counts as (

    select * from {{ ref('int_rarefied_counts') }}

),

compared as (

    select
        role_sets.*,
        case when role_sets.role in ('general', 'entity') then '' else role_sets.scope_id end as relation_id,
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

set_overlaps as (

    select
        *,
        len(members)::integer as member_count,
        {{ overlap('members', 'reference_members') }} as iou_reference,
        {{ overlap('members', 'previous_members') }} as iou_previous

    from compared

),

specific_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        relation_id,
        count(distinct component_id) filter (where is_specific)::integer as specific_count,
        bool_or(is_specific is not null) as is_tested

    from memberships
    where relation_id is not null
    group by all

),

errors as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        relation_id,
        {{ standard_error('member_count') }} as member_count_error,
        {{ standard_error('iou_reference') }} as iou_reference_error,
        {{ standard_error('iou_previous') }} as iou_previous_error

    from overlap_draws
    group by all

),

-- One row per set: its overlap by chance, with either checkpoint, and between halves of the facts.
chances as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        relation_id,
        any_value(iou_chance) filter (where beside = 'reference') as iou_reference_chance,
        any_value(iou_max) filter (where beside = 'reference') as iou_reference_max,
        any_value(iou_chance) filter (where beside = 'previous') as iou_previous_chance,
        any_value(iou_max) filter (where beside = 'previous') as iou_previous_max

    from chance_overlaps
    group by all

),

-- Both assignments of the halves are corrected, and averaged; not where halves of one checkpoint hardly agree.
noise_corrected as (

    select
        crosses.series_id,
        crosses.setting_id,
        crosses.tau_id,
        crosses.checkpoint_id,
        crosses.component_kind,
        crosses.role,
        crosses.relation_id,
        any_value(own.iou) as iou_noise_floor,
        any_value(case when own.iou >= 0.1 and others.iou >= 0.1 then crosses.iou / sqrt(own.iou * others.iou) end)
        filter (where crosses.beside = 'reference') as iou_reference_noise_corrected,
        any_value(case when own.iou >= 0.1 and others.iou >= 0.1 then crosses.iou / sqrt(own.iou * others.iou) end)
        filter (where crosses.beside = 'previous') as iou_previous_noise_corrected

    from half_overlaps as crosses
    inner join half_overlaps as own
        on
            crosses.series_id = own.series_id
            and crosses.setting_id = own.setting_id
            and crosses.tau_id = own.tau_id
            and crosses.checkpoint_id = own.checkpoint_id
            and crosses.component_kind = own.component_kind
            and crosses.role = own.role
            and crosses.relation_id = own.relation_id
            and own.beside = 'same'
    inner join half_overlaps as others
        on
            crosses.series_id = others.series_id
            and crosses.setting_id = others.setting_id
            and crosses.tau_id = others.tau_id
            and crosses.other_checkpoint_id = others.checkpoint_id
            and crosses.component_kind = others.component_kind
            and crosses.role = others.role
            and crosses.relation_id = others.relation_id
            and others.beside = 'same'
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        set_overlaps.scope_id,
        set_overlaps.member_count,
        {{ interval_low('set_overlaps.member_count', 'errors.member_count_error') }} as member_count_low,
        {{ interval_high('set_overlaps.member_count', 'errors.member_count_error', highest=none) }}
            as member_count_high,
        case
            when coalesce(specific_counts.is_tested, true) and role = 'relation_answer'
                then coalesce(specific_counts.specific_count, 0)
            when specific_counts.is_tested then specific_counts.specific_count
        end as specific_count,
        expected_counts.expected_count,
        rarefied_counts.rarefied_count,
        len(set_overlaps.reference_members)::integer as reference_member_count,
        len(set_overlaps.previous_members)::integer as previous_member_count,
        set_overlaps.iou_reference,
        {{ interval_low('set_overlaps.iou_reference', 'errors.iou_reference_error') }} as iou_reference_low,
        {{ interval_high('set_overlaps.iou_reference', 'errors.iou_reference_error') }} as iou_reference_high,
        chances.iou_reference_chance,
        case
            when checkpoint_id <> set_overlaps.reference_checkpoint_id
                then
                    {{ chance_corrected(
                        'set_overlaps.iou_reference', 'chances.iou_reference_chance', 'chances.iou_reference_max'
                    ) }}
        end as iou_reference_corrected,
        case
            when checkpoint_id <> set_overlaps.reference_checkpoint_id
                then
                    {{ chance_corrected(
                        'iou_reference_low', 'chances.iou_reference_chance', 'chances.iou_reference_max'
                    ) }}
        end as iou_reference_corrected_low,
        case
            when checkpoint_id <> set_overlaps.reference_checkpoint_id
                then
                    {{ chance_corrected(
                        'iou_reference_high', 'chances.iou_reference_chance', 'chances.iou_reference_max'
                    ) }}
        end as iou_reference_corrected_high,
        noise_corrected.iou_noise_floor,
        case
            when checkpoint_id <> set_overlaps.reference_checkpoint_id
                then noise_corrected.iou_reference_noise_corrected
        end as iou_reference_noise_corrected,
        set_overlaps.iou_previous,
        {{ interval_low('set_overlaps.iou_previous', 'errors.iou_previous_error') }} as iou_previous_low,
        {{ interval_high('set_overlaps.iou_previous', 'errors.iou_previous_error') }} as iou_previous_high,
        chances.iou_previous_chance,
        {{ chance_corrected('set_overlaps.iou_previous', 'chances.iou_previous_chance', 'chances.iou_previous_max') }}
            as iou_previous_corrected,
        noise_corrected.iou_previous_noise_corrected,
        set_overlaps.reference_checkpoint_id,
        set_overlaps.previous_checkpoint_id

    from set_overlaps
    left join specific_counts
        using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)
    left join expected_counts
        using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)
    left join rarefied_counts
        using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)
    left join errors using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)
    left join chances using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)
    left join noise_corrected using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role, relation_id)

)

select * from final
