-- Every component at every checkpoint that has attributions, at every τ.
with

expected as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.tau_id,
        checkpoints.checkpoint_id,
        components.component_id

    from {{ ref('int_measured_checkpoints') }} as checkpoints
    inner join {{ ref('dim_components') }} as components using (series_id)

)

select expected.*
from expected
anti join {{ ref('fct_component_histories') }} as histories
    using (series_id, setting_id, tau_id, checkpoint_id, component_id)
