-- Repurposed after the model answers reliably.
with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

main_line as (

    select *
    from {{ ref('int_checkpoints') }}
    where is_main_line

),

measured as (

    select
        series_id,
        setting_id,
        checkpoints.tau_id,
        checkpoints.extraction_id,
        checkpoint_id,
        checkpoints.checkpoint_index = max(checkpoints.checkpoint_index)
            over (partition by series_id, setting_id, checkpoints.tau_id) as is_last

    from checkpoints
    inner join main_line using (series_id, setting_id, checkpoint_id)

),

convergences as (

    select *
    from {{ ref('fct_relation_convergences') }}
    where metric = 'top1' and fact_subset = 'all' and converged_checkpoint_id is not null

),

half_sets as (

    select *
    from {{ ref('int_half_sets') }}
    where role = 'answer' and relation_id <> ''

),

at_convergence as (

    select
        measured.series_id,
        measured.setting_id,
        half_sets.*

    from half_sets
    inner join measured using (extraction_id, tau_id)
    inner join convergences
        on
            measured.series_id = convergences.series_id
            and measured.setting_id = convergences.setting_id
            and measured.checkpoint_id = convergences.converged_checkpoint_id
            and half_sets.relation_id = convergences.relation_id
    where not measured.is_last

),

at_last as (

    select
        measured.series_id,
        measured.setting_id,
        half_sets.*

    from half_sets
    inner join measured using (extraction_id, tau_id)
    where measured.is_last

),

-- Of the components that one half of the facts calls answer-related at convergence, which share does the other not:
-- at convergence, where only noise tells the halves apart, and at the last checkpoint; and at the last alone.
compared as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        relation_id,
        case resample_kind when 'half' then 0 else resample end as replicate,
        (
            {{ missing_share('at_convergence.members_a', 'at_last.members_b') }}
            + {{ missing_share('at_convergence.members_b', 'at_last.members_a') }}
        ) / 2 as across,
        (
            {{ missing_share('at_convergence.members_a', 'at_convergence.members_b') }}
            + {{ missing_share('at_convergence.members_b', 'at_convergence.members_a') }}
            + {{ missing_share('at_last.members_a', 'at_last.members_b') }}
            + {{ missing_share('at_last.members_b', 'at_last.members_a') }}
        ) / 4 as within

    from at_convergence
    inner join at_last using (series_id, setting_id, tau_id, theta, resample_kind, resample, relation_id)

),

relation_means as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        relation_id,
        replicate,
        avg(across - within) as difference

    from compared
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        2 as claim_number,
        'disagreement_across_less_within' as statistic,
        'main' as variant,
        replicate,
        {{ stable_mean('difference') }} as value,
        count(difference)::integer as unit_count

    from relation_means
    group by all

)

select * from final
