with

convergences as (

    select *
    from {{ ref('fct_relation_convergences') }}
    where metric = 'top1' and fact_subset = 'all' and converged_checkpoint_id is not null

),

checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

measured as (

    select * from {{ ref('int_measured_checkpoints') }}

),

memberships as (

    select * from {{ ref('fct_role_memberships') }}

),

histories as (

    select * from {{ ref('fct_component_histories') }}

),

main_line as (

    select
        series_id,
        setting_id,
        measured.tau_id,
        checkpoint_id,
        measured.checkpoint_index

    from measured
    inner join checkpoints using (series_id, setting_id, checkpoint_id)
    where checkpoints.is_main_line

),

last_checkpoints as (

    select
        series_id,
        setting_id,
        tau_id,
        arg_max(checkpoint_id, checkpoint_index) as last_checkpoint_id

    from main_line
    group by all

),

-- The converged checkpoint; where it has no attributions, the first after it that has.
starts as (

    select
        series_id,
        setting_id,
        main_line.tau_id,
        convergences.relation_id,
        arg_min(main_line.checkpoint_id, main_line.checkpoint_index) as checkpoint_id

    from convergences
    inner join checkpoints as converged
        using (series_id, setting_id)
    inner join main_line using (series_id, setting_id)
    where
        convergences.converged_checkpoint_id = converged.checkpoint_id
        and main_line.checkpoint_index >= converged.checkpoint_index
    group by all

),

-- A component can hold relation_answer of the relation or fact_answer of its facts, never both.
answer_roles as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        relation_id,
        component_id,
        component_kind,
        max(role) as role

    from memberships
    where role in ('relation_answer', 'fact_answer')
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        relation_id,
        component_id,
        held.component_kind,
        checkpoint_id,
        last_checkpoints.last_checkpoint_id,
        held.role as role_at_convergence,
        then_held.primary_role as primary_role_at_convergence,
        at_last.primary_role as primary_role_at_last,
        last_held.role is not null as is_answer_related_at_last,
        last_held.role is null and at_last.primary_role <> 'inactive' as is_repurposed,
        at_last.primary_role = 'inactive' as is_dropped

    from starts
    inner join last_checkpoints using (series_id, setting_id, tau_id)
    inner join answer_roles as held using (series_id, setting_id, tau_id, checkpoint_id, relation_id)
    inner join histories as then_held using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    inner join histories as at_last
        on
            starts.series_id = at_last.series_id
            and starts.setting_id = at_last.setting_id
            and starts.tau_id = at_last.tau_id
            and last_checkpoints.last_checkpoint_id = at_last.checkpoint_id
            and held.component_id = at_last.component_id
    left join answer_roles as last_held
        on
            starts.series_id = last_held.series_id
            and starts.setting_id = last_held.setting_id
            and starts.tau_id = last_held.tau_id
            and starts.relation_id = last_held.relation_id
            and last_checkpoints.last_checkpoint_id = last_held.checkpoint_id
            and held.component_id = last_held.component_id

)

select * from final
