{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

contributions as (

    select *
    from {{ ref('int_component_contributions') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

facts as (

    select * from {{ ref('int_fact_positions') }}

),

draws as (

    select
        fact_set_id,
        resample,
        weights,
        list_sum(weights) as weight_sum

    from {{ ref('stg_draws__weights') }}
    where resample_kind = 'observed' or (resample_kind = 'bootstrap' and resample <= 200)

),

vectors as (

    select
        extraction_id,
        facts.fact_set_id,
        numbers.component_number,
        numbers.component_kind,
        list(contributions.mean_contribution order by facts.fact_number)::double[] as mean_contributions

    from contributions
    inner join checkpoints using (extraction_id)
    inner join numbers using (series_id, component_id)
    inner join facts using (extraction_id, relation_id, fact_id)
    group by all

),

means as (

    select
        vectors.extraction_id,
        vectors.component_kind,
        vectors.component_number,
        draws.resample,
        round(list_dot_product(vectors.mean_contributions, draws.weights) / draws.weight_sum, 12) as mean_contribution

    from vectors
    inner join draws using (fact_set_id)
    where len(vectors.mean_contributions) = len(draws.weights)

),

-- Of equal ones, each has the mean of their ranks.
ranked as (

    select
        *,
        rank() over (
            partition by extraction_id, component_kind, resample
            order by mean_contribution
        ) + (count(*) over (
            partition by extraction_id, component_kind, resample, mean_contribution
        ) - 1) / 2 as contribution_rank

    from means

),

final as (

    select
        extraction_id,
        component_kind,
        resample,
        list(contribution_rank order by component_number)::float[] as contribution_ranks

    from ranked
    group by all

)

select * from final
