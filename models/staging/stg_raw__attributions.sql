with

source as (

    select * from {{ raw_rows('attributions') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        tau_id::varchar as tau_id,
        prompt_id::integer as prompt_id,
        position::integer as position,
        component_id::varchar as component_id,
        score::float as score,
        peak::float as peak,
        edges::integer as edges,
        score_direct::float as score_direct,
        score_subject::float as score_subject,
        score_answer::float as score_answer,
        score_template::float as score_template,
        score_first::float as score_first

    from source

)

select * from final
