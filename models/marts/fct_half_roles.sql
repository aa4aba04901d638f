with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

-- The first of the splits into halves; without the unions of answer roles over relations.
role_sets as (

    select *
    from {{ ref('int_resampled_role_sets') }}
    where
        resample_kind = 'half'
        and resample = 1
        and theta = {{ var('theta') }}
        and (role in ('general', 'entity')) = (relation_id = '')

),

final as (

    select
        series_id,
        checkpoints.setting_id,
        tau_id,
        role_sets.theta,
        checkpoints.checkpoint_id,
        role_sets.half,
        role_sets.role,
        role_sets.relation_id,
        numbers.component_id,
        numbers.component_kind

    from role_sets
    inner join checkpoints using (extraction_id, tau_id)
    inner join numbers using (series_id)
    where get_bit(role_sets.members, numbers.component_number) = 1

)

select * from final
