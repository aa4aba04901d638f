with

checkpoints as (

    select * from {{ ref('int_measured_checkpoints') }}

),

masks as (

    select *
    from {{ ref('int_component_masks') }}
    where layer = -1

),

primary_sets as (

    select *
    from {{ ref('int_primary_sets') }}
    where theta = {{ var('theta') }}

),

checkpoint_sets as (

    select
        checkpoints.series_id,
        checkpoints.setting_id,
        tau_id,
        checkpoints.checkpoint_id,
        checkpoints.previous_checkpoint_id,
        primary_sets.* exclude (extraction_id, tau_id)

    from primary_sets
    inner join checkpoints using (extraction_id, tau_id)

),

transitions as (

    select
        later.series_id,
        later.setting_id,
        later.tau_id,
        earlier.checkpoint_id as from_checkpoint_id,
        later.checkpoint_id as to_checkpoint_id,
        masks.component_kind,
        later.resample_kind,
        later.resample,
        bit_count(xor(earlier.general, later.general) & masks.members) as general_changed,
        bit_count((earlier.general | later.general) & masks.members) as general_counted,
        bit_count(xor(earlier.entity, later.entity) & masks.members) as entity_changed,
        bit_count((earlier.entity | later.entity) & masks.members) as entity_counted,
        bit_count(xor(earlier.relation_answer, later.relation_answer) & masks.members) as relation_answer_changed,
        bit_count((earlier.relation_answer | later.relation_answer) & masks.members) as relation_answer_counted,
        bit_count(xor(earlier.fact_answer, later.fact_answer) & masks.members) as fact_answer_changed,
        bit_count((earlier.fact_answer | later.fact_answer) & masks.members) as fact_answer_counted,
        bit_count((earlier.active | later.active) & masks.members) as all_counted,
        all_counted - bit_count(
            (
                (earlier.general & later.general)
                | (earlier.entity & later.entity)
                | (earlier.relation_answer & later.relation_answer)
                | (earlier.fact_answer & later.fact_answer)
            ) & masks.members
        ) as all_changed

    from checkpoint_sets as later
    inner join checkpoint_sets as earlier
        on
            later.series_id = earlier.series_id
            and later.setting_id = earlier.setting_id
            and later.tau_id = earlier.tau_id
            and later.previous_checkpoint_id = earlier.checkpoint_id
            and later.resample_kind = earlier.resample_kind
            and later.resample = earlier.resample
    inner join masks on later.series_id = masks.series_id

),

final as (

    select
        series_id,
        setting_id,
        tau_id,
        from_checkpoint_id,
        to_checkpoint_id,
        component_kind,
        unnest(['all', 'general', 'entity', 'relation_answer', 'fact_answer']) as role,
        resample_kind,
        resample,
        unnest([
            all_changed, general_changed, entity_changed, relation_answer_changed, fact_answer_changed
        ])::integer as changed_count,
        unnest([
            all_counted, general_counted, entity_counted, relation_answer_counted, fact_answer_counted
        ])::integer as component_count

    from transitions

)

select * from final
