{#-
    Of the active heads, what share is general and what share holds an answer role that is specific, per checkpoint of the
    first and the last ones and draw. `role_sets` are rows like those of int_resampled_role_sets.
-#}
{% macro claim_shares(role_sets) -%}
    (
        with

        primary_sets as (

            select * from {{ primary_role_sets(role_sets, ['observed', 'bootstrap']) }} as primary_sets

        ),

        relation_sets as (

            select *
            from {{ role_sets }}
            where role = 'relation_answer' and relation_id <> '' and resample_kind in ('observed', 'bootstrap')

        ),

        specific_relation_answers as (

            select
                extraction_id,
                tau_id,
                theta,
                resample_kind,
                resample,
                bit_or(relation_sets.members & specific_sets.members) as members
            from relation_sets
            inner join {{ ref('int_specific_sets') }} as specific_sets
                using (extraction_id, tau_id, role, relation_id)
            group by all

        ),

        specific_fact_answers as (

            select extraction_id, tau_id, members
            from {{ ref('int_specific_sets') }}
            where role = 'fact_answer'

        ),

        heads as (

            select series_id, members
            from {{ ref('int_component_masks') }}
            where component_kind = 'head' and layer = -1

        )

        select
            windows.series_id,
            windows.setting_id,
            tau_id,
            theta,
            windows.checkpoint_id,
            windows.is_early,
            windows.is_late,
            resample,
            bit_count(primary_sets.general & heads.members)
            / nullif(bit_count(primary_sets.active & heads.members), 0) as general_share,
            bit_count(
                heads.members & case
                    when facts.members is null and relations.members is null then heads.members & ~heads.members
                    when facts.members is null then relations.members
                    when relations.members is null then primary_sets.fact_answer & facts.members
                    else relations.members | (primary_sets.fact_answer & facts.members)
                end
            ) / nullif(bit_count(primary_sets.active & heads.members), 0) as specific_share
        from primary_sets
        inner join {{ ref('int_claim_windows') }} as windows using (extraction_id, tau_id)
        inner join heads using (series_id)
        left join specific_relation_answers as relations
            using (extraction_id, tau_id, theta, resample_kind, resample)
        left join specific_fact_answers as facts using (extraction_id, tau_id)
        where windows.is_early or windows.is_late
    )
{%- endmacro %}
