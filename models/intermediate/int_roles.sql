-- The order decides the primary role of a component that holds several.
with

final as (

    select
        role,
        role_order::integer as role_order

    from (
        values
        ('general', 1),
        ('entity', 2),
        ('relation_answer', 3),
        ('fact_answer', 4),
        ('inactive', 5)
    ) as roles (role, role_order)

)

select * from final
