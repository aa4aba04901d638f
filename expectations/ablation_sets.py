"""Expectations for the raw table `ablation_sets`: which components were silenced together.

Random sets match the set of a role that has the same role, relation and half, in how many heads and FFNs they hold.
"""

from timecourse.expectations.rules import Rule, holds, is_unique

KEY = ("set_id", "component_id")

_MEMBERS = """(
    select ablation_sets.*, components.component_kind
    from ablation_sets
    left join components using (component_id)
)"""

_SETS = """(
    select
        set_id,
        min(set_kind) as set_kind,
        count(distinct (set_kind, tau_id, theta, role, relation_id, half, random_index)) as description_count,
        count(*) as member_count,
        any_value(role) as role,
        any_value(half) as half,
        any_value(random_index) as random_index
    from ablation_sets
    group by set_id
)"""

_MATCHES = """(
    with sizes as (
        select
            set_id, set_kind, role, relation_id, half,
            count_if(component_id like '%H%') as head_count,
            count_if(component_id like '%F') as ffn_count
        from ablation_sets
        where set_kind <> 'single'
        group by all
    )
    select
        drawn.set_id, drawn.role, drawn.relation_id, drawn.half, drawn.head_count, drawn.ffn_count,
        own.head_count as wanted_head_count, own.ffn_count as wanted_ffn_count
    from sizes as drawn
    left join sizes as own
        on
            own.set_kind = 'role' and own.role = drawn.role and own.half = drawn.half
            and own.relation_id is not distinct from drawn.relation_id
    where drawn.set_kind = 'random'
)"""

_SINGLES = """(
    select components.component_id, count(singles.set_id) as set_count
    from components
    left join (select * from ablation_sets where set_kind = 'single') as singles using (component_id)
    group by components.component_id
)"""

RULES = (
    is_unique("ablation_sets", KEY),
    holds("component_is_known", "every member is a component", _MEMBERS, "component_kind is not null", KEY),
    holds(
        "kind_is_known",
        "a set is a role's, a random one beside it, or a single component",
        _SETS,
        "set_kind in ('role', 'random', 'single')",
        ("set_id", "set_kind"),
    ),
    Rule(
        "rows_of_a_set_agree",
        "all rows of a set describe it alike",
        _SETS,
        "description_count",
        ("set_id", "description_count"),
        maximum=1,
    ),
    holds(
        "sets_are_described",
        "sets of roles and random sets have a role and a half, only random ones a number; single ones have one member",
        _SETS,
        "case set_kind when 'single' then member_count = 1 and role is null and half is null and random_index is null "
        "else role is not null and half in ('A', 'B') and (random_index is not null) = (set_kind = 'random') end",
        ("set_id", "set_kind", "role", "half", "random_index", "member_count"),
    ),
    holds(
        "random_sets_match",
        "a random set holds as many heads and as many FFNs as the set of the role that it stands beside",
        _MATCHES,
        "head_count = wanted_head_count and ffn_count = wanted_ffn_count",
        ("set_id", "role", "relation_id", "half", "head_count", "ffn_count", "wanted_head_count", "wanted_ffn_count"),
    ),
    Rule(
        "every_component_is_silenced",
        "every component is silenced alone, once",
        _SINGLES,
        "set_count",
        ("component_id", "set_count"),
        minimum=1,
        maximum=1,
    ),
)
