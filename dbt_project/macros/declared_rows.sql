{#-
    The rows of `declared_series` or `declared_checkpoints`, which timecourse/build.py leaves in the build database: what
    the series' sources offered. No rows while parsing, and in a database that build.py did not make (unit tests).
-#}
{% macro declared_rows(table) -%}
    {%- if execute and adapter.get_relation(target.database, target.schema, table) -%}
    {{ adapter.quote(table) }}
    {%- else -%}
    ({{ no_rows() }})
    {%- endif -%}
{%- endmacro %}
