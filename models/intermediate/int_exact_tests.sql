-- Many components and scopes share their counts: each test is computed once.
with

relation_tests as (

    select * from {{ ref('int_relation_tests') }}

),

fact_tests as (

    select * from {{ ref('int_fact_tests') }}

),

tests as (

    select
        strata,
        active_count

    from relation_tests
    union
    select
        strata,
        active_count

    from fact_tests

),

distributions as (

    select
        tests.strata,
        {{ lowest_count('tests.strata') }} as lowest_count,
        {{ count_probabilities('tests.strata') }} as probabilities

    from tests
    group by all

),

-- Below 1e-12 the digits of a sum of doubles mean nothing; and no p is 0.
final as (

    select
        strata,
        tests.active_count,
        case
            when tests.active_count <= distributions.lowest_count then 1
            else
                least(1, greatest(1e-12, list_sum(
                    distributions.probabilities[tests.active_count - distributions.lowest_count + 1:]
                )))
        end::decimal(13, 12) as p_value

    from tests
    inner join distributions using (strata)

)

select * from final
