with

checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

taus as (

    select
        extraction_id,
        unnest(tau_ids) as tau_id

    from {{ ref('stg_raw__checkpoints') }}

),

-- Contributions exist also where nothing is active: at no τ, or not at this one.
measured_extractions as (

    select extraction_id from {{ ref('int_component_activities') }}
    union
    select extraction_id from {{ ref('int_component_contributions') }}

),

-- A checkpoint that was extracted for its predictions only is skipped here: the one before it and the one after it
-- become neighbours.
measured as (

    select
        checkpoints.*,
        taus.tau_id

    from checkpoints
    inner join measured_extractions using (extraction_id)
    inner join taus using (extraction_id)

),

neighbours as (

    select * from {{ neighbours('measured', ['series_id', 'setting_id', 'tau_id']) }} as linked

),

final as (

    select
        measured.extraction_id,
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        measured.checkpoint_index,
        measured.cumulative_step,
        neighbours.run_id,
        neighbours.previous_run_id,
        neighbours.previous_checkpoint_id,
        last_value(checkpoint_id) over phases as reference_checkpoint_id,
        measured.checkpoint_index = max(measured.checkpoint_index) over settings as is_last

    from measured
    inner join neighbours using (series_id, setting_id, tau_id, checkpoint_id)
    window
        settings as (partition by series_id, setting_id, tau_id),
        phases as (
            partition by series_id, setting_id, tau_id, measured.phase
            order by measured.checkpoint_index
            rows between unbounded preceding and unbounded following
        )

)

select * from final
