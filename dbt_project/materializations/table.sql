{#-
    A table is replaced by one statement in its transaction. The materialization of dbt-duckdb, which this one stands in
    for, builds it under a second name, renames twice and drops the old table, so that readers of the database see a table
    all the while; nobody but one build reads this database, and a build of hundreds of small tables takes half as long
    again that way. The contract is checked with all others: see contracts_hold.
-#}
{% materialization table, adapter='duckdb', supported_languages=['sql'] %}
    {%- set relation = this.incorporate(type='table') %}
    {{- run_hooks(pre_hooks) }}
    {%- call statement('main') -%}
        create or replace table {{ relation }} as
        select {{ model['columns'] | join(', ') if model['columns'] else '*' }} from (
            {{ compiled_code }}
        ) as model
    {%- endcall %}
    {{- run_hooks(post_hooks) }}
    {%- do adapter.commit() %}
    {{- return({'relations': [relation]}) }}
{% endmaterialization %}
