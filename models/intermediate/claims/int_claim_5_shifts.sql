-- If names converged δ later than locations, how often would the labels give a difference as small as the observed one?
-- Moving every name back by δ moves a relabelled difference by δ times how far its names are those observed.
with

steps as (

    select * from {{ ref('int_claim_5_steps') }}

),

draws as (

    select *
    from {{ ref('int_claim_5_labels') }}
    where fact_subset = 'all'

),

moved as (

    select
        draws.series_id,
        draws.setting_id,
        draws.replicate,
        avg(steps.log_step - 0.5 * steps.is_name::integer) filter (where draws.is_name)
        - avg(steps.log_step - 0.5 * steps.is_name::integer) filter (where not draws.is_name) as difference

    from draws
    inner join steps using (series_id, setting_id, fact_subset, place)
    group by all

),

observed as (

    select
        series_id,
        setting_id,
        difference as observed_difference

    from moved
    where replicate = 0

),

final as (

    select
        series_id,
        setting_id,
        'log2_step_name_less_location' as statistic,
        avg((difference <= observed_difference + 1e-9)::integer) as shifted_p_value

    from moved
    inner join observed using (series_id, setting_id)
    group by all

)

select * from final
