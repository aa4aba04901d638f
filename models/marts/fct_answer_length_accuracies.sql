with

fact_predictions as (

    select * from {{ ref('fct_fact_predictions') }}

),

facts as (

    select * from {{ ref('dim_facts') }}

),

averaged as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        case when facts.answer_token_count < 3 then facts.answer_token_count::varchar else '3+' end as answer_tokens,
        {{ mean_accuracies() }},
        {{ stable_mean('mean_log_prob') }} as mean_log_prob

    from fact_predictions
    inner join facts using (series_id, setting_id, fact_id)
    group by all

),

final as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        answer_tokens,
        {{ accuracies_with_intervals() }},
        mean_log_prob

    from averaged

)

select * from final
