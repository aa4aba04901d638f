{#-
    Incremental strategy `replace_extractions`: an extraction is immutable, so a row is out of date only when its
    extraction is no longer committed. Rows of such extractions go, rows of the extractions that this build read come;
    dbt runs both in one transaction. An extraction that is read a second time replaces its own rows.
-#}
{% macro get_incremental_replace_extractions_sql(arguments) %}
    {%- set columns = get_quoted_csv(arguments['dest_columns'] | map(attribute='name')) %}
    {%- set committed = build_input('committed_extractions') %}

    delete from {{ arguments['target_relation'] }}
    where
        extraction_id in (select extraction_id from {{ arguments['temp_relation'] }})
        {%- if committed %}
        or extraction_id not in {{ text_literals(committed) }}
        {%- else %}
        or true
        {%- endif %};

    insert into {{ arguments['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arguments['temp_relation'] }}
{% endmacro %}
