{#-
    Bounds of the Wilson score interval, 95 %, for a share of n independent trials (here: facts, since the prompts and
    positions of one fact are not independent). `effective_n`, where it is given, takes the place of n in the bounds.
    Null where n < 2. Wilson 1927; z = 1.959963984540054.
-#}
{% macro wilson_low(share, n, effective_n=none) -%}
    case when {{ n }} >= 2 then greatest(0, {{ _wilson_bound(share, effective_n or n, '-') }}) end
{%- endmacro %}

{% macro wilson_high(share, n, effective_n=none) -%}
    case when {{ n }} >= 2 then least(1, {{ _wilson_bound(share, effective_n or n, '+') }}) end
{%- endmacro %}

{% macro _wilson_bound(share, n, sign) -%}
    {%- set z = '1.959963984540054::double' -%}
    (
        {{ share }} + {{ z }} * {{ z }} / (2 * {{ n }})
        {{ sign }} {{ z }} * sqrt({{ share }} * (1 - {{ share }}) / {{ n }} + {{ z }} * {{ z }} / (4 * {{ n }} * {{ n }}))
    ) / (1 + {{ z }} * {{ z }} / {{ n }})
{%- endmacro %}

{#-
    How many independent trials a mean over facts of their prompts' shares is worth: n · a(1 - a) / s², with s² the
    sample variance of the facts' shares, at least the facts and at most the prompts. Facts whose prompts all agree give
    the facts; so does a mean of 0 or 1, which says nothing about the variance. An aggregate.
-#}
{% macro effective_n(share, prompt_count) -%}
    case
        when round(avg({{ share }}), 9) in (0, 1) or coalesce(round(var_samp({{ share }}), 9), 0) = 0
            then count(*)::double
        else round(
            greatest(count(*), least(
                sum({{ prompt_count }}),
                count(*) * round(avg({{ share }}), 9) * (1 - round(avg({{ share }}), 9))
                / round(var_samp({{ share }}), 9)
            )),
            6
        )
    end
{%- endmacro %}
