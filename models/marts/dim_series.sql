with

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

final as (

    select
        series_id,
        max(family) as family,
        max(topology) as topology,
        split_part(max(topology), '_', 1) as block,
        max(layer_count) as layer_count,
        max(head_count) as head_count,
        max(kv_head_count) as kv_head_count,
        max(hidden_size) as hidden_size,
        max(vocabulary_size) as vocabulary_size,
        max(parameter_count) as parameter_count,
        count(distinct checkpoint_id)::integer as checkpoint_count,
        min(step) as first_step,
        max(step) as last_step

    from checkpoints
    group by all

)

select * from final
