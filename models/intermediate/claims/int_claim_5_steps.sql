with

convergences as (

    select *
    from {{ ref('fct_relation_convergences') }}
    where metric = 'top1'

),

relations as (

    select * from {{ ref('dim_relations') }}

),

last_steps as (

    select
        series_id,
        setting_id,
        arg_max(cumulative_step, checkpoint_index) as last_step

    from {{ ref('int_checkpoints') }}
    where is_main_line
    group by all

),

-- A relation that has not converged counts as one that converges at the end. Where none has, or all had before the
-- first checkpoint, nothing is known of their order.
dated as (

    select
        convergences.*,
        relations.relation_group = 'name' as is_name,
        case convergences.censoring when 'right' then last_steps.last_step else convergences.converged_step end as step

    from convergences
    inner join relations using (series_id, setting_id, relation_id)
    inner join last_steps using (series_id, setting_id)
    where relations.relation_group in ('location', 'name')

),

final as (

    select
        series_id,
        setting_id,
        fact_subset,
        relation_id,
        is_name,
        log2(greatest(1, step)) as log_step,
        (row_number() over (
            partition by series_id, setting_id, fact_subset
            order by relation_id
        ) - 1)::integer as place

    from dated
    where step is not null
    window subsets as (partition by series_id, setting_id, fact_subset)
    qualify
        censoring = 'none'
        or min(censoring) over subsets <> max(censoring) over subsets

)

select * from final
