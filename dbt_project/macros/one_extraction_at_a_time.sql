{#-
    The rows that `macro` makes from `source`, for the extractions that the incremental model does not hold yet. Each is a
    statement of its own, so that memory is needed for one extraction and not for a whole series. Their rows wait in a
    table that the model drops when it has them (post_hook: drop_batches()).
-#}
{% macro one_extraction_at_a_time(macro, source) -%}
    {%- set batches = model.name ~ '__batches' -%}
    {%- set extractions = [] -%}
    {%- if execute and flags.WHICH in ['build', 'run'] -%}
        {%- set sql -%}
            select distinct extraction_id from {{ source }}
            {% if is_incremental() %}where extraction_id not in (select extraction_id from {{ this }}){% endif %}
            order by extraction_id
        {%- endset -%}
        {%- set extractions = run_query(sql).columns[0].values() -%}
    {%- endif -%}
    {%- for extraction_id in extractions -%}
        {%- set rows = '(select * from ' ~ source ~ ' where extraction_id = ' ~ text_literal(extraction_id) ~ ')' -%}
        {%- do run_query(
            ('create or replace table ' ~ batches ~ ' as ' if loop.first else 'insert into ' ~ batches ~ ' ')
            ~ 'select * from ' ~ macro(rows)
        ) -%}
    {%- endfor -%}
    {%- if extractions %} {{ batches }} {%- else %} ({{ no_rows() }}) {%- endif -%}
{%- endmacro %}

{% macro drop_batches() -%}
    drop table if exists {{ model.name }}__batches
{%- endmacro %}
