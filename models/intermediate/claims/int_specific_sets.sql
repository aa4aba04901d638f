with

specificities as (

    select *
    from {{ ref('fct_role_specificities') }}
    where is_specific

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

-- A component whose fact_answer is specific for any fact counts once, whatever the relation.
final as (

    select
        checkpoints.extraction_id,
        tau_id,
        specificities.role,
        case specificities.role when 'relation_answer' then specificities.relation_id else '' end as relation_id,
        {{ component_set('distinct numbers.component_number') }} as members

    from specificities
    inner join checkpoints using (series_id, setting_id, tau_id, checkpoint_id)
    inner join numbers using (series_id, component_id)
    group by all

)

select * from final
