{#- Of the members of one set of bits, the share that another one lacks; null where the first is empty. -#}
{% macro missing_share(members, other_members) -%}
    bit_count({{ members }} & ~{{ other_members }}) / nullif(bit_count({{ members }}), 0)
{%- endmacro %}
