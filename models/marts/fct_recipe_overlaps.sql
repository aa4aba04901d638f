with

series as (

    select * from {{ ref('dim_series') }}

),

checkpoints as (

    select * from {{ ref('dim_checkpoints') }}

),

pairs as (

    select *
    from {{ ref('dim_series_pairs') }}
    where is_comparable

),

component_roles as (

    select * from {{ ref('int_component_roles') }}

),

roles as (

    select role
    from {{ ref('int_roles') }}
    where role <> 'inactive'
    union all
    select 'all' as role

),

-- Checkpoints at one place in the training of two runs of one recipe. `is not distinct from`: names that state no step
-- are ends.
checkpoint_pairs as (

    select
        pairs.series_id,
        pairs.setting_id,
        pairs.tau_id,
        ones.checkpoint_id,
        pairs.other_series_id,
        others.checkpoint_id as other_checkpoint_id

    from pairs
    inner join series as one_series on pairs.series_id = one_series.series_id
    inner join series as other_series
        on pairs.other_series_id = other_series.series_id and one_series.recipe_id = other_series.recipe_id
    inner join checkpoints as ones on pairs.series_id = ones.series_id and pairs.setting_id = ones.setting_id
    inner join checkpoints as others
        on
            pairs.other_series_id = others.series_id
            and pairs.other_setting_id = others.setting_id
            and ones.architecture = others.architecture
            and ones.phase = others.phase
            and ones.branch = others.branch
            and ones.stage is not distinct from others.stage
            and ones.step is not distinct from others.step
    where pairs.series_id <> pairs.other_series_id

),

-- Whether the component holds the role, once over all relations and facts; for `all`, whether it holds any. What counts
-- for the difference of primary roles is what counts for a turnover.
compared as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        checkpoint_pairs.other_series_id,
        checkpoint_pairs.other_checkpoint_id,
        ones.component_kind,
        roles.role,
        case roles.role when 'all' then len(ones.roles) > 0 else list_contains(ones.roles, roles.role) end as is_held,
        case roles.role when 'all' then len(others.roles) > 0 else list_contains(others.roles, roles.role) end
            as is_held_by_other,
        case roles.role
            when 'all' then is_held or is_held_by_other
            else roles.role in (ones.primary_role, others.primary_role)
        end as is_counted,
        ones.primary_role <> others.primary_role as differs

    from checkpoint_pairs
    inner join component_roles as ones using (series_id, setting_id, tau_id, checkpoint_id)
    inner join component_roles as others
        on
            checkpoint_pairs.other_series_id = others.series_id
            and checkpoint_pairs.setting_id = others.setting_id
            and checkpoint_pairs.tau_id = others.tau_id
            and checkpoint_pairs.other_checkpoint_id = others.checkpoint_id
            and ones.component_id = others.component_id
    cross join roles

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        other_series_id,
        other_checkpoint_id,
        component_kind,
        role,
        count_if(is_held)::integer as member_count,
        count_if(is_held_by_other)::integer as other_member_count,
        count_if(is_held and is_held_by_other) / nullif(count_if(is_held or is_held_by_other), 0) as iou,
        count_if(is_counted and differs)::integer as differing_count,
        count_if(is_counted)::integer as component_count,
        count_if(is_counted and differs) / nullif(count_if(is_counted), 0) as differing_share

    from compared
    group by series_id, setting_id, tau_id, checkpoint_id, other_series_id, other_checkpoint_id, component_kind, role

)

select * from final
