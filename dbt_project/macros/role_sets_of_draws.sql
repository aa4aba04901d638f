{#-
    The roles of components under every draw over facts, as sets of bits. `vectors` is a table like
    int_component_vectors, `kinds` are the kinds of draws and `draws` how many of each. What a role is, is what fct_role_memberships says; here the rates are weighted, and sets exclude
    each other bit by bit. Every draw has its row for every role, also where the set is empty.

    A row with a relation_id: relation_answer of the relation, or fact_answer of any of its facts. Without one: general,
    entity, and the unions over all relations. Bootstrap draws have fact_answer only as that union, in which facts are
    never drawn (see timecourse/resampling.py). Beside the θ of the settings, the observed facts and the first 20 splits
    into halves have every other θ of the grid.

    Rates are quotients of whole numbers, which equal θ's double exactly where they equal its decimal; the rate in the
    scope `all` is rounded to 1e-9, as in int_scope_rates. Numbers stand for extractions and draws, because hundreds of
    millions of rows are compared.
-#}
{% macro role_sets_of_draws(vectors, kinds=['observed', 'bootstrap', 'half', 'bootstrap_half'], draws=10000) -%}
    {%- set empty_set -%} '{{ '0' * var('component_limit') }}'::bit {%- endset -%}
    {%- set theta = var('theta') ~ '::double' -%}
    {%- set other_thetas = var('theta_grid') | reject('equalto', var('theta')) | join(', ') -%}
    (
        with

        measurements as (

            select
                extraction_id,
                tau_id,
                (row_number() over (order by extraction_id, tau_id))::integer as measurement
            from (select distinct extraction_id, tau_id from {{ vectors }})

        ),

        relations as (

            select
                measurement,
                fact_set_id,
                relation_id,
                (row_number() over (order by measurement, relation_id))::integer as relation,
                min(fact_number) + 1 as first_place,
                max(fact_number) + 1 as last_place,
                list(prompt_count order by fact_number)::double[] as prompt_counts,
                list(entity_position_count order by fact_number)::double[] as entity_position_counts,
                list(answer_position_count order by fact_number)::double[] as answer_position_counts
            from {{ ref('int_fact_positions') }}
            inner join measurements using (extraction_id)
            group by measurement, fact_set_id, relation_id

        ),

        weights as (

            select
                *,
                (row_number() over (order by fact_set_id, resample_kind, resample, half))::integer as draw,
                resample_kind = 'observed' or (resample_kind = 'half' and resample <= 20) as has_other_thetas
            from {{ ref('stg_draws__weights') }}
            where resample_kind in {{ text_literals(kinds) }} and resample <= {{ draws }}

        ),

        relation_draws as (

            select
                relations.measurement,
                relations.relation,
                draw,
                has_other_thetas,
                resample_kind <> 'bootstrap' as has_fact_answers,
                weights.weights[first_place:last_place] as weights,
                weights.presence[first_place:last_place] as presence,
                nullif(list_dot_product(weights.weights[first_place:last_place], answer_position_counts), 0)
                    as answer_position_count,
                list_dot_product(weights.weights[first_place:last_place], prompt_counts) as prompt_count,
                list_dot_product(weights.weights[first_place:last_place], entity_position_counts)
                    as entity_position_count
            from relations
            inner join weights using (fact_set_id)

        ),

        draws as (

            select
                measurement,
                draw,
                has_other_thetas,
                flatten(list(relation_draws.weights order by relation)) as weights,
                nullif(sum(prompt_count), 0) as prompt_count,
                nullif(sum(entity_position_count), 0) as entity_position_count
            from relation_draws
            group by all

        ),

        numbered_vectors as (

            select * from {{ vectors }} inner join measurements using (extraction_id, tau_id)

        ),

        whole_model_rates as (

            select
                measurement,
                draw,
                has_other_thetas,
                component_number,
                round(list_dot_product(prompt_share_sums, weights) / prompt_count, 9) as rate_all,
                list_dot_product(entity_active_counts, weights) / entity_position_count as rate_entity
            from numbered_vectors
            inner join draws using (measurement)

        ),

        relation_vectors as (

            select
                measurement,
                relation,
                component_number,
                answer_active_counts[first_place:last_place] as active_counts,
                answer_position_counts
            from numbered_vectors
            inner join relations using (measurement)
            where list_sum(active_counts) > 0

        ),

        relation_rates as (

            select
                measurement,
                draw,
                has_other_thetas,
                relation,
                component_number,
                list_dot_product(active_counts, weights) / answer_position_count as rate
            from relation_vectors
            inner join relation_draws using (measurement, relation)

        ),

        other_thetas as (

            select unnest([{{ other_thetas }}]::double[]) as theta

        ),

        all_thetas as (

            select theta from other_thetas
            union all
            select {{ theta }} as theta

        ),

        whole_model_sets as (

            {%- for scope in ('all', 'entity') %}
            {{ 'union all' if not loop.first }}
            select measurement, draw, {{ theta }} as theta, '{{ scope }}' as scope_kind,
                {{ component_set('component_number') }} as members
            from whole_model_rates
            where rate_{{ scope }} > {{ theta }}
            group by all

            union all

            select measurement, draw, theta, '{{ scope }}' as scope_kind,
                {{ component_set('component_number') }} as members
            from whole_model_rates
            inner join other_thetas on rate_{{ scope }} > theta
            where has_other_thetas
            group by all
            {%- endfor %}

        ),

        relation_sets as (

            select measurement, draw, relation, {{ theta }} as theta,
                {{ component_set('component_number') }} as members
            from relation_rates
            where rate > {{ theta }}
            group by all

            union all

            select measurement, draw, relation, theta,
                {{ component_set('component_number') }} as members
            from relation_rates
            inner join other_thetas on rate > theta
            where has_other_thetas
            group by all

        ),

        fact_vectors as (

            select
                measurement,
                theta,
                relation,
                component_number,
                list_transform(
                    list_zip(active_counts, answer_position_counts),
                    lambda counts: (counts[1] / nullif(counts[2], 0) > theta)::integer::double
                ) as is_above
            from relation_vectors
            cross join all_thetas
            where list_sum(is_above) > 0

        ),

        fact_sets as (

            select measurement, draw, relation, theta,
                {{ component_set('component_number') }} as members
            from fact_vectors
            inner join (select * from relation_draws where has_fact_answers) using (measurement, relation)
            where
                (has_other_thetas or theta = {{ theta }})
                and list_dot_product(is_above, presence) > 0
            group by all

        ),

        cells as (

            select measurement, draw, theta
            from draws
            inner join all_thetas on has_other_thetas or theta = {{ theta }}

        ),

        whole_models as (

            select
                measurement,
                draw,
                theta,
                coalesce(any_value(members) filter (where scope_kind = 'all'), {{ empty_set }}) as general_members,
                coalesce(any_value(members) filter (where scope_kind = 'entity'), {{ empty_set }}) & ~general_members
                    as entity_members
            from cells
            left join whole_model_sets using (measurement, draw, theta)
            group by measurement, draw, theta

        ),

        observed_fact_sets as (

            select measurement, relation, theta, members
            from fact_sets
            inner join weights using (draw)
            where resample_kind = 'observed'

        ),

        exclusive_sets as (

            select
                measurement,
                draw,
                theta,
                relation,
                has_fact_answers,
                general_members,
                entity_members,
                coalesce(relation_sets.members, {{ empty_set }}) & ~(general_members | entity_members)
                    as relation_answer_members,
                coalesce(
                    case when has_fact_answers then fact_sets.members else observed_fact_sets.members end, {{ empty_set }}
                ) & ~(general_members | entity_members | relation_answer_members) as fact_answer_members
            from whole_models
            inner join relation_draws using (measurement, draw)
            left join relation_sets using (measurement, draw, theta, relation)
            left join fact_sets using (measurement, draw, theta, relation)
            left join observed_fact_sets using (measurement, theta, relation)

        ),

        role_sets as (

            select
                measurement,
                draw,
                theta,
                null as relation,
                unnest(['general', 'entity', 'relation_answer', 'fact_answer']) as role,
                unnest([
                    any_value(general_members),
                    any_value(entity_members),
                    bit_or(relation_answer_members),
                    bit_or(fact_answer_members)
                ]) as members
            from exclusive_sets
            group by measurement, draw, theta

            union all

            select
                measurement,
                draw,
                theta,
                relation,
                unnest(case when has_fact_answers then ['relation_answer', 'fact_answer'] else ['relation_answer'] end)
                    as role,
                unnest([relation_answer_members, fact_answer_members]) as members
            from exclusive_sets

        )

        select
            extraction_id,
            tau_id,
            theta::decimal(12, 9) as theta,
            resample_kind,
            resample,
            half,
            role,
            coalesce(relation_id, '') as relation_id,
            members
        from role_sets
        inner join measurements using (measurement)
        inner join weights using (draw)
        left join relations using (measurement, relation)
        where role is not null
    )
{%- endmacro %}
