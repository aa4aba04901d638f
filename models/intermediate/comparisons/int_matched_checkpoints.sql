with

series as (

    select * from {{ ref('dim_series') }}

),

settings as (

    select * from {{ ref('dim_settings') }}

),

series_pairs as (

    select * from {{ ref('dim_series_pairs') }}

),

extractor_versions as (

    select
        series_id,
        setting_id,
        string_agg(distinct extractor_version, '/' order by extractor_version) as extractor_version

    from {{ ref('dim_checkpoints') }}
    group by all

),

main_line as (

    select
        *,
        checkpoint_index = max(checkpoint_index) over (partition by series_id, setting_id) as is_end

    from {{ ref('int_checkpoints') }}
    where is_main_line

),

measured_series as (

    select
        series_id,
        setting_id,
        settings.tau_id,
        series.recipe_id,
        settings.facts_sha256,
        settings.norm,
        settings.dtype,
        extractor_versions.extractor_version

    from settings
    inner join series using (series_id)
    inner join extractor_versions using (series_id, setting_id)

),

-- Two series are compared where dim_series_pairs says that they are comparable, so that nothing but the series differs;
-- one series in two settings, so that nothing but what `differs_in` names does. In both cases the block is the same.
pairs as (

    select
        ones.series_id,
        ones.setting_id,
        ones.tau_id,
        others.series_id as other_series_id,
        others.setting_id as other_setting_id,
        others.tau_id as other_tau_id,
        case
            when ones.series_id = others.series_id then 'same_series'
            when ones.recipe_id = others.recipe_id then 'same_recipe'
            else 'other_recipe'
        end as pair_kind,
        coalesce(
            nullif(
                concat_ws(
                    ', ',
                    case when ones.facts_sha256 <> others.facts_sha256 then 'facts' end,
                    case when ones.tau_id <> others.tau_id then 'tau' end,
                    case when ones.norm <> others.norm then 'norm' end,
                    case when ones.dtype <> others.dtype then 'precision' end
                ),
                ''
            ),
            case when ones.setting_id <> others.setting_id then 'setting' end
        ) as differs_in

    from measured_series as ones
    inner join measured_series as others
        on (ones.series_id, ones.setting_id, ones.tau_id) < (others.series_id, others.setting_id, others.tau_id)
    inner join series_pairs
        on
            ones.series_id = series_pairs.series_id
            and ones.setting_id = series_pairs.setting_id
            and ones.tau_id = series_pairs.tau_id
            and others.series_id = series_pairs.other_series_id
            and others.setting_id = series_pairs.other_setting_id
            and others.tau_id = series_pairs.other_tau_id
    where
        series_pairs.is_comparable
        or (ones.series_id = others.series_id and ones.extractor_version = others.extractor_version)

),

-- By what a pair of checkpoints can be matched at all; null where by nothing.
candidates as (

    select
        pairs.*,
        ones.checkpoint_id,
        others.checkpoint_id as other_checkpoint_id,
        ones.checkpoint_index,
        others.checkpoint_index as other_checkpoint_index,
        case
            when pairs.pair_kind = 'same_series' then 'checkpoint'
            when ones.tokens is not null and others.tokens is not null then 'tokens'
            when
                pairs.pair_kind = 'same_recipe'
                and (ones.cumulative_step is not null or others.cumulative_step is not null)
                then 'step'
            when ones.tokens is null and others.tokens is null then 'end'
        end as matched_by,
        case matched_by when 'tokens' then greatest(ones.tokens, others.tokens) end as more_tokens,
        case matched_by when 'tokens' then least(ones.tokens, others.tokens) end as fewer_tokens,
        coalesce(more_tokens / nullif(fewer_tokens, 0), 1) as token_ratio,
        abs(ones.stage_number - others.stage_number) as stage_distance

    from pairs
    inner join main_line as ones on pairs.series_id = ones.series_id and pairs.setting_id = ones.setting_id
    inner join main_line as others
        on pairs.other_series_id = others.series_id and pairs.other_setting_id = others.setting_id
    where
        case matched_by
            when 'checkpoint' then ones.checkpoint_id = others.checkpoint_id
            when 'tokens' then 4 * more_tokens <= 5 * fewer_tokens
            when 'step' then ones.cumulative_step = others.cumulative_step
            when 'end' then ones.is_end and others.is_end
        end

),

-- Each is the other's nearest: no checkpoint counts twice, and it does not matter which series is named first.
final as (

    select
        series_id,
        setting_id,
        tau_id,
        other_series_id,
        other_setting_id,
        other_tau_id,
        checkpoint_id,
        other_checkpoint_id,
        pair_kind,
        differs_in,
        matched_by

    from candidates
    qualify
        row_number() over (
            partition by
                series_id, setting_id, tau_id, other_series_id, other_setting_id, other_tau_id, checkpoint_id
            order by token_ratio, stage_distance, other_checkpoint_index
        ) = 1
        and row_number() over (
            partition by
                series_id, setting_id, tau_id, other_series_id, other_setting_id, other_tau_id, other_checkpoint_id
            order by token_ratio, stage_distance, checkpoint_index
        ) = 1

)

select * from final
