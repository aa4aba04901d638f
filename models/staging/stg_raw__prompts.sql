with

source as (

    select * from {{ raw_rows('prompts') }}

),

final as (

    select
        extraction_id::varchar as extraction_id,
        prompt_id::integer as prompt_id,
        relation_id::varchar as relation_id,
        relation_group::varchar as relation_group,
        template_id::integer as template_id,
        template::varchar as template,
        fact_id::varchar as fact_id,
        subject::varchar as subject,
        object::varchar as object,
        covariates::varchar as covariates

    from source

)

select * from final
