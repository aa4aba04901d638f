-- Roles are causally specific. A draw takes other facts of every relation, and other random sets: those of one number
-- for all relations together.
with

effects as (

    select
        *,
        max(set_index) over (partition by series_id, setting_id, tau_id, theta, variant) as set_count

    from {{ ref('int_claim_6_effects') }}

),

draws as (

    select
        fact_set_id,
        resample,
        weights

    from {{ ref('stg_draws__weights') }}
    where resample_kind in ('observed', 'bootstrap')

),

resamples as (

    select distinct resample
    from draws

),

random_sets as (

    select distinct
        set_count,
        unnest(range(1, set_count + 1))::integer as place

    from effects

),

-- As many random sets as there are, with replacement.
picks as (

    select
        random_sets.set_count,
        resamples.resample,
        case
            when resamples.resample = 0 then random_sets.place
            else 1 + md5_number_lower(resamples.resample || '/' || random_sets.place) % random_sets.set_count
        end::integer as set_index

    from random_sets
    cross join resamples

),

set_weights as (

    select
        set_count,
        resample,
        set_index,
        count(*) as weight

    from picks
    group by all

),

drawn_effects as (

    select
        effects.* exclude (fact_set_id, first_place, last_place, effects, is_scored),
        draws.resample as replicate,
        list_dot_product(effects.effects, draws.weights[effects.first_place:effects.last_place])
        / nullif(list_dot_product(effects.is_scored, draws.weights[effects.first_place:effects.last_place]), 0)
            as effect

    from effects
    inner join draws using (fact_set_id)

),

relation_effects as (

    select
        drawn_effects.series_id,
        drawn_effects.setting_id,
        drawn_effects.tau_id,
        drawn_effects.theta,
        drawn_effects.variant,
        drawn_effects.set_relation_id,
        drawn_effects.replicate,
        any_value(drawn_effects.effect) filter (
            where drawn_effects.set_index = 0 and drawn_effects.relation_id = drawn_effects.set_relation_id
        ) as own_effect,
        avg(drawn_effects.effect::decimal(38, 12)) filter (
            where drawn_effects.set_index = 0 and drawn_effects.relation_id <> drawn_effects.set_relation_id
        ) as other_effect,
        sum((set_weights.weight * drawn_effects.effect)::decimal(38, 12)) / sum(set_weights.weight) as random_effect

    from drawn_effects
    left join set_weights
        on
            drawn_effects.set_count = set_weights.set_count
            and drawn_effects.replicate = set_weights.resample
            and drawn_effects.set_index = set_weights.set_index
    group by all

),

-- Damage, so that what speaks for the claim is above 0.
differences as (

    select
        * exclude (set_relation_id, own_effect, other_effect, random_effect),
        unnest(['own_less_other_relation_damage', 'role_less_random_set_damage']) as statistic,
        unnest([other_effect - own_effect, random_effect - own_effect]) as difference

    from relation_effects

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        theta,
        6 as claim_number,
        statistic,
        variant,
        replicate,
        {{ stable_mean('difference') }} as value,
        count(difference)::integer as unit_count

    from differences
    group by all

)

select * from final
