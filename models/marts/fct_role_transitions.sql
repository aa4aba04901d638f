with

histories as (

    select *
    from {{ ref('fct_component_histories') }}
    where previous_checkpoint_id is not null

),

roles as (

    select * from {{ ref('int_roles') }}

),

-- Every pair of roles has a row, also where no component goes that way.
moves as (

    select
        histories.series_id,
        histories.setting_id,
        histories.tau_id,
        histories.previous_checkpoint_id as from_checkpoint_id,
        histories.checkpoint_id as to_checkpoint_id,
        histories.component_kind,
        from_roles.role as from_role,
        to_roles.role as to_role,
        count_if(histories.previous_primary_role = from_roles.role and histories.primary_role = to_roles.role)::integer
            as component_count

    from histories
    cross join roles as from_roles
    cross join roles as to_roles
    group by all

),

final as (

    select
        *,
        component_count / nullif(sum(component_count) over from_role_moves, 0) as share

    from moves
    window from_role_moves as (
        partition by series_id, setting_id, tau_id, to_checkpoint_id, component_kind, from_role
    )

)

select * from final
