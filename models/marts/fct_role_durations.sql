-- Kaplan and Meier's estimate; its variance by Greenwood's formula, its interval on the scale of log(-log(share))
-- (Kalbfleisch and Prentice, The Statistical Analysis of Failure Time Data, section 1.4), which stays between 0 and 1.
with

spells as (

    select * from {{ ref('fct_role_spells') }}

),

totals as (

    select
        series_id,
        setting_id,
        tau_id,
        component_kind,
        role,
        count(*)::integer as spell_count,
        count_if(is_left_censored)::integer as left_censored_count,
        count_if(is_right_censored)::integer as right_censored_count

    from spells
    group by all

),

-- A spell that begins at the first checkpoint may have begun before: how long it lasted is not known.
durations as (

    select
        series_id,
        setting_id,
        tau_id,
        component_kind,
        role,
        checkpoint_count as duration,
        count_if(not is_right_censored)::integer as ended_count,
        count_if(is_right_censored)::integer as censored_count

    from spells
    where not is_left_censored
    group by all

),

-- A spell that is still lasting at the last checkpoint is at risk for as long as it was seen.
exposed as (

    select
        *,
        (sum(ended_count + censored_count) over (
            partition by series_id, setting_id, tau_id, component_kind, role
            order by duration desc
        ))::integer as at_risk_count

    from durations

),

estimated as (

    select
        *,
        product(1 - ended_count / at_risk_count) over shorter as lasting_share,
        sum(ended_count / nullif(at_risk_count * (at_risk_count - ended_count)::double, 0)) over shorter
            as relative_variance

    from exposed
    window shorter as (partition by series_id, setting_id, tau_id, component_kind, role order by duration)

),

-- Undefined where no spell has ended yet (the logarithm is 0) and where all have.
scaled as (

    select
        *,
        case
            when lasting_share > 0 and lasting_share < 1
                then exp(1.959963984540054::double * sqrt(relative_variance) / -ln(lasting_share))
        end as factor

    from estimated

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        component_kind,
        role,
        duration,
        at_risk_count,
        ended_count,
        censored_count,
        round(lasting_share, 9) as lasting_share,
        round(pow(lasting_share, factor), 9) as lasting_share_low,
        round(pow(lasting_share, 1 / factor), 9) as lasting_share_high,
        totals.spell_count,
        totals.left_censored_count,
        totals.right_censored_count

    from scaled
    inner join totals using (series_id, setting_id, tau_id, component_kind, role)

)

select * from final
