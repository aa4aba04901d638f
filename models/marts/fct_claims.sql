with

settings as (

    select * from {{ ref('dim_settings') }}

),

claim_statistics as (

    select *
    from (
        values
        (1, 'General first, specialised later', 'general_early_less_late', 0.05),
        (1, 'General first, specialised later', 'specific_late_less_early', 0.05),
        (2, 'Repurposed after the model answers reliably', 'disagreement_across_less_within', 0.05),
        (3, 'Answer-related heads turn over most', 'answer_less_other_turnover', 0.05),
        (4, 'FFNs are the more stable', 'head_less_ffn_matched_turnover', 0.05),
        (4, 'FFNs are the more stable', 'ffn_less_head_rank_correlation', 0.05),
        (5, 'Location before name', 'log2_step_name_less_location', 0.5),
        (6, 'Roles are causally specific', 'own_less_other_relation_damage', 0.1),
        (6, 'Roles are causally specific', 'role_less_random_set_damage', 0.1)
    ) as claim_statistics (claim_number, claim, statistic, delta)

),

draws as (

    select * from {{ ref('fct_claim_draws') }}

),

windows as (

    select
        series_id,
        setting_id,
        tau_id,
        any_value(checkpoint_count) as checkpoint_count

    from {{ ref('int_claim_windows') }}
    group by all

),

main_line_counts as (

    select
        series_id,
        setting_id,
        count(*)::integer as checkpoint_count

    from {{ ref('int_checkpoints') }}
    where is_main_line
    group by all

),

measured_counts as (

    select
        series_id,
        setting_id,
        tau_id,
        count(*)::integer as measured_count

    from {{ ref('int_measured_checkpoints') }}
    group by all

),

reference_rates as (

    select
        series_id,
        setting_id,
        tau_id,
        rates.comparison,
        rates.saturated_kinds

    from {{ ref('int_pooled_rates') }} as rates
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints
        using (series_id, setting_id, tau_id, checkpoint_id)
    where checkpoints.is_last

),

common_rates as (

    select *
    from reference_rates
    where comparison = 'common_tau'

),

matched_rates as (

    select *
    from reference_rates
    where comparison = 'matched_rate'

),

estimates as (

    select
        series_id,
        setting_id,
        tau_id,
        statistic,
        any_value(value) filter (where replicate = 0) as estimate,
        any_value(unit_count) filter (where replicate = 0) as unit_count,
        {{ standard_error('case when replicate > 0 then value end') }} as error,
        count_if(replicate > 0)::integer as draw_count

    from draws
    where variant = 'main' and theta = {{ var('theta') }}
    group by all

),

-- The statistic with the activity cut-off reset, on answers of one token that no other fact shares, or with components
-- silenced by another method.
repetitions as (

    select
        series_id,
        setting_id,
        tau_id,
        statistic,
        any_value(value) filter (where replicate = 0) as repeated_estimate,
        {{ standard_error('case when replicate > 0 then value end') }} as repeated_error

    from draws
    where variant <> 'main' and theta = {{ var('theta') }}
    group by all

),

ablated as (

    select distinct
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id

    from {{ ref('int_ablation_sets') }} as sets
    inner join {{ ref('int_measured_checkpoints') }} as checkpoints using (extraction_id, tau_id)

),

-- Exact tests over all labels: how often the difference is as large as the observed one, and how often as small once
-- every name is moved by δ.
relabellings as (

    select
        draws.series_id,
        draws.setting_id,
        draws.tau_id,
        draws.statistic,
        avg((draws.value >= estimates.estimate - 1e-9)::integer) as p_value

    from draws
    inner join estimates using (series_id, setting_id, tau_id, statistic)
    where draws.claim_number = 5 and draws.variant = 'main'
    group by all

),

shifted as (

    select * from {{ ref('int_claim_5_shifts') }}

),

