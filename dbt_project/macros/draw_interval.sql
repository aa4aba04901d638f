{#-
    Bounds of an interval from bootstrap draws, by default 95 %: the percentiles of the statistic under the draws (Efron
    1979). An aggregate over the draws; rounded, because the digits of a sum of doubles are not the same in every build.
-#}
{% macro draw_low(statistic, confidence=0.95) -%}
    round(quantile_cont({{ statistic }}, {{ ((1 - confidence) / 2) | round(4) }}), 9)
{%- endmacro %}

{% macro draw_high(statistic, confidence=0.95) -%}
    round(quantile_cont({{ statistic }}, {{ ((1 + confidence) / 2) | round(4) }}), 9)
{%- endmacro %}
