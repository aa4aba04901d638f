{#- No rows, with the model's own columns: where there is nothing to read. -#}
{% macro no_rows() -%}
    select
        {%- for column in model.columns.values() %}
        null::{{ column.data_type }} as {{ column.name }}{{ ',' if not loop.last }}
        {%- else %}
        null as not_known_while_parsing
        {%- endfor %}
    where false
{%- endmacro %}
