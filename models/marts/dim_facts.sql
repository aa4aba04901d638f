with

facts as (

    select * from {{ ref('int_facts') }}

),

final as (

    select
        series_id,
        setting_id,
        fact_id,
        relation_id,
        relation_group,
        subject,
        object,
        covariates,
        template_count,
        answer_token_count

    from facts

)

select * from final
