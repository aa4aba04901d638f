{#-
    The rows of one raw table, from exactly the files that the build input `raw_files` lists: no patterns, because a
    pattern also sees what was never committed. Files of one schema version have the same columns; a column that a
    later version added is null in the rows of earlier ones. Without files, no rows, with the model's own columns.
-#}
{% macro raw_rows(table) -%}
    {%- set files_by_version = (build_input('raw_files') or {}).get(table, {}) -%}
    (
    {%- for version, files in files_by_version | dictsort %}
        {% if not loop.first %}union all by name{% endif %}
        select * from read_parquet([
            {%- for file in files %}
            {{ text_literal(file) }}{{ ',' if not loop.last }}
            {%- endfor %}
        ], hive_partitioning = false)
    {%- else %}
        {{ no_rows() }}
    {%- endfor %}
    )
{%- endmacro %}
