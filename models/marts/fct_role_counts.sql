with

histories as (

    select * from {{ ref('fct_component_histories') }}

),

roles as (

    select role
    from {{ ref('int_roles') }}

),

-- General and entity come first in the order of roles, and exclude each other: who holds one has it as primary role.
drawn as (

    select *
    from {{ ref('fct_role_stabilities') }}
    where role in ('general', 'entity')

),

kinds as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        count(*)::integer as kind_count

    from histories
    group by all

),

counted as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        primary_role as role,
        count(*)::integer as component_count,
        count_if(robustness = 'core')::integer as core_count,
        count_if(robustness = 'contingent')::integer as contingent_count,
        count_if(robustness = 'noise')::integer as noise_count,
        {{ stable_mean('confidence') }} as mean_confidence

    from histories
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role,
        kinds.kind_count,
        coalesce(counted.component_count, 0) as component_count,
        drawn.member_count_low as component_count_low,
        drawn.member_count_high as component_count_high,
        coalesce(counted.component_count, 0) / kinds.kind_count as component_share,
        coalesce(counted.core_count, 0) as core_count,
        coalesce(counted.contingent_count, 0) as contingent_count,
        coalesce(counted.noise_count, 0) as noise_count,
        counted.mean_confidence

    from kinds
    cross join roles
    left join counted using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role)
    left join drawn using (series_id, setting_id, tau_id, checkpoint_id, component_kind, role)

)

select * from final
