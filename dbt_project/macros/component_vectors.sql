{#-
    What components do for every fact, as lists in the order of the fact set. `activities` has extraction_id, tau_id,
    component_id, prompt_id and counts like those of int_component_activities. Only components that are active have a row;
    of `measurements` (extraction_id, tau_id) in which none is, component 0 has one, so that draws have their empty sets.
-#}
{% macro component_vectors(activities, measurements=none) -%}
    (
        with

        fact_activities as (

            select
                extraction_id,
                tau_id,
                component_number,
                fact_number,
                sum(active_count / position_count) as prompt_share_sum,
                sum(subject_active_count + answer_active_count) as entity_active_count,
                sum(answer_active_count) as answer_active_count
            from {{ activities }}
            inner join {{ ref('stg_raw__checkpoints') }} using (extraction_id)
            inner join {{ ref('int_component_numbers') }} using (series_id, component_id)
            inner join {{ ref('int_prompt_positions') }} using (extraction_id, prompt_id)
            inner join {{ ref('int_fact_positions') }} using (extraction_id, relation_id, fact_id)
            group by all

        ),

        active_components as (

            select distinct extraction_id, tau_id, component_number from fact_activities

        ),

        components as (

            select * from active_components
            {%- if measurements %}

            union all

            select extraction_id, tau_id, 0 as component_number
            from {{ measurements }}
            anti join active_components using (extraction_id, tau_id)
            {%- endif %}

        )

        select
            extraction_id,
            components.tau_id,
            components.component_number,
            list(coalesce(prompt_share_sum, 0) order by facts.fact_number)::double[] as prompt_share_sums,
            list(coalesce(entity_active_count, 0) order by facts.fact_number)::double[] as entity_active_counts,
            list(coalesce(fact_activities.answer_active_count, 0) order by facts.fact_number)::double[]
                as answer_active_counts
        from components
        inner join {{ ref('int_fact_positions') }} as facts using (extraction_id)
        left join fact_activities using (extraction_id, tau_id, component_number, fact_number)
        group by extraction_id, components.tau_id, components.component_number
    )
{%- endmacro %}
