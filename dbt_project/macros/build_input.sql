{#-
    One of the inputs that timecourse/build.py leaves in the table `build_inputs` before a build, as JSON: `raw_files` and
    `committed_extractions`. They change with every checkpoint; as dbt variables they would make dbt parse every model
    anew each time. None while parsing, and in a database that build.py did not make (unit tests).
-#}
{% macro build_input(name) -%}
    {%- if execute and adapter.get_relation(target.database, target.schema, 'build_inputs') -%}
        {%- set found = run_query("select value from build_inputs where name = '" ~ name ~ "'") -%}
        {{- return(fromjson(found.columns[0].values()[0])) -}}
    {%- endif -%}
    {{- return(none) -}}
{%- endmacro %}
