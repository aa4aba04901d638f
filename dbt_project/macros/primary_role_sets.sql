{#-
    Sets of primary roles, one row per draw, from rows like those of int_resampled_role_sets: of the roles that a component
    holds, the first counts. General and entity exclude the others by themselves.
-#}
{% macro primary_role_sets(role_sets, kinds) -%}
    (
        select
            extraction_id,
            tau_id,
            theta,
            resample_kind,
            resample,
            any_value(members) filter (where role = 'general') as general,
            any_value(members) filter (where role = 'entity') as entity,
            any_value(members) filter (where role = 'relation_answer') as relation_answer,
            any_value(members) filter (where role = 'fact_answer') & ~relation_answer as fact_answer,
            general | entity | relation_answer | fact_answer as active
        from {{ role_sets }}
        where relation_id = '' and resample_kind in {{ text_literals(kinds) }}
        group by all
    )
{%- endmacro %}
