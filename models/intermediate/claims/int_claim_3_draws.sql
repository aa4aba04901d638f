-- Answer-related heads turn over most.
with

windows as (

    select *
    from {{ ref('int_claim_windows') }}
    where is_after_transition

),

half_overlaps as (

    select *
    from {{ ref('int_half_overlaps') }}
    where
        component_kind = 'head'
        and role in ('answer', 'general_or_entity')
        and relation_id = ''

),

transitions as (

    select
        series_id,
        setting_id,
        tau_id,
        crosses.theta,
        checkpoint_id,
        crosses.role,
        crosses.replicate,
        case
            when own.iou >= 0.1 and others.iou >= 0.1
                then 1 - crosses.iou / sqrt(own.iou * others.iou)
        end as turnover

    from half_overlaps as crosses
    inner join windows using (series_id, setting_id, tau_id, checkpoint_id)
    inner join half_overlaps as own using (series_id, setting_id, tau_id, theta, checkpoint_id, role, replicate)
    inner join half_overlaps as others
        using (series_id, setting_id, tau_id, theta, role, replicate)
    where
        crosses.beside = 'previous'
        and own.beside = 'same'
        and others.beside = 'same'
        and crosses.other_checkpoint_id = others.checkpoint_id

),

differences as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        checkpoint_id,
        replicate,
        any_value(turnover) filter (where role = 'answer')
        - any_value(turnover) filter (where role = 'general_or_entity') as difference

    from transitions
    group by all

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        3 as claim_number,
        'answer_less_other_turnover' as statistic,
        'main' as variant,
        replicate,
        {{ stable_mean('difference') }} as value,
        count(difference)::integer as unit_count

    from differences
    group by all

)

select * from final
