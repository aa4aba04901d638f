{#- The query on a release that gives a claim's statistic again, with its interval or its p. -#}
{% macro claim_query() -%}
    'select max(value) filter (where replicate = 0) as estimate, '
    || case claim_number
        when 5
            then
                'avg((value >= (select value from fct_claim_draws where replicate = 0 and variant = ''main'''
                || {{ _claim_filter() }} || ') - 1e-9)::integer) as p_value'
        else
            'estimate - {{ z_99() }} * round(stddev_samp(value) filter (where replicate > 0), 9) as estimate_low, '
            || 'estimate + {{ z_99() }} * round(stddev_samp(value) filter (where replicate > 0), 9) as estimate_high'
    end
    || ' from fct_claim_draws where variant = ''main''' || {{ _claim_filter() }}
{%- endmacro %}

{% macro _claim_filter() -%}
    ' and theta = {{ var('theta') }} and statistic = ''' || statistic || ''' and series_id = '''
    || replace(series_id, '''', '''''') || ''' and setting_id = ''' || replace(setting_id, '''', '''''')
    || ''' and tau_id = ''' || replace(tau_id, '''', '''''') || ''''
{%- endmacro %}

{#- Of the standard normal distribution, 99 % lie within this. -#}
{% macro z_99() -%} 2.5758293035489004 {%- endmacro %}
