{#-
    What the rows of a model owe. `key`: these columns together identify a row, and none of them is null. `references`:
    columns, where none of them is null, that name a row of another model. `one_of`: what a column may hold besides null.
    `shares`: columns that are null or in [0, 1]. One query looks for all of it, because most of what a small build costs
    is the number of its queries; `broken_rule` names what a row breaks, and timecourse/warehouse_checks.py makes a check of each.

    Keys are compared by a hash first, which takes a third of the time and half of the memory, and by the columns
    themselves where hashes are equal. `new_in` names a table with an extraction_id: then only the keys of its extractions
    are looked at, because those of an incremental model do not change once they are there.
-#}
{% test rows(model, key, new_in=none, references=[], one_of={}, shares=[]) %}
    {%- set key_columns = key | join(', ') %}
    {%- set has_null = key | join(' is null or ') ~ ' is null' %}
    with looked_at as (
        select {{ key_columns }}
        from {{ model }}
        {%- if new_in %}
        where extraction_id in (select extraction_id from {{ new_in }})
        {%- endif %}
    ),

    doubtful as (
        select hash({{ key_columns }}) as key_hash
        from looked_at
        group by all
        having count(*) > 1 or bool_or({{ has_null }})
    )

    select
        'key' as broken_rule,
        {{ key_columns }},
        count(*) as row_count
    from looked_at
    where hash({{ key_columns }}) in (select key_hash from doubtful)
    group by all
    having count(*) > 1 or {{ has_null }}
    {%- for reference in references %}

    union all by name

    select distinct
        'reference_{{ loop.index }}' as broken_rule,
        {{ reference['columns'] | join(', ') }}
    from {{ model }} as child
    where
        {%- for column in reference['columns'] %}
        child.{{ column }} is not null and
        {%- endfor %}
        not exists (
            select 1
            from {{ reference['to'] }} as parent
            where
            {%- for column in reference['columns'] %}
                parent.{{ (reference['to_columns'] or reference['columns'])[loop.index0] }} = child.{{ column }}
                {{- ' and' if not loop.last }}
            {%- endfor %}
        )
    {%- endfor %}
    {%- for column, values in one_of.items() %}

    union all by name

    select
        'one_of_{{ column }}' as broken_rule,
        *
    from {{ model }}
    where {{ column }} not in {{ text_literals(values) }}
    {%- endfor %}
    {%- for column in shares %}

    union all by name

    select
        'share_{{ column }}' as broken_rule,
        *
    from {{ model }}
    where {{ column }} not between 0 and 1
    {%- endfor %}
{% endtest %}
