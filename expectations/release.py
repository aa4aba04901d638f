"""Expectations for a release: as many rows as its dimensions imply, nothing lost, nothing jumping.

Keys, relationships and the logic of roles are tested where the marts are built; here only what shows in the whole.
"""

from timecourse.expectations.limits import ACCURACY_FALL, ACCURACY_RISE, TURNOVER_CHANGE, TURNOVER_COMPONENTS
from timecourse.expectations.rules import Rule, Severity, holds

_SETTING = ("series_id", "setting_id")
_TAU = (*_SETTING, "tau_id")
_PAIR = (*_TAU, "from_checkpoint_id", "to_checkpoint_id", "component_kind")

# One row per checkpoint and tau that has roles; a checkpoint that was measured for its predictions only has none.
_MEASURED = "select distinct series_id, setting_id, tau_id, checkpoint_id from fct_component_histories"

_KINDS = "select distinct series_id, component_kind from dim_components"

_PAIRS = """
    select distinct
        series_id, setting_id, tau_id, previous_checkpoint_id as from_checkpoint_id,
        checkpoint_id as to_checkpoint_id, component_kind
    from fct_component_histories
    where previous_checkpoint_id is not null
"""

_RELATION_COUNTS = """
    select series_id, setting_id, count(*) as relation_count, count(distinct relation_group) as group_count
    from dim_relations
    group by all
"""


def _counted(table: str, expected: str, key: tuple[str, ...], where: str = "true") -> Rule:
    """A rule that `table` has, for every row of `expected` (with `key` and `expected_count`), that many rows."""
    columns = ", ".join(key)
    rows = f"""(
        select {columns}, expected_count, coalesce(row_count, 0) as row_count
        from ({expected})
        left join (select {columns}, count(*) as row_count from {table} where {where} group by all) using ({columns})
    )"""
    return Rule(
        "rows_are_complete",
        f"as many rows per {', '.join(key)} as the dimensions imply (shown: rows too many)",
        rows,
        "row_count - expected_count",
        (*key, "row_count", "expected_count"),
        minimum=0,
        maximum=0,
    )


_ACCURACY_KEY = (*_SETTING, "checkpoint_id", "scope_kind", "scope_id")
_ACCURACIES = ("top1_accuracy", "top10_accuracy", "all_tokens_accuracy")

_ACCURACY_CHANGES = """(
    select
        accuracies.*,
        previous_checkpoint_id,
        accuracies.top1_accuracy - earlier.top1_accuracy as top1_change,
        accuracies.top10_accuracy - earlier.top10_accuracy as top10_change
    from fct_relation_accuracies as accuracies
    inner join dim_checkpoints using (series_id, setting_id, checkpoint_id)
    inner join fct_relation_accuracies as earlier
        on earlier.series_id = accuracies.series_id and earlier.setting_id = accuracies.setting_id
        and earlier.checkpoint_id = previous_checkpoint_id
        and earlier.scope_kind = accuracies.scope_kind and earlier.scope_id = accuracies.scope_id
    where accuracies.scope_kind = 'all'
)"""

_TURNOVER_CHANGES = f"""(
    select later.*, earlier.turnover as previous_turnover, later.turnover - earlier.turnover as turnover_change
    from fct_turnovers as later
    inner join fct_turnovers as earlier
        on earlier.series_id = later.series_id and earlier.setting_id = later.setting_id
        and earlier.tau_id = later.tau_id and earlier.component_kind = later.component_kind
        and earlier.role = later.role and earlier.to_checkpoint_id = later.from_checkpoint_id
    where later.role = 'all' and least(later.component_count, earlier.component_count) >= {TURNOVER_COMPONENTS}
)"""

