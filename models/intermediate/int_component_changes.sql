{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail'
    )
}}

with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

-- Numbers instead of names, because the activities are many.
prompts as (

    select
        *,
        dense_rank() over (order by extraction_id) as extraction_number,
        dense_rank() over (order by fact_id) as fact_number

    from {{ ref('int_prompt_positions') }}

),

facts as (

    select
        extraction_id,
        extraction_number,
        fact_number,
        count(*) as prompt_count,
        sum(answer_position_count)::bigint as answer_position_count

    from prompts
    group by all

),

-- Only those that are new since the last build.
transitions as (

    select
        checkpoints.tau_id,
        previous.extraction_id as from_extraction_id,
        checkpoints.extraction_id as to_extraction_id,
        row_number() over (order by checkpoints.tau_id, checkpoints.extraction_id) as transition_number

    from checkpoints
    inner join checkpoints as previous
        on
            checkpoints.series_id = previous.series_id
            and checkpoints.setting_id = previous.setting_id
            and checkpoints.tau_id = previous.tau_id
            and checkpoints.previous_checkpoint_id = previous.checkpoint_id
    {% if is_incremental() -%}
        anti join {{ this }} as known
            on
                checkpoints.extraction_id = known.extraction_id
                and previous.extraction_id = known.from_extraction_id
    {%- endif %}

),

-- One end of a transition counts +1, the other -1.
ends as (

    select
        transition_number,
        tau_id,
        to_extraction_id as extraction_id,
        1 as sign

    from transitions
    union all
    select
        transition_number,
        tau_id,
        from_extraction_id as extraction_id,
        -1 as sign

    from transitions

),

activities as (

    select *
    from {{ ref('int_component_activities') }}
    semi join ends using (extraction_id, tau_id)

),

fact_activities as (

    select
        activities.tau_id,
        activities.component_id,
        prompts.extraction_number,
        prompts.fact_number,
        sum(activities.active_count / prompts.position_count) as share_sum,
        sum(activities.answer_active_count)::bigint as answer_active_count

    from activities
    inner join prompts using (extraction_id, prompt_id)
    group by all

),

-- In whole billionths: two sums of the same fractions must be equal.
rates as (

    select
        fact_activities.tau_id,
        facts.extraction_id,
        fact_activities.component_id,
        fact_number,
        round(1e9 * fact_activities.share_sum / facts.prompt_count)::bigint as rate_all,
        coalesce(round(1e9 * fact_activities.answer_active_count / facts.answer_position_count), 0)::bigint
            as rate_answer

    from fact_activities
    inner join facts using (extraction_number, fact_number)

),

-- What is active at one end only has a rate of 0 at the other.
changes as (

    select
        ends.transition_number,
        rates.component_id,
        rates.fact_number,
        sum(ends.sign * rates.rate_all)::bigint as change_all,
        sum(ends.sign * rates.rate_answer)::bigint as change_answer

    from rates
    inner join ends using (extraction_id, tau_id)
    group by all

),

component_changes as (

    select
        transition_number,
        component_id,
        'all' as scope_kind,
        count_if(change_all > 0)::integer as raised_count,
        count_if(change_all < 0)::integer as lowered_count,
        sum(change_all) as change_sum

    from changes
    group by all
    union all
    select
        transition_number,
        component_id,
        'answer' as scope_kind,
        count_if(change_answer > 0)::integer as raised_count,
        count_if(change_answer < 0)::integer as lowered_count,
        sum(change_answer) as change_sum

    from changes
    group by all

),

final as (

    select
        transitions.to_extraction_id as extraction_id,
        transitions.from_extraction_id,
        transitions.tau_id,
        component_changes.component_id,
        component_changes.scope_kind,
        component_changes.raised_count,
        component_changes.lowered_count,
        component_changes.change_sum

    from component_changes
    inner join transitions using (transition_number)

)

select * from final
