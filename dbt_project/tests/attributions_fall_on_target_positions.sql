-- Nothing that a new extraction attributes is lost in the join with its prompts' target positions.
select attributions.*
from {{ ref('stg_raw__attributions') }} as attributions
anti join (
    select * from {{ ref('stg_raw__prompt_tokens') }}
    where not is_special
) as target_positions using (extraction_id, prompt_id, position)
