{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

primary_sets as (

    select *
    from {{ ref('int_primary_sets') }}
    where
        theta = {{ var('theta') }}
        and resample_kind = 'bootstrap'
        {% if is_incremental() -%}
            and extraction_id not in (select extraction_id from {{ this }})
        {%- endif %}

),

component_numbers as (

    select unnest(range({{ var('component_limit') }}))::integer as component_number

),

counted as (

    select
        extraction_id,
        tau_id,
        component_numbers.component_number,
        count(*) as draw_count,
        sum(get_bit(general, component_numbers.component_number)) as general_count,
        sum(get_bit(entity, component_numbers.component_number)) as entity_count,
        sum(get_bit(relation_answer, component_numbers.component_number)) as relation_answer_count,
        sum(get_bit(fact_answer, component_numbers.component_number)) as fact_answer_count

    from primary_sets
    cross join component_numbers
    group by all

),

shares as (

    select
        extraction_id,
        tau_id,
        component_number,
        unnest(['general', 'entity', 'relation_answer', 'fact_answer', 'inactive']) as role,
        unnest([
            general_count,
            entity_count,
            relation_answer_count,
            fact_answer_count,
            draw_count - general_count - entity_count - relation_answer_count - fact_answer_count
        ]) / draw_count as share

    from counted

),

final as (

    select *
    from shares
    where share > 0

)

select * from final
