{#-
    Exact permutation tests. A stratum has `total_count` units, of which `active_count` are active and `drawn_count`
    carry a label; under the null hypothesis every set of `drawn_count` units is as likely to carry it.
-#}

{#- The strata of one test as a sorted list, so that tests with the same counts are the same test. An aggregate. -#}
{% macro strata(total_count, active_count, drawn_count) -%}
    list_sort(list(struct_pack(
        total_count := {{ total_count }}::integer,
        active_count := {{ active_count }}::integer,
        drawn_count := {{ drawn_count }}::integer
    )))
{%- endmacro %}

{#- Lowest number of active units that can carry the label, in all strata together. -#}
{% macro lowest_count(strata) -%}
    list_sum(list_transform({{ strata }}, lambda stratum: {{ _lowest_count('stratum') }}))::integer
{%- endmacro %}

{#- Probabilities of that number and of each one above it, as a list: the strata are independent. -#}
{% macro count_probabilities(strata) -%}
    list_reduce(
        list_transform({{ strata }}, lambda stratum: {{ _hypergeometric('stratum') }}),
        lambda one, other: {{ _convolution('one', 'other') }}
    )
{%- endmacro %}

{% macro _lowest_count(stratum) -%}
    greatest(0, {{ stratum }}.drawn_count + {{ stratum }}.active_count - {{ stratum }}.total_count)
{%- endmacro %}

{% macro _hypergeometric(stratum) -%}
    {%- set total, active, drawn = stratum ~ '.total_count', stratum ~ '.active_count', stratum ~ '.drawn_count' -%}
    list_transform(
        range({{ _lowest_count(stratum) }}, least({{ drawn }}, {{ active }}) + 1),
        lambda count: exp(
            {{ _log_binomial(active, 'count') }}
            + {{ _log_binomial('(' ~ total ~ ' - ' ~ active ~ ')', '(' ~ drawn ~ ' - count)') }}
            - {{ _log_binomial(total, drawn) }}
        )
    )
{%- endmacro %}

{#- Probabilities of the sum of two independent counts from those of each; all three lists start at the lowest one. -#}
{% macro _convolution(left, right) -%}
    list_transform(
        range(1, len({{ left }}) + len({{ right }})),
        lambda place: list_dot_product(
            {{ left }}[greatest(1, place + 1 - len({{ right }})):least(place, len({{ left }}))],
            list_reverse({{ right }})[
                greatest(1, len({{ right }}) + 1 - place):least(len({{ right }}), len({{ right }}) + len({{ left }}) - place)
            ]
        )
    )
{%- endmacro %}

{#- Two-sided sign test: how probable is a split as uneven as this one, or more so, where either sign is as likely? -#}
{% macro sign_test(raised_count, lowered_count) -%}
    least(1, greatest(1e-12, (
        2 * list_sum(list_transform(
            range(greatest({{ raised_count }}, {{ lowered_count }}), {{ raised_count }} + {{ lowered_count }} + 1),
            lambda count: exp(
                {{ _log_binomial('(' ~ raised_count ~ ' + ' ~ lowered_count ~ ')', 'count') }}
                - ({{ raised_count }} + {{ lowered_count }}) * ln(2)
            )
        ))
    )))::decimal(13, 12)
{%- endmacro %}

{#-
    The q_value of each p_value that a table has within `keys`: Benjamini and Hochberg's adjusted p (1995). There are
    test_count tests in all; those without a row count as p = 1. The p_value is a decimal, so that it can be joined on.
-#}
{% macro adjusted_p_values(table, keys) -%}
    (
        with distinct_p_values as (
            select
                {{ keys | join(', ') }},
                p_value,
                count(*) as row_count,
                any_value(test_count) as test_count
            from {{ table }}
            group by all
        ),

        scaled as (
            select
                *,
                p_value::double * test_count / sum(row_count) over (
                    partition by {{ keys | join(', ') }} order by p_value
                ) as scaled_p_value
            from distinct_p_values
        )

        select
            {{ keys | join(', ') }},
            p_value,
            least(1, min(scaled_p_value) over (
                partition by {{ keys | join(', ') }} order by p_value desc
            ))::double as q_value
        from scaled
    )
{%- endmacro %}

{% macro _log_binomial(of, choose) -%}
    (lgamma({{ of }} + 1) - lgamma({{ choose }} + 1) - lgamma({{ of }} - {{ choose }} + 1))
{%- endmacro %}
