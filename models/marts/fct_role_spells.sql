with

histories as (

    select * from {{ ref('fct_component_histories') }}

),

main_line as (

    select
        series_id,
        setting_id,
        measured.tau_id,
        checkpoint_id,
        measured.checkpoint_index,
        measured.cumulative_step

    from {{ ref('int_measured_checkpoints') }} as measured
    inner join {{ ref('int_checkpoints') }} as checkpoints using (series_id, setting_id, checkpoint_id)
    where checkpoints.is_main_line

),

compared as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        histories.component_kind,
        histories.primary_role,
        main_line.checkpoint_index,
        coalesce(histories.primary_role <> lag(histories.primary_role) over component_histories, false) as is_new_role

    from histories
    inner join main_line using (series_id, setting_id, tau_id, checkpoint_id)
    window component_histories as (
        partition by series_id, setting_id, tau_id, component_id
        order by main_line.checkpoint_index
    )

),

-- The checkpoints of one unbroken spell have the same number of changes behind them.
counted as (

    select
        *,
        count_if(is_new_role) over (
            partition by series_id, setting_id, tau_id, component_id
            order by checkpoint_index
        ) as change_count

    from compared

),

spells as (

    select
        series_id,
        setting_id,
        tau_id,
        component_id,
        component_kind,
        primary_role as role,
        arg_min(checkpoint_id, checkpoint_index) as from_checkpoint_id,
        arg_max(checkpoint_id, checkpoint_index) as to_checkpoint_id,
        count(*)::integer as checkpoint_count

    from counted
    group by series_id, setting_id, tau_id, component_id, component_kind, primary_role, change_count

),

ends as (

    select
        *,
        checkpoint_index = min(checkpoint_index) over line as is_first,
        checkpoint_index = max(checkpoint_index) over line as is_last

    from main_line
    window line as (partition by series_id, setting_id, tau_id)

),

final as (

    select
        spells.series_id,
        spells.setting_id,
        spells.tau_id,
        spells.component_id,
        spells.component_kind,
        spells.role,
        spells.from_checkpoint_id,
        spells.to_checkpoint_id,
        firsts.cumulative_step as from_step,
        lasts.cumulative_step as to_step,
        spells.checkpoint_count,
        firsts.is_first as is_left_censored,
        lasts.is_last as is_right_censored

    from spells
    inner join ends as firsts
        on
            spells.series_id = firsts.series_id
            and spells.setting_id = firsts.setting_id
            and spells.tau_id = firsts.tau_id
            and spells.from_checkpoint_id = firsts.checkpoint_id
    inner join ends as lasts
        on
            spells.series_id = lasts.series_id
            and spells.setting_id = lasts.setting_id
            and spells.tau_id = lasts.tau_id
            and spells.to_checkpoint_id = lasts.checkpoint_id

)

select * from final
