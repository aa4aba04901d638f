-- Every component's checkpoints of the main line are in one spell each.
with

expected as (

    select
        series_id,
        setting_id,
        tau_id,
        histories.component_id,
        histories.primary_role as role,
        count(*) as history_count

    from {{ ref('fct_component_histories') }} as histories
    inner join {{ ref('int_checkpoints') }} as checkpoints using (series_id, setting_id, checkpoint_id)
    where checkpoints.is_main_line
    group by all

),

found as (

    select
        series_id,
        setting_id,
        tau_id,
        component_id,
        role,
        sum(checkpoint_count) as spell_checkpoint_count

    from {{ ref('fct_role_spells') }}
    group by all

)

select *
from expected
full outer join found using (series_id, setting_id, tau_id, component_id, role)
where expected.history_count is distinct from found.spell_checkpoint_count