_HISTORIES = """(
    select
        series_id, setting_id, tau_id, checkpoint_id, component_count, coalesce(row_count, 0) as row_count
    from dim_checkpoints
    inner join dim_settings using (series_id, setting_id)
    inner join (select series_id, count(*) as component_count from dim_components group by all) using (series_id)
    left join (
        select series_id, setting_id, tau_id, checkpoint_id, count(*) as row_count
        from fct_component_histories
        group by all
    ) using (series_id, setting_id, tau_id, checkpoint_id)
)"""

# One row per series and architecture, with one of its checkpoints.
_ARCHITECTURES = """(
    select
        series_id,
        architecture,
        min(checkpoint_id) as checkpoint_id,
        count(*) as checkpoint_count,
        count(*) over (partition by series_id) as architecture_count
    from dim_checkpoints
    group by series_id, architecture
)"""

# One row per checkpoint, with the others of its series and setting that have its weights.
_WEIGHTS = """(
    select
        ones.series_id, ones.setting_id, ones.checkpoint_id,
        string_agg(others.checkpoint_id, ', ' order by others.checkpoint_index) as same_weights_as
    from dim_checkpoints as ones
    left join dim_checkpoints as others
        on others.series_id = ones.series_id and others.setting_id = ones.setting_id
        and others.weights_sha256 = ones.weights_sha256 and others.checkpoint_id <> ones.checkpoint_id
    group by all
)"""

# One row per name that a series' sources offer. A series without a checkpoint that counts has no row in dim_series.
_REVISIONS = """(
    select dim_revisions.*, coalesce(duplicates, 'warn') as duplicates
    from dim_revisions
    left join dim_series using (series_id)
)"""

# One row per checkpoint with accuracies, and whether it should be an untrained model.
_BEGINNINGS = """(
    select
        dim_checkpoints.series_id, dim_checkpoints.setting_id, dim_checkpoints.checkpoint_id,
        top1_accuracy, top1_low, majority_share,
        cumulative_step = 0
        and phase = first_value(phase) over (partition by series_id, setting_id order by checkpoint_index) as is_random
    from dim_checkpoints
    inner join fct_relation_accuracies using (series_id, setting_id, checkpoint_id)
    where scope_kind = 'all'
)"""


def _duplicates(rule_id: str, severity: Severity) -> Rule:
    return holds(
        rule_id,
        f"no step is offered with the weights of another, in series where that is set to {severity} (shown: names that "
        "are not used, and whose weights they serve)",
        _REVISIONS,
        f"status <> 'duplicate' or duplicates <> '{severity}'",
        ("series_id", "checkpoint_name", "same_weights_as"),
        severity=severity,
    )


