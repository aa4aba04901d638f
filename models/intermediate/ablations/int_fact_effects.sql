-- Each fact is scored by the set that the other half of the facts gave; which half that is, the ablation itself says.
with

facts as (

    select * from {{ ref('int_ablated_facts') }}

),

sets as (

    select
        *,
        case set_kind when 'role' then 0 else random_index + 1 end as set_index

    from {{ ref('int_ablation_sets') }}
    where set_kind in ('role', 'random')

),

-- An answer role's set counts here on its own relation's facts only.
scored as (

    select
        extraction_id,
        sets.tau_id,
        sets.theta,
        facts.method,
        sets.role,
        facts.relation_id,
        facts.fact_number,
        sets.set_index,
        facts.effect,
        facts.template_effect,
        facts.rank_change

    from facts
    inner join sets using (extraction_id, set_id)
    where sets.relation_id in ('', facts.relation_id)

),

role_sets as (

    select *
    from scored
    where set_index = 0

),

final as (

    select *
    from scored
    semi join role_sets using (extraction_id, tau_id, theta, method, role, fact_number)

)

select * from final
