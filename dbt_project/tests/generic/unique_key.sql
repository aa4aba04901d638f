{#-
    The columns together identify a row, and none of them is null. `new_in` names a table with an extraction_id: then only
    the rows of its extractions are looked at, because those of an incremental model do not change once they are there.
-#}
{% test unique_key(model, columns, new_in=none) %}
    select
        {{ columns | join(', ') }},
        count(*) as row_count
    from {{ model }}
    {%- if new_in %}
    where extraction_id in (select extraction_id from {{ new_in }})
    {%- endif %}
    group by all
    having
        count(*) > 1
        {%- for column in columns %}
        or {{ column }} is null
        {%- endfor %}
{% endtest %}
