with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

role_sets as (

    select *
    from {{ ref('int_primary_sets') }}
    where resample_kind = 'observed'

),

final as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        role_sets.theta,
        checkpoints.checkpoint_id,
        numbers.component_id,
        numbers.component_kind,
        case
            when get_bit(role_sets.general, numbers.component_number) = 1 then 'general'
            when get_bit(role_sets.entity, numbers.component_number) = 1 then 'entity'
            when get_bit(role_sets.relation_answer, numbers.component_number) = 1 then 'relation_answer'
            when get_bit(role_sets.fact_answer, numbers.component_number) = 1 then 'fact_answer'
            else 'inactive'
        end as primary_role

    from role_sets
    inner join checkpoints using (extraction_id, tau_id)
    inner join numbers on checkpoints.series_id = numbers.series_id

)

select * from final
