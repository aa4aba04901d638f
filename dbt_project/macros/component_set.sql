{#- Components as a set of bits, from their numbers. An aggregate; sets of all models in the lake have one length. -#}
{% macro component_set(component_number) -%}
    bitstring_agg({{ component_number }}, 0, {{ var('component_limit') - 1 }})
{%- endmacro %}
