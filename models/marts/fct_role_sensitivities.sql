with

cells as (

    select * from {{ ref('int_role_cells') }}

),

roles as (

    select role
    from {{ ref('int_roles') }}

),

cell_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        checkpoint_id,
        component_kind,
        primary_role as role,
        count(*)::integer as component_count

    from cells
    group by all

),

kinds as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        checkpoint_id,
        component_kind,
        count(*)::integer as kind_count,
        count_if(primary_role <> 'inactive')::integer as active_count

    from cells
    group by all

),

settled as (

    select *
    from cells
    where theta = {{ var('theta') }}

),

-- What holds the role here and under the θ of the settings, at the same τ.
shared as (

    select
        cells.series_id,
        cells.setting_id,
        cells.tau_id,
        cells.theta,
        cells.checkpoint_id,
        cells.component_kind,
        cells.primary_role as role,
        count(*)::integer as shared_count

    from cells
    inner join settled
        on
            cells.series_id = settled.series_id
            and cells.setting_id = settled.setting_id
            and cells.tau_id = settled.tau_id
            and cells.checkpoint_id = settled.checkpoint_id
            and cells.component_id = settled.component_id
            and cells.primary_role = settled.primary_role
    group by all

),

settled_counts as (

    select
        * exclude (theta),
        component_count as settled_count

    from cell_counts
    where theta = {{ var('theta') }}

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        checkpoint_id,
        component_kind,
        role,
        coalesce(cell_counts.component_count, 0) as component_count,
        case
            when role <> 'inactive' then coalesce(cell_counts.component_count, 0) / nullif(kinds.active_count, 0)
        end as share_of_active,
        coalesce(shared.shared_count, 0) / nullif(
            coalesce(cell_counts.component_count, 0)
            + coalesce(settled_counts.settled_count, 0)
            - coalesce(shared.shared_count, 0),
            0
        ) as iou_settled

    from kinds
    cross join roles
    left join cell_counts using (series_id, setting_id, tau_id, theta, checkpoint_id, component_kind, role)
    left join settled_counts using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role)
    left join shared using (series_id, setting_id, tau_id, theta, checkpoint_id, component_kind, role)

)

select * from final
