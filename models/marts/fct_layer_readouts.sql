with

prompt_readouts as (

    select * from {{ ref('int_prompt_readouts') }}

),

fact_readouts as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        relation_id,
        readout,
        fact_id,
        count_if(is_top1) / count(*) as top1_share,
        count_if(is_top10) / count(*) as top10_share,
        median(first_token_rank) as first_token_rank

    from prompt_readouts
    group by all

),

final as (

    select
        series_id,
        setting_id,
        checkpoint_id,
        relation_id,
        readout,
        count(*)::integer as fact_count,
        {{ stable_mean('top1_share') }} as top1_accuracy,
        {{ stable_mean('top10_share') }} as top10_accuracy,
        median(first_token_rank)::double as median_rank

    from fact_readouts
    group by all

)

select * from final
