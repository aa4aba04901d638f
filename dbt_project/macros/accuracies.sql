{#- How far the facts of a scope are recalled, and how many independent prompts that is worth: aggregates over rows of
    fct_fact_predictions. -#}
{% macro mean_accuracies() -%}
    count(*)::integer as fact_count,
    sum(prompt_count)::integer as prompt_count,
    {%- for name, share in [
        ('top1', 'top1_share'), ('top10', 'top10_share'), ('all_tokens', 'all_tokens_top1_share')
    ] %}
    {{ stable_mean(share) }} as {{ name }}_accuracy,
    {{ effective_n(share, 'prompt_count') }} as {{ name }}_effective_n
    {{- ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{#- The same columns, each accuracy with its Wilson interval. -#}
{% macro accuracies_with_intervals() -%}
    fact_count,
    prompt_count,
    {%- for name in ['top1', 'top10', 'all_tokens'] %}
    {{ name }}_accuracy,
    {{ name }}_effective_n,
    {{ wilson_low(name ~ '_accuracy', 'fact_count', name ~ '_effective_n') }} as {{ name }}_low,
    {{ wilson_high(name ~ '_accuracy', 'fact_count', name ~ '_effective_n') }} as {{ name }}_high
    {{- ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
