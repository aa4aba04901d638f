{#-
    Intervals from bootstrap draws: the estimate, more or less z standard errors, where the standard error is the
    statistic's deviation over the draws. Not the percentiles: roles under a draw are noisier than the observed ones, so
    that turnovers lie above and overlaps below the estimate (measured in docs/statistics.md).
-#}

{#- An aggregate over draws; rounded, because the digits of a sum of doubles are not the same in every build. -#}
{% macro standard_error(statistic) -%}
    round(stddev_samp({{ statistic }}), 9)
{%- endmacro %}

{#- 95 % bounds; null where there is no estimate or no error. -#}
{% macro interval_low(estimate, error, lowest=0) -%}
    case when {{ estimate }} is not null and {{ error }} is not null
        then round(greatest({{ lowest }}, {{ estimate }} - 1.959963984540054 * {{ error }}), 9) end
{%- endmacro %}

{% macro interval_high(estimate, error, highest=1) -%}
    case when {{ estimate }} is not null and {{ error }} is not null
        then round(
            {%- if highest is none %} {{ estimate }} + 1.959963984540054 * {{ error }}
            {%- else %} least({{ highest }}, {{ estimate }} + 1.959963984540054 * {{ error }})
            {%- endif %}, 9) end
{%- endmacro %}
