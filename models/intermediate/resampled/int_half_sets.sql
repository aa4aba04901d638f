{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

role_sets as (

    select *
    from {{ ref('int_resampled_role_sets') }}
    where
        half <> ''
        {% if is_incremental() -%}
            and extraction_id not in (select extraction_id from {{ this }})
        {%- endif %}

),

-- General and entity together, and the answer roles together: what holds them is one question of two claims.
united_sets as (

    select
        extraction_id,
        tau_id,
        theta,
        resample_kind,
        resample,
        half,
        case when role in ('general', 'entity') then 'general_or_entity' else 'answer' end as role,
        relation_id,
        bit_or(members) as members

    from role_sets
    group by all

),

all_sets as (

    select *
    from role_sets
    where resample_kind = 'half' and theta = {{ var('theta') }}
    union all by name
    select * from united_sets

),

final as (

    select
        extraction_id,
        tau_id,
        theta,
        resample_kind,
        resample,
        role,
        relation_id,
        any_value(members) filter (where half = 'A') as members_a,
        any_value(members) filter (where half = 'B') as members_b

    from all_sets
    group by all

)

select * from final
