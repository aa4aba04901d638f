-- Nothing that a new extraction attributes is lost in the join with its prompts' target positions.
with

target_positions as (

    select *
    from {{ ref('stg_raw__prompt_tokens') }}
    where not is_special

)

select attributions.*
from {{ ref('stg_raw__attributions') }} as attributions
anti join target_positions using (extraction_id, prompt_id, position)
