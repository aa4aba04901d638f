{#-
    Bounds of the Wilson score interval, 95 %, for a share of n independent trials (here: facts, since the prompts and
    positions of one fact are not independent). Null where n < 2. Wilson 1927; z = 1.959963984540054.
-#}
{% macro wilson_low(share, n) -%}
    case when {{ n }} >= 2 then greatest(0, {{ _wilson_bound(share, n, '-') }}) end
{%- endmacro %}

{% macro wilson_high(share, n) -%}
    case when {{ n }} >= 2 then least(1, {{ _wilson_bound(share, n, '+') }}) end
{%- endmacro %}

{% macro _wilson_bound(share, n, sign) -%}
    {%- set z = '1.959963984540054::double' -%}
    (
        {{ share }} + {{ z }} * {{ z }} / (2 * {{ n }})
        {{ sign }} {{ z }} * sqrt({{ share }} * (1 - {{ share }}) / {{ n }} + {{ z }} * {{ z }} / (4 * {{ n }} * {{ n }}))
    ) / (1 + {{ z }} * {{ z }} / {{ n }})
{%- endmacro %}
