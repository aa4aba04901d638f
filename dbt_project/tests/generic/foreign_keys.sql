{#- Each reference's columns, where none of them is null, name a row of the model that it leads to. -#}
{% test foreign_keys(model, references) %}
    {%- for reference in references %}
    select distinct
        {{ text_literal(reference['columns'] | join(', ') ~ ' in ' ~ reference['to'].identifier) }} as broken_reference,
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
    {{ 'union all by name' if not loop.last }}
    {%- endfor %}
{% endtest %}
