with

histories as (

    select *
    from {{ ref('fct_component_histories') }}
    where previous_checkpoint_id is not null

),

roles as (

    select role
    from {{ ref('int_roles') }}
    where role <> 'inactive'
    union all
    select 'all' as role

),

draws as (

    select *
    from {{ ref('int_resampled_turnovers') }}
    where resample_kind = 'bootstrap'

),

-- Whether the component counts for the role: it holds it before or after; for `all`, it holds any before or after.
role_histories as (

    select
        histories.*,
        roles.role,
        case roles.role
            when 'all' then histories.primary_role <> 'inactive' or histories.previous_primary_role <> 'inactive'
            else roles.role in (histories.primary_role, histories.previous_primary_role)
        end as is_counted

    from histories
    cross join roles

),

counted as (

    select
        series_id,
        setting_id,
        tau_id,
        previous_checkpoint_id as from_checkpoint_id,
        checkpoint_id as to_checkpoint_id,
        component_kind,
        role,
        count_if(is_counted and has_changed)::integer as changed_count,
        count_if(is_counted)::integer as component_count

    from role_histories
    group by all

),

errors as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        component_kind,
        role,
        {{ standard_error('changed_count / nullif(component_count, 0)') }} as error

    from draws
    group by all

),

final as (

    select
        counted.*,
        counted.changed_count / nullif(counted.component_count, 0) as turnover,
        {{ interval_low('turnover', 'errors.error') }} as turnover_low,
        {{ interval_high('turnover', 'errors.error') }} as turnover_high

    from counted
    left join errors
        using (series_id, setting_id, tau_id, from_checkpoint_id, to_checkpoint_id, component_kind, role)

)

select * from final
