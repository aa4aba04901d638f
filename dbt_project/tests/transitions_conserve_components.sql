-- A transition moves every component of a kind from one role to one role.
with

moved as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        component_kind,
        sum(component_count) as moved_count,
        count(*) as role_pair_count

    from {{ ref('fct_role_transitions') }}
    group by all

),

components as (

    select
        series_id,
        component_kind,
        count(*) as component_count

    from {{ ref('dim_components') }}
    group by all

)

select
    moved.*,
    components.component_count

from moved
left join components using (series_id, component_kind)
where
    moved.moved_count is distinct from components.component_count
    or moved.role_pair_count <> 25
