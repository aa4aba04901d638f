{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

-- The label is the fact, exchanged among the facts of its relation, within each template on its own.
with

-- Only of the extractions that are new since the last build.
checkpoints as (

    select extraction_id
    from {{ ref('stg_raw__checkpoints') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

prompts as (

    select *
    from {{ ref('stg_raw__prompts') }}
    semi join checkpoints using (extraction_id)

),

active_prompts as (

    select *
    from {{ ref('int_component_activities') }}
    semi join checkpoints using (extraction_id)
    where answer_active_count > 0

),

-- Through fewer than three templates hardly anything can be told.
facts as (

    select
        extraction_id,
        relation_id,
        fact_id,
        string_agg(template_id, ' ' order by template_id) as template_ids

    from prompts
    group by all
    having count(*) >= 3

),

-- Numbers instead of names, because the activities are many.
numbered_facts as (

    select
        *,
        row_number() over (order by extraction_id, fact_id) as fact_number,
        dense_rank() over (order by extraction_id, relation_id, template_ids) as set_number

    from facts

),

numbered_prompts as (

    select
        *,
        dense_rank() over (order by extraction_id, relation_id, template_id) as template_number

    from prompts

),

templates as (

    select
        template_number,
        count(*) as fact_count

    from numbered_prompts
    group by all

),

-- Facts that are asked through the same templates have the same strata.
template_sets as (

    select distinct
        numbered_facts.set_number,
        template_number,
        templates.fact_count

    from numbered_facts
    inner join numbered_prompts using (extraction_id, relation_id, fact_id)
    inner join templates using (template_number)

),

set_sizes as (

    select
        set_number,
        count(*) as template_count,
        sum(fact_count) as prompt_count

    from template_sets
    group by all

),

template_activities as (

    select
        active_prompts.tau_id,
        active_prompts.component_id,
        numbered_prompts.template_number,
        count(*) as active_count

    from active_prompts
    inner join numbered_prompts using (extraction_id, prompt_id)
    semi join template_sets on numbered_prompts.template_number = template_sets.template_number
    group by all

),

set_activities as (

    select
        template_activities.tau_id,
        template_activities.component_id,
        template_sets.set_number,
        sum(template_activities.active_count) as active_count,
        {{ strata('template_sets.fact_count', 'template_activities.active_count', '1') }} as strata

    from template_activities
    inner join template_sets using (template_number)
    group by all

),

fact_activities as (

    select
        active_prompts.tau_id,
        active_prompts.component_id,
        numbered_facts.fact_number,
        count(*) as active_count

    from active_prompts
    inner join numbered_prompts using (extraction_id, prompt_id)
    inner join numbered_facts using (extraction_id, relation_id, fact_id)
    group by all

),

final as (

    select
        numbered_facts.extraction_id,
        tau_id,
        component_id,
        numbered_facts.fact_id,
        numbered_facts.relation_id,
        fact_activities.active_count::integer as active_count,
        set_sizes.template_count::integer as template_count,
        (set_activities.active_count - fact_activities.active_count)::integer as other_active_count,
        (set_sizes.prompt_count - set_sizes.template_count)::integer as other_prompt_count,
        set_activities.strata

    from fact_activities
    inner join numbered_facts using (fact_number)
    inner join set_sizes using (set_number)
    inner join set_activities using (tau_id, component_id, set_number)

)

select * from final
