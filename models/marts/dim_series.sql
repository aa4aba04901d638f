with

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

ordered_checkpoints as (

    select * from {{ ref('int_checkpoints') }}

),

settings as (

    select * from {{ ref('stg_series__series') }}

),

final as (

    select
        series_id,
        max(settings.recipe_id) as recipe_id,
        coalesce(max(settings.duplicates), 'warn') as duplicates,
        max(checkpoints.family) as family,
        max(checkpoints.topology) as topology,
        split_part(max(checkpoints.topology), '_', 1) as block,
        max(checkpoints.layer_count) as layer_count,
        max(checkpoints.head_count) as head_count,
        max(checkpoints.kv_head_count) as kv_head_count,
        max(checkpoints.hidden_size) as hidden_size,
        max(checkpoints.vocabulary_size) as vocabulary_size,
        max(checkpoints.parameter_count) as parameter_count,
        count(distinct checkpoint_id)::integer as checkpoint_count,
        min(ordered_checkpoints.cumulative_step) as first_step,
        max(ordered_checkpoints.cumulative_step) as last_step

    from checkpoints
    inner join ordered_checkpoints using (extraction_id, series_id, checkpoint_id)
    left join settings using (series_id)
    group by all

)

select * from final
