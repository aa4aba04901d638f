with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

components as (

    select * from {{ ref('dim_components') }}

),

prompts as (

    select * from {{ ref('int_prompt_positions') }}

),

-- Changes of what were neighbours at an earlier build stay behind; only those of neighbours count.
component_changes as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        previous.checkpoint_id as from_checkpoint_id,
        checkpoints.checkpoint_id as to_checkpoint_id,
        changes.*

    from {{ ref('int_component_changes') }} as changes
    inner join checkpoints using (extraction_id, tau_id)
    inner join checkpoints as previous
        on
            changes.from_extraction_id = previous.extraction_id
            and changes.tau_id = previous.tau_id
            and checkpoints.series_id = previous.series_id
            and checkpoints.setting_id = previous.setting_id
            and checkpoints.previous_checkpoint_id = previous.checkpoint_id

),

-- Many components share their counts: each test is computed once.
splits as (

    select distinct
        raised_count,
        lowered_count

    from component_changes
    where raised_count + lowered_count > 0

),

sign_tests as (

    select
        raised_count,
        lowered_count,
        {{ sign_test('raised_count', 'lowered_count') }} as p_value

    from splits

),

kinds as (

    select
        series_id,
        component_kind,
        count(*) as test_count

    from components
    group by all

),

fact_counts as (

    select
        extraction_id,
        count(distinct fact_id) as fact_count

    from prompts
    group by all

),

tested as (

    select
        series_id,
        component_changes.setting_id,
        component_changes.tau_id,
        component_changes.from_checkpoint_id,
        component_changes.to_checkpoint_id,
        component_id,
        component_changes.scope_kind,
        component_kind,
        raised_count as raised_fact_count,
        lowered_count as lowered_fact_count,
        fact_counts.fact_count::integer as fact_count,
        round((component_changes.change_sum / fact_counts.fact_count / 1e9)::double, 9) as mean_change,
        sign_tests.p_value,
        kinds.test_count

    from component_changes
    inner join sign_tests using (raised_count, lowered_count)
    inner join fact_counts using (extraction_id)
    inner join components using (series_id, component_id)
    inner join kinds using (series_id, component_kind)

),

adjusted as (

    select *
    from {{ adjusted_p_values(
        'tested',
        ['series_id', 'setting_id', 'tau_id', 'from_checkpoint_id', 'to_checkpoint_id', 'component_kind', 'scope_kind']
    ) }} as adjusted_p_values

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        tested.component_id,
        scope_kind,
        component_kind,
        tested.raised_fact_count,
        tested.lowered_fact_count,
        tested.fact_count,
        tested.mean_change,
        p_value::double as p_value,
        adjusted.q_value,
        adjusted.q_value <= 0.05 as is_significant

    from tested
    inner join adjusted
        using (
            series_id, setting_id, tau_id, from_checkpoint_id, to_checkpoint_id, component_kind, scope_kind, p_value
        )

)

select * from final
