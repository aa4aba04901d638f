with recursive

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

component_roles as (

    select * from {{ ref('int_component_roles') }}

),

rates as (

    select * from {{ ref('int_component_rates') }}

),

robustness as (

    select * from {{ ref('int_role_robustness') }}

),

runs as (

    select distinct
        series_id,
        setting_id,
        tau_id,
        run_id,
        previous_run_id

    from checkpoints

),

-- A line of descent: a run, the run that it follows, and so on to the first one.
lines as (

    select
        *,
        run_id as line_id

    from runs

    union all

    select
        runs.*,
        lines.line_id

    from lines
    inner join runs
        on
            lines.series_id = runs.series_id
            and lines.setting_id = runs.setting_id
            and lines.tau_id = runs.tau_id
            and lines.previous_run_id = runs.run_id

),

line_roles as (

    select
        component_roles.*,
        run_id,
        checkpoints.cumulative_step,
        lines.line_id

    from component_roles
    inner join checkpoints using (series_id, setting_id, tau_id, checkpoint_id)
    inner join lines using (series_id, setting_id, tau_id, run_id)

),

compared as (

    select
        *,
        lag(primary_role) over histories as previous_primary_role,
        coalesce(primary_role <> lag(primary_role) over histories, false) as has_changed

    from line_roles
    window histories as (partition by series_id, setting_id, tau_id, line_id, component_id order by checkpoint_index)

),

counted as (

    select
        *,
        count_if(has_changed) over histories as change_count

    from compared
    window histories as (partition by series_id, setting_id, tau_id, line_id, component_id order by checkpoint_index)

),

-- The checkpoints of one unbroken spell in a role have the same number of changes behind them.
dated as (

    select
        *,
        first_value(checkpoint_id) over spells as role_since_checkpoint_id,
        first_value(cumulative_step) over spells as role_since_step

    from counted
    window spells as (
        partition by series_id, setting_id, tau_id, line_id, component_id, change_count order by checkpoint_index
    )

),

-- A checkpoint that several lines share is taken from the line that ends with its own run.
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
        role_since_checkpoint_id,
        role_since_step,
        change_count::integer as change_count,
        rates.rate_all,
        rates.rate_entity,
        rates.rate_relation_max,
        rates.relation_max_id,
        relation_answer_count,
        fact_answer_count,
        robustness.confidence,
        robustness.robustness

    from dated
    inner join rates using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    left join robustness using (series_id, setting_id, tau_id, checkpoint_id, component_id)
    where run_id = line_id

)

select * from final
