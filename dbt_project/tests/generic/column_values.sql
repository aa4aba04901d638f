{#- Each column of `one_of` is null or holds one of the values listed there; each of `shares` is null or in [0, 1]. -#}
{% test column_values(model, one_of={}, shares=[]) %}
    select *
    from {{ model }}
    where
        {%- for column, values in one_of.items() %}
        {{ column }} not in {{ text_literals(values) }} or
        {%- endfor %}
        {%- for column in shares %}
        {{ column }} not between 0 and 1 or
        {%- endfor %}
        false
{% endtest %}
