{#-
    Mean, summed as decimals and rounded to 1e-9: the last digits of a sum of doubles depend on the order in which it is
    summed, and would decide on which side a tie is rounded.
-#}
{% macro stable_mean(expression) -%}
    round(avg(({{ expression }})::decimal(38, 12)), 9)
{%- endmacro %}
