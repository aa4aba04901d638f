{#-
    The roles of components under every draw over facts, as sets of bits. `vectors` is a table like
    int_component_vectors. What a role is, is what fct_role_memberships says; here the rates are weighted, and sets exclude
    each other bit by bit. Every draw has its row for every role, also where the set is empty.

    A row with a relation_id: relation_answer of the relation, or fact_answer of any of its facts. Without one: general, entity,
    and the unions over all relations. Bootstrap draws have fact_answer only as that union, in which facts are never drawn
    (see timecourse/resampling.py). Beside the θ of the settings, the observed facts and the first 20 splits into halves
    have every other θ of the grid.

    Rates are quotients of whole numbers, of which θ's decimal is one exactly where they are equal; the rate in the scope
    `all` is rounded to 1e-9, as in int_scope_rates.
-#}
{% macro role_sets_of_draws(vectors) -%}
    {%- set theta = var('theta') ~ '::decimal(12, 9)' -%}
    {%- set empty_set -%} '{{ '0' * var('component_limit') }}'::bit {%- endset -%}
    {%- set draw = 'extraction_id, resample_kind, resample, half' -%}
    {%- set cell = 'extraction_id, tau_id, theta, resample_kind, resample, half' -%}
    (
        with

        thetas as (

            select unnest([{{ var('theta_grid') | join(', ') }}]::decimal(12, 9)[]) as theta

        ),

        extractions as (

            select distinct extraction_id, tau_id from {{ vectors }}

        ),

        relations as (

            select
                extraction_id,
                fact_set_id,
                relation_id,
                min(fact_number) + 1 as first_place,
                max(fact_number) + 1 as last_place,
                list(prompt_count order by fact_number)::double[] as prompt_counts,
                list(entity_position_count order by fact_number)::double[] as entity_position_counts,
                list(answer_position_count order by fact_number)::double[] as answer_position_counts
            from {{ ref('int_fact_positions') }}
            where extraction_id in (select extraction_id from extractions)
            group by all

        ),

        relation_draws as (

            select
                relations.*,
                weights.resample_kind,
                weights.resample,
                weights.half,
                weights.weights[first_place:last_place] as weights,
                weights.presence[first_place:last_place] as presence
            from relations
            inner join {{ ref('stg_draws__weights') }} as weights using (fact_set_id)

        ),

        draws as (

            select
                {{ draw }},
                flatten(list(weights order by first_place)) as weights,
                sum(list_dot_product(weights, prompt_counts)) as prompt_count,
                sum(list_dot_product(weights, entity_position_counts)) as entity_position_count
            from relation_draws
            group by all

        ),

        cells as (

            select {{ cell }}
            from draws
            inner join extractions using (extraction_id)
            cross join thetas
            where
                theta = {{ theta }}
                or resample_kind = 'observed'
                or (resample_kind = 'half' and resample <= 20)

        ),

        {# Only kinds whose fact_answer sets are kept by relation; those of a bootstrap draw are the observed ones. #}
        relation_cells as (

            select {{ cell }}, relation_id
            from cells
            inner join relations using (extraction_id)

        ),

        whole_model_rates as (

            select
                {{ draw }},
                tau_id,
                component_number,
                round(list_dot_product(prompt_share_sums, weights) / nullif(prompt_count, 0), 9) as rate_all,
                list_dot_product(entity_active_counts, weights) / nullif(entity_position_count, 0) as rate_entity
            from {{ vectors }}
            inner join draws using (extraction_id)

        ),

        whole_model_sets as (

            select
                {{ cell }},
                bitstring_agg(component_number, 0, {{ var('component_limit') - 1 }}) filter (where rate_all > theta::double)
                    as general,
                bitstring_agg(component_number, 0, {{ var('component_limit') - 1 }})
                    filter (where rate_entity > theta::double) as entity
            from whole_model_rates
            inner join cells using ({{ draw }}, tau_id)
            where rate_all > theta::double or rate_entity > theta::double
            group by all

        ),

        relation_vectors as (

            select
                extraction_id,
                tau_id,
                relation_id,
                component_number,
                answer_active_counts[first_place:last_place] as active_counts,
                answer_position_counts
            from {{ vectors }}
            inner join relations using (extraction_id)
            where list_sum(active_counts) > 0

        ),

        relation_sets as (

            select
                {{ cell }},
                relation_id,
                bitstring_agg(component_number, 0, {{ var('component_limit') - 1 }}) as members
            from (
                select
                    {{ draw }},
                    tau_id,
                    relation_id,
                    component_number,
                    list_dot_product(active_counts, weights)
                    / nullif(list_dot_product(relation_draws.answer_position_counts, weights), 0) as rate
                from relation_vectors
                inner join relation_draws using (extraction_id, relation_id)
            )
            inner join cells using ({{ draw }}, tau_id)
            where rate > theta::double
            group by all

        ),

        fact_vectors as (

            select
                extraction_id,
                tau_id,
                theta,
                relation_id,
                component_number,
                list_transform(
                    list_zip(active_counts, answer_position_counts),
                    lambda counts: (counts[1] / nullif(counts[2], 0) > theta::double)::integer::double
                ) as is_above
            from relation_vectors
            cross join thetas

        ),

        fact_sets as (

            select
                {{ cell }},
                relation_id,
                bitstring_agg(component_number, 0, {{ var('component_limit') - 1 }}) as members
            from fact_vectors
            inner join relation_draws using (extraction_id, relation_id)
            inner join cells using ({{ draw }}, tau_id, theta)
            where resample_kind <> 'bootstrap' and list_dot_product(is_above, presence) > 0
            group by all

        ),

        exclusive_sets as (

            select
                {{ cell }},
                relation_id,
                coalesce(general, {{ empty_set }}) as general_members,
                coalesce(entity, {{ empty_set }}) & ~general_members as entity_members,
                coalesce(relation_sets.members, {{ empty_set }}) & ~(general_members | entity_members)
                    as relation_answer_members,
                coalesce(fact_sets.members, observed_fact_sets.members, {{ empty_set }})
                & ~(general_members | entity_members | relation_answer_members) as fact_answer_members
            from relation_cells
            left join whole_model_sets using ({{ cell }})
            left join relation_sets using ({{ cell }}, relation_id)
            left join fact_sets using ({{ cell }}, relation_id)
            left join fact_sets as observed_fact_sets
                on
                    relation_cells.resample_kind = 'bootstrap'
                    and observed_fact_sets.resample_kind = 'observed'
                    and relation_cells.extraction_id = observed_fact_sets.extraction_id
                    and relation_cells.tau_id = observed_fact_sets.tau_id
                    and relation_cells.theta = observed_fact_sets.theta
                    and relation_cells.relation_id = observed_fact_sets.relation_id

        )

        select
            {{ cell }},
            unnest(['general', 'entity', 'relation_answer', 'fact_answer']) as role,
            '' as relation_id,
            unnest([
                any_value(general_members),
                any_value(entity_members),
                bit_or(relation_answer_members),
                bit_or(fact_answer_members)
            ]) as members
        from exclusive_sets
        group by {{ cell }}

        union all

        select
            {{ cell }},
            unnest(['relation_answer', 'fact_answer']) as role,
            relation_id,
            unnest([relation_answer_members, case when resample_kind <> 'bootstrap' then fact_answer_members end])
                as members
        from exclusive_sets
    )
{%- endmacro %}
