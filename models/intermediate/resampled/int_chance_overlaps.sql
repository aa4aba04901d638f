with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

-- A random set of heads has as many in each layer; one of FFNs has as many, whatever their layers.
masks as (

    select
        *,
        bit_count(members) as total_count

    from {{ ref('int_component_masks') }}
    where (component_kind = 'head') = (layer >= 0)

),

stratum_counts as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        checkpoints.reference_checkpoint_id,
        checkpoints.previous_checkpoint_id,
        masks.component_kind,
        masks.layer,
        masks.total_count,
        role_sets.role,
        role_sets.relation_id,
        bit_count(role_sets.members & masks.members) as member_count

    from {{ ref('int_resampled_role_sets') }} as role_sets
    inner join checkpoints using (extraction_id, tau_id)
    inner join masks on checkpoints.series_id = masks.series_id
    where
        role_sets.resample_kind = 'observed'
        and role_sets.theta = {{ var('theta') }}
        and (role_sets.role in ('general', 'entity')) = (role_sets.relation_id = '')

),

pairs as (

    select
        *,
        unnest(['reference', 'previous']) as beside,
        unnest([reference_checkpoint_id, previous_checkpoint_id]) as other_checkpoint_id

    from stratum_counts

),

compared as (

    select
        pairs.series_id,
        pairs.setting_id,
        pairs.tau_id,
        pairs.checkpoint_id,
        pairs.beside,
        pairs.component_kind,
        pairs.role,
        pairs.relation_id,
        {{ meeting_strata(strata('pairs.total_count', 'pairs.member_count', 'others.member_count')) }} as strata,
        sum(pairs.member_count)::integer as member_count,
        sum(others.member_count)::integer as other_member_count

    from pairs
    inner join stratum_counts as others
        on
            pairs.series_id = others.series_id
            and pairs.setting_id = others.setting_id
            and pairs.tau_id = others.tau_id
            and pairs.other_checkpoint_id = others.checkpoint_id
            and pairs.component_kind = others.component_kind
            and pairs.layer = others.layer
            and pairs.role = others.role
            and pairs.relation_id = others.relation_id
    group by all

),

distributions as (

    select
        compared.strata,
        {{ lowest_count('compared.strata') }} as lowest_count,
        {{ count_probabilities('compared.strata') }} as probabilities

    from compared
    where compared.strata is not null
    group by compared.strata

),

-- Sets without a common layer never meet. How many two sets share decides their overlap, because their sizes are given.
final as (

    select
        series_id,
        setting_id,
        tau_id,
        checkpoint_id,
        beside,
        component_kind,
        role,
        relation_id,
        least(member_count, other_member_count) / nullif(greatest(member_count, other_member_count), 0) as iou_max,
        case
            when member_count + other_member_count = 0 then null
            when strata is null then 0
            else
                {{ mean_overlap('probabilities', 'lowest_count', 'member_count + other_member_count') }}
        end::double as iou_chance

    from compared
    left join distributions using (strata)

)

select * from final
