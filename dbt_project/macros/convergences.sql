{#-
    Where an isotonic fit reaches 0.9 of its last value, without the fit itself. One row of `suffixes` per point: how many
    facts, and how many of them known, at it and all later points; `keys` are the columns of one series of points.

    The last value is the largest mean of a suffix; and the points whose fit is c or more are the suffix with the largest
    sum of weight × (accuracy − c) (Robertson, Wright and Dykstra 1988). fct_relation_convergences compares values rounded
    to 8 places: 5e-9 less, where no mean of facts lies, so that no two suffixes have the same sum.
-#}
{% macro convergences(suffixes, keys) -%}
    (
        with

        fits as (

            select
                {{ keys }},
                majority_share,
                min(point) as first_point,
                max(point) as last_point,
                max(known_from_here / facts_from_here) as final_fit
            from {{ suffixes }}
            group by all

        ),

        reached as (

            select
                {{ keys }},
                fits.majority_share,
                first_point,
                last_point,
                final_fit,
                arg_max(point, known_from_here - (0.9 * final_fit - 5e-9) * facts_from_here) as reached_point
            from {{ suffixes }}
            inner join fits using ({{ keys }})
            group by all

        )

        select
            {{ keys }},
            {{ censoring_of('final_fit', 'majority_share', 'reached_point', 'first_point', 'last_point') }} as censoring,
            case when censoring <> 'right' then reached_point end as converged_point
        from reached
    )
{%- endmacro %}

{% macro censoring_of(final_fit, majority_share, reached_point, first_point, last_point) -%}
    case
        when round({{ final_fit }} - {{ majority_share }}, 8) <= 0 then 'right'
        when {{ reached_point }} = {{ last_point }} then 'right'
        when {{ reached_point }} = {{ first_point }} then 'left'
        else 'none'
    end
{%- endmacro %}
