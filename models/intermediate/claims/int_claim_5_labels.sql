with

steps as (

    select * from {{ ref('int_claim_5_steps') }}

),

counts as (

    select
        series_id,
        setting_id,
        fact_subset,
        count(*)::integer as relation_count,
        count_if(is_name)::integer as name_count,
        sum((is_name::bigint) << place)::bigint as observed_labels

    from steps
    group by all
    having name_count > 0 and name_count < relation_count

),

-- Every assignment of the labels where there are at most 16 relations, else 10,000 drawn ones.
assignments as (

    select
        counts.*,
        unnest(range(1::bigint << counts.relation_count)) as labels

    from counts
    where counts.relation_count <= 16

),

every_assignment as (

    select *
    from assignments
    where bit_count(labels) = name_count

),

draws as (

    select unnest(range(10000)) as draw

),

drawn_orders as (

    select
        counts.series_id,
        counts.setting_id,
        counts.fact_subset,
        counts.name_count,
        draws.draw,
        steps.place,
        row_number() over (
            partition by counts.series_id, counts.setting_id, counts.fact_subset, draws.draw
            order by md5(draws.draw || '/' || steps.relation_id)
        ) as drawn_place

    from counts
    inner join steps using (series_id, setting_id, fact_subset)
    cross join draws
    where counts.relation_count > 16

),

labelled as (

    select
        every_assignment.series_id,
        every_assignment.setting_id,
        every_assignment.fact_subset,
        case when every_assignment.labels = every_assignment.observed_labels then 0 else every_assignment.labels end
            as replicate,
        steps.place,
        (every_assignment.labels >> steps.place) & 1 = 1 as is_name

    from every_assignment
    inner join steps using (series_id, setting_id, fact_subset)

    union all

    select
        series_id,
        setting_id,
        fact_subset,
        draw + 1 as replicate,
        place,
        drawn_place <= name_count as is_name

    from drawn_orders

    union all

    select
        counts.series_id,
        counts.setting_id,
        counts.fact_subset,
        0 as replicate,
        steps.place,
        steps.is_name

    from counts
    inner join steps using (series_id, setting_id, fact_subset)
    where counts.relation_count > 16

),

final as (

    select
        series_id,
        setting_id,
        fact_subset,
        replicate::integer as replicate,
        place,
        is_name

    from labelled

)

select * from final
