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

active_facts as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        scope_id as fact_id

    from {{ ref('int_scope_rates') }}
    where scope_kind = 'fact' and is_above_theta

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
        series_id,
        setting_id,
        active_facts.tau_id,
        active_facts.checkpoint_id,
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
    window components as (partition by series_id, setting_id, tau_id, checkpoint_id, component_id)

),

final as (

    select
        series_id,
        setting_id,
        compared.tau_id,
        compared.checkpoint_id,
        compared.component_id,
        relation_id,
        compared.active_count::integer as active_count,
        strata.fact_count::integer as fact_count,
        (compared.all_active_count - compared.active_count)::integer as other_active_count,
        (strata.all_fact_count - strata.fact_count)::integer as other_fact_count,
        {{ strata('strata.total_count', 'stratum_activities.active_count', 'strata.drawn_count') }} as strata

    from compared
    inner join strata using (series_id, setting_id, relation_id)
    inner join stratum_activities
        using (series_id, setting_id, tau_id, checkpoint_id, component_id, answer_token_count)
    group by all

)

select * from final
