{#- A list of texts as SQL literals for `in (...)`; an empty list matches nothing. -#}
{% macro text_literals(texts) -%}
    ({% for text in texts %}{{ text_literal(text) }}{{ ', ' if not loop.last }}{% else %}null{% endfor %})
{%- endmacro %}
