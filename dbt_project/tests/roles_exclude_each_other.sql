-- General excludes every other role, entity the answer roles, and relation_answer the fact_answer of its own relation.
with

memberships as (

    select * from {{ ref('fct_role_memberships') }}

)

select
    stronger.*,
    weaker.role as excluded_role,
    weaker.scope_id as excluded_scope_id

from memberships as stronger
inner join memberships as weaker using (series_id, setting_id, tau_id, checkpoint_id, component_id)
where
    (stronger.role = 'general' and weaker.role <> 'general')
    or (stronger.role = 'entity' and weaker.role in ('relation_answer', 'fact_answer'))
    or (
        stronger.role = 'relation_answer'
        and weaker.role = 'fact_answer'
        and stronger.relation_id = weaker.relation_id
    )
