with

activities as (

    select * from {{ ref('int_scope_activities') }}

),

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

scopes as (

    select * from {{ ref('int_scopes') }}

),

-- In the scope `all` every prompt counts the same, whatever its length; in the others every position does.
rated as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        activities.component_id,
        scope_kind,
        scope_id,
        scopes.relation_id,
        activities.active_count,
        scopes.position_count,
        scopes.prompt_count,
        scopes.fact_count,
        case scope_kind
            when 'all' then round(activities.prompt_share_sum / scopes.prompt_count, 9)
            else activities.active_count / scopes.position_count
        end as rate,
        activities.score_sum

    from activities
    inner join checkpoints using (extraction_id, tau_id)
    inner join scopes using (extraction_id, scope_kind, scope_id)

),

-- Strictly greater, with integers and decimals, so that no rounding decides a role.
final as (

    select
        *,
        case scope_kind
            when 'all' then rate::decimal(18, 9) > {{ var('theta') }}
            else active_count > {{ var('theta') }} * position_count
        end as is_above_theta

    from rated

)

select * from final
