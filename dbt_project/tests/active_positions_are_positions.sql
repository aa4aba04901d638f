-- A component is active for at most all of a scope's positions, and in a fact's scope for at least one.
select *
from {{ ref('fct_component_activities') }}
where
    active_count > position_count
    or active_count < 0
    or (scope_kind = 'fact' and active_count = 0)
