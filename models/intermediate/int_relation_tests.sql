-- The label is a fact's relation, exchanged among the facts with as many answer tokens.
with

facts as (

    select
        series_id,
        setting_id,
        fact_id,
        relation_id,
        coalesce(answer_token_count, 0) as answer_token_count

    from {{ ref('int_facts') }}

),

-- A number instead of names, because the active facts are many.
checkpoints as (

    select
        *,
        row_number() over (order by extraction_id, tau_id) as measurement

    from {{ ref('int_measured_checkpoints') }}

),

active_facts as (

    select
        checkpoints.measurement,
        checkpoints.series_id,
        checkpoints.setting_id,
        rates.component_id,
        rates.scope_id as fact_id

    from {{ ref('int_scope_rates') }} as rates
    inner join checkpoints using (extraction_id, tau_id)
    where rates.scope_kind = 'fact' and rates.is_above_theta

),

fact_counts as (

    select
        series_id,
        setting_id,
        relation_id,
        answer_token_count,
        count(*) as drawn_count

    from facts
    group by all

),

strata as (

    select
        *,
        sum(drawn_count) over (partition by series_id, setting_id, answer_token_count) as total_count,
        sum(drawn_count) over (partition by series_id, setting_id, relation_id) as fact_count,
        sum(drawn_count) over (partition by series_id, setting_id) as all_fact_count

    from fact_counts

),

activities as (

    select
        active_facts.measurement,
        active_facts.component_id,
        facts.relation_id,
        facts.answer_token_count,
        count(*) as active_count

    from active_facts
    inner join facts using (series_id, setting_id, fact_id)
    group by all

),

stratum_activities as (

    select
        * exclude (relation_id, active_count),
        sum(active_count) as active_count

    from activities
    group by all

),

relation_activities as (

    select
        * exclude (answer_token_count, active_count),
        sum(active_count) as active_count

    from activities
    group by all

),

compared as (

    select
        *,
        sum(active_count) over components as all_active_count

    from relation_activities
    window components as (partition by measurement, component_id)

),

final as (

    select
        series_id,
        setting_id,
        checkpoints.tau_id,
        checkpoints.checkpoint_id,
        compared.component_id,
        relation_id,
        compared.active_count::integer as active_count,
        strata.fact_count::integer as fact_count,
        (compared.all_active_count - compared.active_count)::integer as other_active_count,
        (strata.all_fact_count - strata.fact_count)::integer as other_fact_count,
        {{ strata('strata.total_count', 'stratum_activities.active_count', 'strata.drawn_count') }} as strata

    from compared
    inner join checkpoints using (measurement)
    inner join strata using (series_id, setting_id, relation_id)
    inner join stratum_activities using (measurement, component_id, answer_token_count)
    group by all

)

select * from final
