{#- Mean of fractions, rounded to 1e-9: the digits of a sum of doubles depend on the order in which it is summed. -#}
{% macro stable_mean(expression) -%}
    round(avg({{ expression }}), 9)
{%- endmacro %}