cells as (

    select
        series_id,
        setting_id,
        statistic,
        count(*)::integer as cell_count,
        list(value) as cell_values

    from draws
    where variant = 'main' and replicate = 0 and claim_number <> 5
    group by all

),

judged as (

    select
        series_id,
        setting_id,
        tau_id,
        claim_statistics.claim_number,
        claim_statistics.claim,
        statistic,
        claim_statistics.delta::double as delta,
        estimates.estimate,
        estimates.unit_count,
        case when claim_statistics.claim_number <> 5 then estimates.estimate - {{ z_99() }} * estimates.error end
            as estimate_low,
        case when claim_statistics.claim_number <> 5 then estimates.estimate + {{ z_99() }} * estimates.error end
            as estimate_high,
        estimates.draw_count,
        relabellings.p_value,
        shifted.shifted_p_value,
        cells.cell_count,
        case
            when estimates.estimate is not null
                then
                    len(list_filter(cells.cell_values, lambda value: sign(value) = sign(estimates.estimate)))
                    / cells.cell_count
        end as same_sign_share,
        repetitions.repeated_estimate,
        repetitions.repeated_estimate - {{ z_99() }} * repetitions.repeated_error as repeated_low,
        repetitions.repeated_estimate + {{ z_99() }} * repetitions.repeated_error as repeated_high,
        case
            when claim_statistics.claim_number <> 5 and measured_counts.measured_count is null
                then 'no checkpoint has attributions'
            when claim_statistics.claim_number = 6
                then
                    case
                        when ablated.tau_id is null then 'no checkpoint has ablations at this τ'
                        when coalesce(estimates.unit_count, 0) < 3
                            then
                                'fewer than 3 relations have a set of this θ that was silenced by the method `mean`'
                                || case
                                    when statistic = 'role_less_random_set_damage' then ', with random sets beside it'
                                    else ''
                                end
                                || ' (' || coalesce(estimates.unit_count, 0) || ')'
                    end
            when claim_statistics.claim_number in (2, 5)
                then
                    case
                        when coalesce(main_line_counts.checkpoint_count, 0) < 6
                            then 'fewer than 6 checkpoints (' || coalesce(main_line_counts.checkpoint_count, 0) || ')'
                    end
            when windows.checkpoint_count is null
                then 'the model never answers better than always naming the most frequent answer'
            when windows.checkpoint_count < 6
                then
                    'fewer than 6 checkpoints from the first one that answers better than always naming the most'
                    || ' frequent answer (' || windows.checkpoint_count || ')'
        end as too_few_reason,
        case
            when
                claim_statistics.claim_number in (1, 3)
                and regexp_matches(coalesce(common_rates.saturated_kinds, ''), 'head')
                then 'heads are saturated: active at less than 5 % or more than 95 % of positions'
            when claim_statistics.claim_number = 4 and matched_rates.saturated_kinds is not null
                then
                    'saturated at matched rates, active at less than 5 % or more than 95 % of positions: '
                    || matched_rates.saturated_kinds
        end as saturated_reason,
        case
            when estimates.estimate is not null then null
            when claim_statistics.claim_number = 5
                then
                    'no relation converged between the checkpoints, or one of the groups `location` and `name`'
                    || ' is absent'
            when claim_statistics.claim_number = 2
                then 'no relation converged before the last checkpoint, or nothing answered for it when it did'
            when claim_statistics.claim_number = 3
                then 'halves of the facts agree on less than 0.1 of either set at every checkpoint'
            else 'no component is active'
        end as absent_reason

    from settings
    cross join claim_statistics
    left join estimates using (series_id, setting_id, tau_id, statistic)
    left join repetitions using (series_id, setting_id, tau_id, statistic)
    left join relabellings using (series_id, setting_id, tau_id, statistic)
    left join shifted using (series_id, setting_id, statistic)
    left join cells using (series_id, setting_id, statistic)
    left join windows using (series_id, setting_id, tau_id)
    left join measured_counts using (series_id, setting_id, tau_id)
    left join main_line_counts using (series_id, setting_id)
    left join common_rates using (series_id, setting_id, tau_id)
    left join matched_rates using (series_id, setting_id, tau_id)
    left join ablated using (series_id, setting_id, tau_id)

),

