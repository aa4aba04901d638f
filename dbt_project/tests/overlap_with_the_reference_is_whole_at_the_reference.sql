-- At the reference checkpoint a set equals the reference's: the overlap is 1, or null for an empty set.
select *
from {{ ref('fct_role_stabilities') }}
where
    checkpoint_id = reference_checkpoint_id
    and (
        iou_reference is distinct from case when member_count > 0 then 1 end
        or member_count <> reference_member_count
    )