RULES: dict[str, tuple[Rule, ...]] = {
    "dim_checkpoints": (
        Rule(
            "is_not_empty",
            "the release holds a checkpoint",
            "(select count(*) as checkpoint_count from dim_checkpoints)",
            "checkpoint_count",
            ("checkpoint_count",),
            minimum=1,
        ),
        holds(
            "weights_are_its_own",
            "no two checkpoints of a series have the same weights",
            _WEIGHTS,
            "same_weights_as is null",
            (*_SETTING, "checkpoint_id", "same_weights_as"),
            severity="warn",
        ),
        Rule(
            "series_is_one_architecture",
            "the checkpoints of a series are of one architecture, since they are compared component by component "
            "(shown: architectures)",
            _ARCHITECTURES,
            "architecture_count",
            ("series_id", "architecture", "checkpoint_id", "checkpoint_count"),
            minimum=1,
            maximum=1,
        ),
    ),
    "dim_revisions": (
        _duplicates("step_has_its_own_weights", "warn"),
        _duplicates("step_must_have_its_own_weights", "fail"),
        holds(
            "revision_is_usable",
            "every checkpoint that is offered can be read and measured",
            "dim_revisions",
            "status not in ('unusable', 'failed')",
            ("series_id", "checkpoint_name", "status", "reason"),
            severity="warn",
        ),
    ),
    "dim_series_pairs": (
        _counted(
            "dim_series_pairs",
            """
                select series_id, setting_id, tau_id, (select count(*) - 1 from dim_settings) as expected_count
                from dim_settings
            """,
            _TAU,
        ),
    ),
    "dim_components": (
        _counted(
            "dim_components",
            "select series_id, layer_count * (head_count + 1) as expected_count from dim_series",
            ("series_id",),
        ),
    ),
    "fct_component_histories": (
        holds(
            "rows_are_complete",
            "a checkpoint has a history for every component of the model, or was measured for predictions only",
            _HISTORIES,
            "row_count in (0, component_count)",
            (*_TAU, "checkpoint_id", "row_count", "component_count"),
        ),
        Rule(
            "checkpoint_has_roles",
            "every checkpoint has a history",
            _HISTORIES,
            "row_count",
            (*_TAU, "checkpoint_id"),
            minimum=1,
            severity="warn",
        ),
    ),
    "fct_component_activities": (
        _counted(
            "fct_component_activities",
            f"""
                select series_id, setting_id, tau_id, checkpoint_id, component_id, relation_count + 2 as expected_count
                from ({_MEASURED})
                inner join dim_components using (series_id)
                inner join ({_RELATION_COUNTS}) using (series_id, setting_id)
            """,
            (*_TAU, "checkpoint_id", "component_id"),
            where="scope_kind <> 'fact'",
        ),
    ),
    "fct_role_stabilities": (
        _counted(
            "fct_role_stabilities",
            f"""
                select
                    series_id, setting_id, tau_id, checkpoint_id, component_kind,
                    2 + 2 * relation_count as expected_count
                from ({_MEASURED})
                inner join ({_KINDS}) using (series_id)
                inner join ({_RELATION_COUNTS}) using (series_id, setting_id)
            """,
            (*_TAU, "checkpoint_id", "component_kind"),
        ),
    ),
    "fct_role_transitions": (
        _counted("fct_role_transitions", f"select *, 25 as expected_count from ({_PAIRS})", _PAIR),
    ),
    "fct_role_switches": (_counted("fct_role_switches", f"select *, 4 as expected_count from ({_PAIRS})", _PAIR),),
    "fct_turnovers": (
        _counted("fct_turnovers", f"select *, 5 as expected_count from ({_PAIRS})", _PAIR),
        Rule(
            "turnover_is_steady",
            f"turnover changes by at most {TURNOVER_CHANGE} from one transition to the next",
            _TURNOVER_CHANGES,
            "turnover_change",
            (*_PAIR, "turnover", "previous_turnover"),
            minimum=-TURNOVER_CHANGE,
            maximum=TURNOVER_CHANGE,
            severity="warn",
        ),
    ),
    "fct_fact_predictions": (
        _counted(
            "fct_fact_predictions",
            """
                select series_id, setting_id, checkpoint_id, fact_count as expected_count
                from dim_checkpoints
                inner join (select series_id, setting_id, count(*) as fact_count from dim_facts group by all)
                    using (series_id, setting_id)
            """,
            (*_SETTING, "checkpoint_id"),
        ),
    ),
    "fct_relation_accuracies": (
        _counted(
            "fct_relation_accuracies",
            f"""
                select series_id, setting_id, checkpoint_id, relation_count + group_count + 1 as expected_count
                from dim_checkpoints
                inner join ({_RELATION_COUNTS}) using (series_id, setting_id)
            """,
            (*_SETTING, "checkpoint_id"),
        ),
        holds(
            "accuracies_are_shares",
            "accuracies are in [0, 1]",
            "fct_relation_accuracies",
            " and ".join(f"{name} between 0 and 1" for name in _ACCURACIES),
            (*_ACCURACY_KEY, *_ACCURACIES),
        ),
        holds(
            "intervals_hold_their_accuracy",
            "an accuracy lies in its interval",
            "fct_relation_accuracies",
            """coalesce(
                top1_accuracy between top1_low - 1e-9 and top1_high + 1e-9
                and top10_accuracy between top10_low - 1e-9 and top10_high + 1e-9
                and all_tokens_accuracy between all_tokens_low - 1e-9 and all_tokens_high + 1e-9,
                fact_count < 2
            )""",
            (*_ACCURACY_KEY, *_ACCURACIES),
        ),
        Rule(
            "top1_is_steady",
            f"top-1 accuracy over all facts falls by at most {ACCURACY_FALL} and rises by at most {ACCURACY_RISE} "
            "from one checkpoint to the next",
            _ACCURACY_CHANGES,
            "top1_change",
            (*_SETTING, "previous_checkpoint_id", "checkpoint_id", "top1_accuracy"),
            minimum=-ACCURACY_FALL,
            maximum=ACCURACY_RISE,
            severity="warn",
        ),
        Rule(
            "top10_is_steady",
            f"top-10 accuracy over all facts falls by at most {ACCURACY_FALL} and rises by at most {ACCURACY_RISE} "
            "from one checkpoint to the next",
            _ACCURACY_CHANGES,
            "top10_change",
            (*_SETTING, "previous_checkpoint_id", "checkpoint_id", "top10_accuracy"),
            minimum=-ACCURACY_FALL,
            maximum=ACCURACY_RISE,
            severity="warn",
        ),
        holds(
            "step_0_is_random",
            "a checkpoint of step 0 knows no facts: the 95 % interval of its top-1 accuracy reaches down to the "
            "majority answer's share",
            _BEGINNINGS,
            "not coalesce(is_random and top1_low > majority_share, false)",
            (*_SETTING, "checkpoint_id", "top1_accuracy", "top1_low", "majority_share"),
            severity="warn",
        ),
    ),
    "fct_relation_convergences": (
        _counted(
            "fct_relation_convergences",
            "select series_id, setting_id, relation_id, 2 as expected_count from dim_relations",
            (*_SETTING, "relation_id"),
            "fact_subset = 'all'",
        ),
    ),
    "fct_layer_readouts": (
        _counted(
            "fct_layer_readouts",
            """
                select series_id, setting_id, checkpoint_id, relation_id, layer_count + 2 as expected_count
                from dim_checkpoints
                inner join dim_relations using (series_id, setting_id)
                inner join dim_series using (series_id)
            """,
            (*_SETTING, "checkpoint_id", "relation_id"),
        ),
    ),
}

