{#- Intersection over union of two lists of components; null where both are empty. -#}
{% macro overlap(left, right) -%}
    len(list_intersect({{ left }}, {{ right }})) / nullif(len(list_distinct({{ left }} || {{ right }})), 0)
{%- endmacro %}
