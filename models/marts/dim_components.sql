with

series as (

    select * from {{ ref('dim_series') }}

),

layers as (

    select
        *,
        unnest(range(layer_count))::integer as layer

    from series

),

layer_heads as (

    select
        *,
        unnest(range(head_count))::integer as head

    from layers

),

-- Consecutive query heads share one key-value head.
heads as (

    select
        series_id,
        'L' || layer || 'H' || head as component_id,
        'head' as component_kind,
        layer,
        head,
        head // (head_count // kv_head_count) as kv_head

    from layer_heads

),

ffns as (

    select
        series_id,
        'L' || layer || 'F' as component_id,
        'ffn' as component_kind,
        layer,
        null::integer as head,
        null::integer as kv_head

    from layers

),

final as (

    select * from heads
    union all
    select * from ffns

)

select * from final
