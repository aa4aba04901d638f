with

last_checkpoints as (

    select *
    from {{ ref('int_measured_checkpoints') }}
    where is_last

),

components as (

    select * from {{ ref('dim_components') }}

),

activities as (

    select * from {{ ref('int_component_activities') }}

),

prompts as (

    select * from {{ ref('stg_raw__prompts') }}

),

target_tokens as (

    select *
    from {{ ref('stg_raw__prompt_tokens') }}
    where not is_special

),

ranked as (

    select
        *,
        row_number() over (
            partition by extraction_id, tau_id, component_id order by top_score desc, prompt_id asc
        )::integer as example_rank

    from activities
    inner join last_checkpoints using (extraction_id, tau_id)
    qualify example_rank <= 5

),

texts as (

    select
        ranked.extraction_id,
        ranked.tau_id,
        ranked.component_id,
        ranked.prompt_id,
        coalesce(string_agg(token, '' order by position) filter (where position < top_position), '')
            as sentence_before,
        any_value(token) filter (where position = top_position) as token,
        coalesce(string_agg(token, '' order by position) filter (where position > top_position), '') as sentence_after

    from ranked
    inner join target_tokens using (extraction_id, prompt_id)
    group by all

),

final as (

    select
        series_id,
        ranked.setting_id,
        tau_id,
        component_id,
        ranked.example_rank,
        components.component_kind,
        ranked.checkpoint_id,
        prompt_id,
        ranked.top_position as position,
        prompts.relation_id,
        prompts.fact_id,
        prompts.subject,
        prompts.object,
        texts.token,
        texts.sentence_before,
        texts.sentence_after,
        ranked.top_score::double as score

    from ranked
    inner join texts using (extraction_id, tau_id, component_id, prompt_id)
    inner join prompts using (extraction_id, prompt_id)
    inner join components using (series_id, component_id)

)

select * from final
