{#-
    Which checkpoint each one follows, within `keys`. The table `checkpoints` has checkpoint_id, checkpoint_index, branch,
    and stage_number, which counts phases and stages. A run is one branch of a phase's stage: within it every checkpoint
    follows the one before. A run's first follows the last of the stage before, if that has one branch, else the last of
    the same branch there, else nothing: siblings are no sequence. `run_id` is the run's first checkpoint,
    `previous_run_id` the run whose last one the run's first follows.
-#}
{% macro neighbours(checkpoints, keys) -%}
    (
        with runs as (
            select
                {{ keys | join(', ') }},
                stage_number,
                branch,
                arg_min(checkpoint_id, checkpoint_index) as run_id,
                arg_max(checkpoint_id, checkpoint_index) as last_checkpoint_id,
                count(*) over (partition by {{ keys | join(', ') }}, stage_number) as branch_count,
                dense_rank() over (partition by {{ keys | join(', ') }} order by stage_number) as place
            from {{ checkpoints }}
            group by {{ keys | join(', ') }}, stage_number, branch
        )

        select
            {%- for key in keys %}
            runs.{{ key }},
            {%- endfor %}
            checkpoints.checkpoint_id,
            runs.run_id,
            earlier.run_id as previous_run_id,
            coalesce(lag(checkpoints.checkpoint_id) over one_run, earlier.last_checkpoint_id) as previous_checkpoint_id
        from {{ checkpoints }} as checkpoints
        inner join runs using ({{ keys | join(', ') }}, stage_number, branch)
        left join runs as earlier
            on
                earlier.place = runs.place - 1
                and (earlier.branch_count = 1 or earlier.branch = runs.branch)
                {%- for key in keys %}
                and earlier.{{ key }} = runs.{{ key }}
                {%- endfor %}
        window one_run as (
            partition by {% for key in keys %}runs.{{ key }}, {% endfor %}runs.run_id
            order by checkpoints.checkpoint_index
        )
    )
{%- endmacro %}
