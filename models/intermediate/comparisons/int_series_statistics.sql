with

settings as (

    select * from {{ ref('dim_settings') }}

),

accuracies as (

    select *
    from {{ ref('fct_relation_accuracies') }}
    where scope_kind = 'all'

),

role_counts as (

    select *
    from {{ ref('fct_role_sensitivities') }}
    where theta = {{ var('theta') }}

),

memberships as (

    select *
    from {{ ref('fct_role_memberships') }}
    where is_specific

),

component_roles as (

    select * from {{ ref('int_component_roles') }}

),

turnovers as (

    select *
    from {{ ref('fct_turnovers') }}
    where role = 'all'

),

general_sets as (

    select *
    from {{ ref('fct_role_stabilities') }}
    where role = 'general'

),

-- What the model answers does not depend on τ.
predicted as (

    select
        series_id,
        setting_id,
        settings.tau_id,
        accuracies.checkpoint_id,
        'all' as component_kind,
        unnest(['accuracy', 'mean_log_prob']) as statistic,
        unnest([accuracies.top1_accuracy, accuracies.mean_log_prob]) as value,
        unnest([accuracies.top1_low, null]) as value_low,
        unnest([accuracies.top1_high, null]) as value_high

    from accuracies
    inner join settings using (series_id, setting_id)

),

role_shares as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        role || '_share' as statistic,
        share_of_active as value

    from role_counts
    where role <> 'inactive'

),

active_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        sum(component_count)::integer as component_count,
        sum(component_count) filter (where role <> 'inactive')::integer as active_count

    from role_counts
    group by all

),

-- A specific fact_answer counts where no relation_answer comes before it.
specific_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_roles.component_kind,
        count(distinct component_id) as specific_count

    from memberships
    inner join component_roles using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    where memberships.role = component_roles.primary_role
    group by all

),

active_shares as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        unnest(['active_share', 'specific_share']) as statistic,
        unnest([
            active_counts.active_count / active_counts.component_count,
            coalesce(specific_counts.specific_count, 0) / nullif(active_counts.active_count, 0)
        ]) as value

    from active_counts
    left join specific_counts using (series_id, setting_id, tau_id, checkpoint_id, component_kind)

),

turnover_rates as (

    select
        series_id,
        setting_id,
        tau_id,
        to_checkpoint_id as checkpoint_id,
        from_checkpoint_id as since_checkpoint_id,
        component_kind,
        'turnover' as statistic,
        turnover as value,
        turnover_low as value_low,
        turnover_high as value_high

    from turnovers

),

general_overlaps as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        'corrected_overlap' as statistic,
        iou_reference_corrected as value,
        iou_reference_corrected_low as value_low,
        iou_reference_corrected_high as value_high

    from general_sets

),

united as (

    select * from predicted
    union all by name
    select * from role_shares
    union all by name
    select * from active_shares
    union all by name
    select * from turnover_rates
    union all by name
    select * from general_overlaps

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_kind,
        statistic,
        since_checkpoint_id,
        value,
        value_low,
        value_high

    from united
    where value is not null

)

select * from final
