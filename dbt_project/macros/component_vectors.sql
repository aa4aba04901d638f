{#-
    What components do for every fact, as lists in the order of the fact set. `activities` has extraction_id, tau_id,
    component_id, prompt_id and counts like those of int_component_activities.
-#}
{% macro component_vectors(activities) -%}
    (
        with

        fact_activities as (

            select
                extraction_id,
                tau_id,
                component_id,
                fact_number,
                sum(active_count / position_count) as prompt_share_sum,
                sum(subject_active_count + answer_active_count) as entity_active_count,
                sum(answer_active_count) as answer_active_count
            from {{ activities }}
            inner join {{ ref('int_prompt_positions') }} using (extraction_id, prompt_id)
            inner join {{ ref('int_fact_positions') }} using (extraction_id, relation_id, fact_id)
            group by all

        ),

        components as (

            select distinct extraction_id, tau_id, component_id from fact_activities

        )

        select
            extraction_id,
            components.tau_id,
            numbers.component_number,
            list(coalesce(prompt_share_sum, 0) order by facts.fact_number)::double[] as prompt_share_sums,
            list(coalesce(entity_active_count, 0) order by facts.fact_number)::double[] as entity_active_counts,
            list(coalesce(fact_activities.answer_active_count, 0) order by facts.fact_number)::double[]
                as answer_active_counts
        from components
        inner join {{ ref('stg_raw__checkpoints') }} as checkpoints using (extraction_id)
        inner join {{ ref('int_component_numbers') }} as numbers using (series_id, component_id)
        inner join {{ ref('int_fact_positions') }} as facts using (extraction_id)
        left join fact_activities using (extraction_id, tau_id, component_id, fact_number)
        group by extraction_id, components.tau_id, numbers.component_number
    )
{%- endmacro %}
