{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

-- Only of the extractions that are new since the last build.
attributions as (

    select * from {{ ref('stg_raw__attributions') }}

),

target_positions as (

    select *
    from {{ ref('stg_raw__prompt_tokens') }}
    where not is_special

),

-- Scores are summed as decimals: a sum of floats would change its last digits from build to build.
final as (

    select
        extraction_id,
        attributions.tau_id,
        prompt_id,
        attributions.component_id,
        count(*)::integer as active_count,
        count_if(target_positions.span_role = 'subject')::integer as subject_active_count,
        count_if(target_positions.is_answer_predicting)::integer as answer_active_count,
        sum(attributions.score::decimal(18, 9)) as score_sum,
        coalesce(
            sum(attributions.score::decimal(18, 9)) filter (where target_positions.span_role = 'subject'), 0
        ) as subject_score_sum,
        coalesce(
            sum(attributions.score::decimal(18, 9)) filter (where target_positions.is_answer_predicting), 0
        ) as answer_score_sum,
        arg_max(position, (attributions.score, -position)) as top_position,
        max(attributions.score) as top_score

    from attributions
    inner join target_positions using (extraction_id, prompt_id, position)
    group by all

)

select * from final
