with

components as (

    select * from {{ ref('dim_components') }}

),

facts as (

    select * from {{ ref('int_facts') }}

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

relation_tests as (

    select * from {{ ref('int_relation_tests') }}

),

fact_tests as (

    select * from {{ ref('int_fact_tests') }}

),

exact_tests as (

    select * from {{ ref('int_exact_tests') }}

),

tests as (

    select
        * exclude (fact_count, other_fact_count),
        'relation_answer' as role,
        'relation' as scope_kind,
        relation_id as scope_id,
        fact_count as total_count,
        other_fact_count as other_total_count

    from relation_tests
    union all by name
    select
        * exclude (fact_id, template_count, other_prompt_count),
        'fact_answer' as role,
        'fact' as scope_kind,
        fact_id as scope_id,
        template_count as total_count,
        other_prompt_count as other_total_count

    from fact_tests

),

kinds as (

    select
        series_id,
        component_kind,
        count(*) as component_count

    from components
    group by all

),

scopes as (

    select
        series_id,
        setting_id,
        count(distinct relation_id) as relation_count,
        count_if(template_count >= 3) as fact_count

    from facts
    group by all

),

-- How many tests there are: of every component of the kind in every scope, active or not.
tested as (

    select
        tests.* exclude (extraction_id),
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.checkpoint_id,
        components.component_kind,
        exact_tests.p_value,
        kinds.component_count
        * case tests.scope_kind when 'relation' then scopes.relation_count else scopes.fact_count end as test_count

    from tests
    inner join checkpoints using (extraction_id, tau_id)
    inner join exact_tests using (strata, active_count)
    inner join components using (series_id, component_id)
    inner join kinds using (series_id, component_kind)
    inner join scopes using (series_id, setting_id)

),

adjusted as (

    select *
    from {{ adjusted_p_values(
        'tested', ['series_id', 'setting_id', 'tau_id', 'checkpoint_id', 'component_kind', 'scope_kind']
    ) }} as adjusted_p_values

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        tested.component_id,
        scope_kind,
        tested.scope_id,
        tested.role,
        component_kind,
        tested.relation_id,
        tested.active_count,
        tested.total_count,
        tested.other_active_count,
        tested.other_total_count,
        tested.active_count / tested.total_count
        - tested.other_active_count / nullif(tested.other_total_count, 0) as rate_difference,
        p_value::double as p_value,
        adjusted.q_value,
        adjusted.q_value <= 0.05 as is_specific

    from tested
    inner join adjusted
        using (series_id, setting_id, tau_id, checkpoint_id, component_kind, scope_kind, p_value)

)

select * from final
