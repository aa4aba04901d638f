{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

-- The label is a fact's relation, exchanged among the facts with as many answer tokens.
with

-- Only of the extractions that are new since the last build.
checkpoints as (

    select extraction_id
    from {{ ref('stg_raw__checkpoints') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

facts as (

    select
        extraction_id,
        relation_id,
        fact_id,
        max(answer_position_count) as answer_token_count

    from {{ ref('int_prompt_positions') }}
    semi join checkpoints using (extraction_id)
    group by all

),

active_facts as (

    select *
    from {{ ref('int_scope_rates') }}
    semi join checkpoints using (extraction_id)
    where scope_kind = 'fact' and is_above_theta

),

fact_counts as (

    select
        extraction_id,
        relation_id,
        answer_token_count,
        count(*) as drawn_count

    from facts
    group by all

),

strata as (

    select
        *,
        sum(drawn_count) over (partition by extraction_id, answer_token_count) as total_count,
        sum(drawn_count) over (partition by extraction_id, relation_id) as fact_count,
        sum(drawn_count) over (partition by extraction_id) as all_fact_count

    from fact_counts

),

activities as (

    select
        active_facts.extraction_id,
        active_facts.tau_id,
        active_facts.component_id,
        facts.relation_id,
        facts.answer_token_count,
        count(*) as active_count

    from active_facts
    inner join facts
        on active_facts.extraction_id = facts.extraction_id and active_facts.scope_id = facts.fact_id
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
    window components as (partition by extraction_id, tau_id, component_id)

),

final as (

    select
        extraction_id,
        tau_id,
        component_id,
        relation_id,
        compared.active_count::integer as active_count,
        strata.fact_count::integer as fact_count,
        (compared.all_active_count - compared.active_count)::integer as other_active_count,
        (strata.all_fact_count - strata.fact_count)::integer as other_fact_count,
        {{ strata('strata.total_count', 'stratum_activities.active_count', 'strata.drawn_count') }} as strata

    from compared
    inner join strata using (extraction_id, relation_id)
    inner join stratum_activities using (extraction_id, tau_id, component_id, answer_token_count)
    group by all

)

select * from final