decided as (

    select
        *,
        coalesce(too_few_reason, absent_reason, saturated_reason) as not_assessable_reason,
        case
            when not_assessable_reason is not null then 'not_assessable'
            when claim_number = 5 and p_value <= 0.01 and estimate >= delta then 'supported'
            when claim_number = 5 and shifted_p_value <= 0.01 then 'contradicted'
            when claim_number = 5 then 'undecided'
            when estimate_low is null then 'undecided'
            when estimate_high < delta then 'contradicted'
            when claim_number = 6 and estimate_low <= delta then 'undecided'
            when estimate_low > 0 and estimate >= delta and same_sign_share >= 0.8 then 'supported'
            else 'undecided'
        end as unrepeated_verdict,
        case
            when repeated_high < delta then 'contradicted'
            when repeated_low > delta then 'supported'
            else 'undecided'
        end as repeated_verdict,
        claim_number in (1, 5) and coalesce(sign(repeated_estimate) <> sign(estimate), true) as is_not_repeated,
        case
            when unrepeated_verdict = 'supported' and is_not_repeated then 'undecided'
            -- Where heads merely fade, the repeated estimate is about 0, and its sign says nothing.
            when unrepeated_verdict = 'supported' and claim_number = 1 and repeated_estimate < delta then 'undecided'
            when unrepeated_verdict = 'contradicted' and claim_number = 1 and is_not_repeated then 'undecided'
            when
                unrepeated_verdict in ('supported', 'contradicted')
                and claim_number = 6
                and repeated_estimate is not null
                and repeated_verdict <> unrepeated_verdict
                then 'undecided'
            else unrepeated_verdict
        end as statistic_verdict

    from judged

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        claim_number,
        claim,
        statistic,
        estimate,
        round(estimate_low, 9) as estimate_low,
        round(estimate_high, 9) as estimate_high,
        p_value,
        unit_count,
        draw_count,
        delta,
        same_sign_share,
        cell_count,
        repeated_estimate,
        statistic_verdict,
        case
            when bool_or(statistic_verdict = 'not_assessable') over claims then 'not_assessable'
            when bool_or(statistic_verdict = 'contradicted') over claims then 'contradicted'
            when bool_and(statistic_verdict = 'supported') over claims then 'supported'
            else 'undecided'
        end as verdict,
        case statistic_verdict
            when 'not_assessable' then not_assessable_reason
            when 'contradicted'
                then
                    case
                        when claim_number = 5 then 'the difference is below δ (p = ' || round(shifted_p_value, 4) || ')'
                        else 'the upper end of the interval is below δ'
                    end
            when 'undecided'
                then
                    case
                        when unrepeated_verdict <> 'undecided' and claim_number = 6
                            then 'the method `resample` does not say the same'
                        when unrepeated_verdict <> 'undecided' and repeated_estimate is null
                            then 'it could not be repeated as the rule demands'
                        when unrepeated_verdict <> 'undecided' and is_not_repeated
                            then 'its sign changes when it is repeated as the rule demands'
                        when unrepeated_verdict <> 'undecided'
                            then 'the estimate is below δ when it is repeated as the rule demands'
                        when claim_number = 5 then 'p is above 0.01, or the estimate is below δ'
                        when estimate_low is null then 'it has no interval'
                        when claim_number = 6 and estimate_low <= delta then 'the interval holds δ'
                        when estimate_low <= 0 then 'the interval holds 0'
                        when estimate < delta then 'the estimate is below δ'
                        else 'its sign changes over the grid θ × τ'
                    end
            else ''
        end as reason,
        {{ claim_query() }} as query

    from decided
    window claims as (partition by series_id, setting_id, tau_id, claim_number)

)

select * from final
