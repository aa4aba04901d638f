-- Location before name. The relation is the unit: each relabelling says which relations are called `name`.
with

steps as (

    select * from {{ ref('int_claim_5_steps') }}

),

labels as (

    select * from {{ ref('int_claim_5_labels') }}

),

settings as (

    select distinct
        series_id,
        setting_id,
        tau_id

    from {{ ref('dim_settings') }}

),

final as (

    select
        series_id,
        setting_id,
        settings.tau_id,
        {{ var('theta') }}::decimal(12, 9) as theta,
        5 as claim_number,
        'log2_step_name_less_location' as statistic,
        case fact_subset when 'all' then 'main' else fact_subset end as variant,
        labels.replicate,
        round(
            avg(steps.log_step) filter (where labels.is_name) - avg(steps.log_step) filter (where not labels.is_name), 9
        ) as value,
        count(*)::integer as unit_count

    from labels
    inner join steps using (series_id, setting_id, fact_subset, place)
    inner join settings using (series_id, setting_id)
    group by all

)

select * from final
