with

-- Every fact counts in the whole and in its relation.
fact_effects as (

    select
        * exclude (relation_id),
        unnest(['all', 'relation']) as scope_kind,
        unnest(['all', relation_id]) as scope_id

    from {{ ref('int_fact_effects') }}

),

set_effects as (

    select
        extraction_id,
        tau_id,
        theta,
        method,
        role,
        scope_kind,
        scope_id,
        set_index,
        count(*)::integer as fact_count,
        {{ stable_mean('effect') }} as effect,
        {{ standard_error('effect') }} / sqrt(fact_count) as error,
        {{ stable_mean('template_effect') }} as template_effect,
        {{ stable_mean('rank_change') }} as mean_rank_change

    from fact_effects
    group by all

),

role_effects as (

    select *
    from set_effects
    where set_index = 0

),

-- A random set counts where it was scored on every fact that the role's was: sets of the same number for both halves,
-- and for all relations, are one random effect.
random_effects as (

    select
        set_effects.*,
        role_effects.effect as role_effect

    from set_effects
    inner join role_effects
        using (extraction_id, tau_id, theta, method, role, scope_kind, scope_id, fact_count)
    where set_effects.set_index > 0

),

random_distributions as (

    select
        extraction_id,
        tau_id,
        theta,
        method,
        role,
        scope_kind,
        scope_id,
        count(*)::integer as random_count,
        {{ stable_mean('effect') }} as random_mean,
        min(effect) as random_low,
        max(effect) as random_high,
        {{ standard_error('effect') }} / sqrt(random_count) as random_error,
        ((1 + count_if(effect <= role_effect)) / (1 + random_count))::decimal(13, 12) as p_value,
        {{ stable_mean('template_effect') }} as random_template_mean,
        {{ stable_mean('mean_rank_change') }} as random_mean_rank_change

    from random_effects
    group by all

),

random_fact_means as (

    select
        extraction_id,
        tau_id,
        theta,
        method,
        role,
        scope_kind,
        scope_id,
        fact_effects.fact_number,
        {{ stable_mean('fact_effects.effect') }} as effect

    from fact_effects
    semi join random_effects
        using (extraction_id, tau_id, theta, method, role, scope_kind, scope_id, set_index)
    group by all

),

-- How much the facts differ in what the role's set does beyond the random ones.
excess_errors as (

    select
        extraction_id,
        tau_id,
        theta,
        method,
        role,
        scope_kind,
        scope_id,
        {{ standard_error('fact_effects.effect - random_fact_means.effect') }} / sqrt(count(*)) as fact_error

    from fact_effects
    inner join random_fact_means
        using (extraction_id, tau_id, theta, method, role, scope_kind, scope_id, fact_number)
    where fact_effects.set_index = 0
    group by all

),

-- A half that gave no set counts as one of no components.
set_sizes as (

    select
        extraction_id,
        tau_id,
        theta,
        role,
        relation_id,
        sum(member_count) / 2 as member_count

    from {{ ref('int_ablation_sets') }}
    where set_kind = 'role'
    group by all

),

mean_sizes as (

    select
        extraction_id,
        tau_id,
        theta,
        role,
        {{ stable_mean('member_count') }} as member_count

    from set_sizes
    group by all

),

tested as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        checkpoints.checkpoint_id,
        coalesce(set_sizes.member_count, mean_sizes.member_count) as member_count,
        role_effects.* exclude (extraction_id, set_index),
        random_distributions.* exclude (extraction_id, tau_id, theta, method, role, scope_kind, scope_id),
        role_effects.effect - random_distributions.random_mean as excess,
        sqrt(excess_errors.fact_error ** 2 + random_distributions.random_error ** 2) as excess_error,
        count(random_distributions.p_value) over (
            partition by
                checkpoints.series_id, checkpoints.setting_id, tau_id, theta, checkpoints.checkpoint_id, method,
                scope_kind
        ) as test_count

    from role_effects
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints using (extraction_id, tau_id)
    inner join mean_sizes using (extraction_id, tau_id, theta, role)
    left join set_sizes
        on
            role_effects.extraction_id = set_sizes.extraction_id
            and role_effects.tau_id = set_sizes.tau_id
            and role_effects.theta = set_sizes.theta
            and role_effects.role = set_sizes.role
            and role_effects.scope_kind = 'relation'
            and role_effects.scope_id = set_sizes.relation_id
    left join random_distributions using (extraction_id, tau_id, theta, method, role, scope_kind, scope_id)
    left join excess_errors using (extraction_id, tau_id, theta, method, role, scope_kind, scope_id)

),

known_p_values as (

    select *
    from tested
    where p_value is not null

),

adjusted as (

    select *
    from {{ adjusted_p_values(
        'known_p_values',
        ['series_id', 'setting_id', 'tau_id', 'theta', 'checkpoint_id', 'method', 'scope_kind']
    ) }} as adjusted_p_values

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        checkpoint_id,
        method,
        tested.role,
        scope_kind,
        tested.scope_id,
        case scope_kind when 'relation' then tested.scope_id end as relation_id,
        tested.member_count,
        tested.fact_count,
        tested.effect,
        {{ interval_low('tested.effect', 'tested.error', lowest="'-infinity'") }} as effect_low,
        {{ interval_high('tested.effect', 'tested.error', highest=none) }} as effect_high,
        coalesce(tested.random_count, 0) as random_count,
        tested.random_mean,
        tested.random_low,
        tested.random_high,
        round(tested.excess, 9) as excess,
        {{ interval_low('tested.excess', 'tested.excess_error', lowest="'-infinity'") }} as excess_low,
        {{ interval_high('tested.excess', 'tested.excess_error', highest=none) }} as excess_high,
        p_value::double as p_value,
        adjusted.q_value,
        tested.template_effect,
        tested.random_template_mean,
        tested.mean_rank_change,
        tested.random_mean_rank_change

    from tested
    left join adjusted
        using (series_id, setting_id, tau_id, theta, checkpoint_id, method, scope_kind, p_value)

)

select * from final
