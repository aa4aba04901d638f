{#- Each of the columns is null or lies in [0, 1]. -#}
{% test shares(model, columns) %}
    select *
    from {{ model }}
    where
        {%- for column in columns %}
        {{ column }} not between 0 and 1{{ ' or' if not loop.last }}
        {%- endfor %}
{% endtest %}
