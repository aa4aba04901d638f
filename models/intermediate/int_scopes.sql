with

prompt_scopes as (

    select * from {{ ref('int_prompt_scopes') }}

),

final as (

    select
        extraction_id,
        scope_kind,
        scope_id,
        relation_id,
        sum(position_count)::bigint as position_count,
        count(*)::integer as prompt_count,
        count(distinct fact_id)::integer as fact_count

    from prompt_scopes
    group by all

)

select * from final
