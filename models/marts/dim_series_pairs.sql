with

series as (

    select * from {{ ref('dim_series') }}

),

settings as (

    select * from {{ ref('dim_settings') }}

),

extractor_versions as (

    select
        series_id,
        setting_id,
        string_agg(distinct extractor_version, '/' order by extractor_version) as extractor_version

    from {{ ref('dim_checkpoints') }}
    group by all

),

measured_series as (

    select
        series_id,
        setting_id,
        settings.tau_id,
        series.block,
        settings.facts_sha256,
        settings.norm,
        settings.dtype,
        extractor_versions.extractor_version

    from settings
    inner join series using (series_id)
    inner join extractor_versions using (series_id, setting_id)

),

-- What differs between two settings, in words; where it is none of these, by the names of the settings.
pairs as (

    select
        ones.*,
        others.series_id as other_series_id,
        others.setting_id as other_setting_id,
        others.tau_id as other_tau_id,
        others.block as other_block,
        others.extractor_version as other_extractor_version,
        ones.facts_sha256 <> others.facts_sha256 as has_other_facts,
        ones.tau_id <> others.tau_id as has_other_tau,
        ones.norm <> others.norm as has_other_norm,
        ones.dtype <> others.dtype as has_other_dtype,
        concat_ws(
            ', ',
            case when has_other_facts then 'facts' end,
            case when has_other_tau then 'τ ' || ones.tau_id || ' and ' || others.tau_id end,
            case when has_other_norm then 'norm ' || ones.norm || ' and ' || others.norm end,
            case when has_other_dtype then 'precision ' || ones.dtype || ' and ' || others.dtype end,
            case
                when
                    ones.setting_id <> others.setting_id
                    and not (has_other_facts or has_other_tau or has_other_norm or has_other_dtype)
                    then ones.setting_id || ' and ' || others.setting_id
            end
        ) as setting_differences

    from measured_series as ones
    inner join measured_series as others
        on
            ones.series_id <> others.series_id
            or ones.setting_id <> others.setting_id
            or ones.tau_id <> others.tau_id

),

-- A null reason adds no words. Where the norms of a block stand is no reason: its sums have the same parts.
reasoned as (

    select
        *,
        case
            when block <> other_block
                then
                    series_id || ' has ' || block || ' blocks and ' || other_series_id || ' ' || other_block
                    || ' ones: the FFN shares one sum with every head at every position in a parallel block, and only'
                    || ' with the residual in a sequential one, so that contributions, activity and roles are not on'
                    || ' one scale'
        end as block_reason,
        case
            when setting_differences <> ''
                then 'they are measured in different settings (' || setting_differences || ')'
        end as setting_reason,
        case
            when extractor_version <> other_extractor_version
                then
                    'they are measured by different versions of the extractor (' || extractor_version || ' and '
                    || other_extractor_version || ')'
        end as version_reason

    from pairs

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        other_series_id,
        other_setting_id,
        other_tau_id,
        coalesce(block_reason, setting_reason, version_reason) is null as is_comparable,
        nullif(concat_ws('; ', block_reason, setting_reason, version_reason), '') as reason

    from reasoned

)

select * from final
