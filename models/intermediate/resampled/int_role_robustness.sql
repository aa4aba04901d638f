with

cells as (

    select * from {{ ref('int_role_cells') }}

),

confidences as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        numbers.component_id,
        confidences.role as primary_role,
        confidences.share as confidence

    from {{ ref('int_role_confidences') }} as confidences
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints using (extraction_id, tau_id)
    inner join {{ ref('int_component_numbers') }} as numbers using (series_id, component_number)

),

settled as (

    select *
    from cells
    where theta = {{ var('theta') }}

),

-- In how many cells of the grid θ × τ the component has the primary role that it has in this one.
agreements as (

    select
        settled.series_id,
        settled.setting_id,
        settled.tau_id,
        settled.checkpoint_id,
        settled.component_id,
        settled.primary_role,
        count(*)::integer as cell_count,
        count_if(cells.primary_role = settled.primary_role)::integer as agreeing_cell_count

    from settled
    inner join cells using (series_id, setting_id, checkpoint_id, component_id)
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        component_id,
        coalesce(confidences.confidence, 0) as confidence,
        agreements.cell_count,
        agreements.agreeing_cell_count,
        case
            when coalesce(confidences.confidence, 0) < 0.5 then 'noise'
            when agreements.agreeing_cell_count = agreements.cell_count then 'core'
            else 'contingent'
        end as robustness

    from agreements
    left join confidences using (series_id, setting_id, tau_id, checkpoint_id, component_id, primary_role)

)

select * from final
