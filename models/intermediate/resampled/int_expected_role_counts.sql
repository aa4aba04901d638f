{{
    config(
        materialized='incremental',
        incremental_strategy='replace_extractions',
        on_schema_change='fail',
        tags='by_extraction'
    )
}}

with

vectors as (

    select *
    from {{ ref('int_component_vectors') }}
    {% if is_incremental() -%}
        where extraction_id not in (select extraction_id from {{ this }})
    {%- endif %}

),

positions as (

    select
        positions.*,
        facts.answer_token_count

    from {{ ref('int_fact_positions') }} as positions
    inner join {{ ref('stg_raw__checkpoints') }} as checkpoints using (extraction_id)
    inner join {{ ref('int_facts') }} as facts using (series_id, setting_id, fact_id)
    where positions.extraction_id in (select extraction_id from vectors)

),

orders as (

    select * from {{ ref('stg_draws__orders') }}

),

numbers as (

    select * from {{ ref('int_component_numbers') }}

),

checkpoints as (

    select * from {{ ref('stg_raw__checkpoints') }}

),

observed_sets as (

    select
        extraction_id,
        tau_id,
        bit_or(members) as general_or_entity

    from {{ ref('int_resampled_role_sets') }}
    where theta = {{ var('theta') }} and resample_kind = 'observed' and role in ('general', 'entity')
    group by all

),

-- One row per number: a fact's row beside the whole list would cost the square of the facts.
keys as (

    select
        fact_set_id,
        permutation,
        unnest(sort_keys) as sort_key,
        generate_subscripts(sort_keys, 1) - 1 as fact_number

    from orders

),

-- The facts whose answers have equally many tokens swap their relations.
places as (

    select
        *,
        row_number() over (
            partition by extraction_id, answer_token_count
            order by fact_number
        ) as place

    from positions

),

shuffled as (

    select
        places.extraction_id,
        places.fact_number,
        places.answer_token_count,
        places.answer_position_count,
        keys.permutation,
        row_number() over (
            partition by places.extraction_id, keys.permutation, places.answer_token_count
            order by keys.sort_key, places.fact_number
        ) as place

    from places
    inner join keys using (fact_set_id, fact_number)

),

labels as (

    select
        extraction_id,
        shuffled.permutation,
        shuffled.fact_number,
        shuffled.answer_position_count,
        places.relation_id

    from shuffled
    inner join places using (extraction_id, answer_token_count, place)

),

relations as (

    select distinct
        extraction_id,
        relation_id

    from places

),

label_weights as (

    select
        labels.extraction_id,
        labels.permutation,
        relations.relation_id,
        list((labels.relation_id = relations.relation_id)::integer order by labels.fact_number)::double[] as weights,
        sum(labels.answer_position_count) filter (where labels.relation_id = relations.relation_id) as position_count

    from labels
    inner join relations using (extraction_id)
    group by all

),

candidates as (

    select
        vectors.extraction_id,
        vectors.tau_id,
        numbers.component_number,
        numbers.component_kind,
        vectors.answer_active_counts

    from vectors
    inner join checkpoints using (extraction_id)
    inner join numbers using (series_id, component_number)
    inner join observed_sets using (extraction_id, tau_id)
    where get_bit(observed_sets.general_or_entity, numbers.component_number) = 0

),

above as (

    select
        extraction_id,
        candidates.tau_id,
        candidates.component_kind,
        candidates.component_number,
        label_weights.permutation,
        label_weights.relation_id

    from candidates
    inner join label_weights using (extraction_id)
    where
        list_dot_product(candidates.answer_active_counts, label_weights.weights) / label_weights.position_count
        > {{ var('theta') }}::double

),

counted as (

    select
        extraction_id,
        tau_id,
        component_kind,
        relation_id,
        count(*) as membership_count

    from above
    group by all

    union all

    select
        extraction_id,
        tau_id,
        component_kind,
        '' as relation_id,
        count(distinct component_number || '/' || permutation) as membership_count

    from above
    group by all

),

permutation_counts as (

    select
        fact_set_id,
        count(*) as permutation_count

    from orders
    group by all

),

kinds as (

    select distinct
        series_id,
        component_kind

    from numbers

),

measured as (

    select distinct
        extraction_id,
        tau_id

    from vectors

),

scopes as (

    select *
    from relations

    union all

    select distinct
        extraction_id,
        '' as relation_id

    from relations

),

final as (

    select
        extraction_id,
        measured.tau_id,
        kinds.component_kind,
        scopes.relation_id,
        coalesce(counted.membership_count, 0) / permutation_counts.permutation_count as expected_count

    from measured
    inner join checkpoints using (extraction_id)
    inner join kinds using (series_id)
    inner join scopes using (extraction_id)
    inner join {{ ref('stg_draws__extractions') }} as draws using (extraction_id)
    inner join permutation_counts using (fact_set_id)
    left join counted using (extraction_id, tau_id, component_kind, relation_id)

)

select * from final
