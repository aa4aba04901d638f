with

component_roles as (

    select * from {{ ref('int_component_roles') }}

),

rates as (

    select * from {{ ref('int_component_rates') }}

),

compared as (

    select
        *,
        lag(primary_role) over histories as previous_primary_role,
        coalesce(primary_role <> lag(primary_role) over histories, false) as has_changed

    from component_roles
    window histories as (partition by series_id, setting_id, tau_id, branch, component_id order by checkpoint_index)

),

counted as (

    select
        *,
        count_if(has_changed) over histories as change_count

    from compared
    window histories as (partition by series_id, setting_id, tau_id, branch, component_id order by checkpoint_index)

),

-- The checkpoints of one unbroken spell in a role have the same number of changes behind them.
final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        component_kind,
        layer,
        head,
        primary_role,
        previous_primary_role,
        previous_checkpoint_id,
        has_changed,
        first_value(checkpoint_id) over spells as role_since_checkpoint_id,
        first_value(step) over spells as role_since_step,
        change_count::integer as change_count,
        rates.rate_all,
        rates.rate_entity,
        rates.rate_relation_max,
        rates.relation_max_id,
        relation_answer_count,
        fact_answer_count

    from counted
    inner join rates using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    window spells as (
        partition by series_id, setting_id, tau_id, branch, component_id, change_count order by checkpoint_index
    )

)

select * from final
