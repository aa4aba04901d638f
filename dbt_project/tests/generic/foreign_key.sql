{#- The columns, where none of them is null, name a row of the other model. -#}
{% test foreign_key(model, columns, to, to_columns=none) %}
    select distinct {{ columns | join(', ') }}
    from {{ model }} as child
    where
        {%- for column in columns %}
        child.{{ column }} is not null and
        {%- endfor %}
        not exists (
            select 1
            from {{ to }} as parent
            where
            {%- for column in columns %}
                parent.{{ (to_columns or columns)[loop.index0] }} = child.{{ column }}{{ ' and' if not loop.last }}
            {%- endfor %}
        )
{% endtest %}