COMMITTED = (
    holds(
        "commits_are_released",
        "the release holds every committed checkpoint, as committed, and no other; none for a name that serves another "
        "checkpoint's weights",
        """(
            select
                coalesce(committed.checkpoint_id, dim_checkpoints.checkpoint_id) as checkpoint_id,
                committed.extraction_id as committed_extraction_id,
                dim_checkpoints.extraction_id,
                coalesce(status in ('alias', 'duplicate'), false) as is_another
            from committed
            full join dim_checkpoints using (checkpoint_id)
            left join dim_revisions
                on dim_revisions.checkpoint_id = coalesce(committed.checkpoint_id, dim_checkpoints.checkpoint_id)
        )""",
        "if(is_another, extraction_id is null, committed_extraction_id = extraction_id)",
        ("checkpoint_id", "committed_extraction_id", "extraction_id"),
    ),
)
"""Rules for dim_checkpoints where it is known what is committed."""

SINCE_PREVIOUS = (
    holds(
        "nothing_is_lost",
        "the release still holds every checkpoint of the one before (one that was withdrawn, or turned out to have "
        "another's weights, is listed)",
        """(
            select series_id, checkpoint_id, coalesce(is_there, false) as is_there
            from previous.main.dim_checkpoints
            left join (select distinct checkpoint_id, true as is_there from warehouse.main.dim_checkpoints)
                using (checkpoint_id)
        )""",
        "is_there",
        ("series_id", "checkpoint_id"),
        severity="warn",
    ),
)
"""Rules for dim_checkpoints where there is a release before."""
